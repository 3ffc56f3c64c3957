/* What a compiler may call for a loop or an assignment even in freestanding code; plain, short, byte by byte. */
#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    unsigned char *t = to;
    for (const unsigned char *f = from; bytes; --bytes)
        *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    if (t <= f)
        return memcpy(to, from, bytes);
    while (bytes--)
        t[bytes] = f[bytes];
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    for (unsigned char *t = to; bytes; --bytes)
        *t++ = (unsigned char)value;
    return to;
}
