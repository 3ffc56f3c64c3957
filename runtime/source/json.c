#include "json.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 24 /* the deepest there may be: `about`, 16 deep, in the description */
#define MAX_DIGITS 19

/* ------------------------------------------------------------------ characters */

static int is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static int is_digit(char c) { return c >= '0' && c <= '9'; }

static int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int32_t four_digits(const char *at) {
    return hex_digit(at[0]) << 12 | hex_digit(at[1]) << 8 | hex_digit(at[2]) << 4 | hex_digit(at[3]);
}

/* The next character of a string that has been checked, or -1 at its closing quote. */
static int32_t next_character(const char **at) {
    const unsigned char c = (unsigned char)*(*at)++;
    if (c == '"') return -1;
    if (c == '\\') {
        const char escape = *(*at)++;
        switch (escape) {
        case 'b': return '\b';
        case 'f': return '\f';
        case 'n': return '\n';
        case 'r': return '\r';
        case 't': return '\t';
        case 'u': break;
        default: return escape;
        }
        const int32_t first = four_digits(*at);
        *at += 4;
        if (first < 0xD800 || first > 0xDFFF) return first;
        const int32_t second = four_digits(*at + 2);
        *at += 6;
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }
    if (c < 0x80) return c;
    const int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
    int32_t character = c & (0x3F >> more);
    for (int k = 0; k < more; k++) character = character << 6 | (*(*at)++ & 0x3F);
    return character;
}

static int compare_strings(const char *a, const char *b) {
    for (a++, b++;;) {
        const int32_t x = next_character(&a), y = next_character(&b);
        if (x != y) return x < y ? -1 : 1;
        if (x < 0) return 0;
    }
}

/* ------------------------------------------------------------------ checking */

typedef struct {
    const char *text, *at, *end;
    const char *what;
    bw_heap *heap;
    bitwren_error *error;
    bitwren_status status;
    const char **keys; /* of the objects that are open, innermost last */
    size_t key_count;
} checker;

static int refuse(checker *c, const char *why) {
    c->status = bw_fail(c->error, BITWREN_BAD_FILE, -1, "%s: not JSON at byte %zu: %s", c->what, (size_t)(c->at - c->text), why);
    return 0;
}

static void skip_space(checker *c) {
    while (c->at < c->end && is_space(*c->at)) c->at++;
}

/* A character of two to four bytes: no longer than it must be, no half of a pair, at most U+10FFFF. */
static int check_utf8(checker *c) {
    const unsigned char *at = (const unsigned char *)c->at;
    const size_t left = (size_t)(c->end - c->at), bytes = at[0] >= 0xF0 ? 4 : at[0] >= 0xE0 ? 3 : 2;
    if (at[0] < 0xC2 || at[0] > 0xF4 || left < bytes) return refuse(c, "no UTF-8");
    for (size_t k = 1; k < bytes; k++)
        if ((at[k] & 0xC0) != 0x80) return refuse(c, "no UTF-8");
    if ((at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xED && at[1] > 0x9F) || (at[0] == 0xF0 && at[1] < 0x90) ||
        (at[0] == 0xF4 && at[1] > 0x8F))
        return refuse(c, "no UTF-8");
    c->at += bytes;
    return 1;
}

static int check_unicode_escape(checker *c, int32_t *unit) { /* at `u` */
    if (c->end - c->at < 5) return refuse(c, "an escape of fewer than 4 digits");
    for (int k = 1; k < 5; k++)
        if (hex_digit(c->at[k]) < 0) return refuse(c, "an escape of fewer than 4 digits");
    *unit = four_digits(c->at + 1);
    c->at += 5;
    return 1;
}

static int check_escape(checker *c) { /* after the backslash */
    int32_t first, second = 0;
    if (c->at == c->end) return refuse(c, "a string without an end");
    if (*c->at != 'u') {
        if (strchr("\"\\/bfnrt", *c->at) == NULL || *c->at == 0) return refuse(c, "an unknown escape");
        c->at++;
        return 1;
    }
    if (!check_unicode_escape(c, &first)) return 0;
    if (first < 0xD800 || first > 0xDFFF) return 1;
    if (first < 0xDC00 && c->end - c->at >= 2 && c->at[0] == '\\' && c->at[1] == 'u') {
        c->at++;
        if (!check_unicode_escape(c, &second)) return 0;
    }
    return (second >= 0xDC00 && second <= 0xDFFF) || refuse(c, "half a character");
}

static int check_string(checker *c) {
    for (c->at++; c->at < c->end;) {
        const unsigned char byte = (unsigned char)*c->at;
        if (byte == '"') {
            c->at++;
            return 1;
        }
        if (byte < 0x20) return refuse(c, "a control character in a string");
        if (byte >= 0x80) {
            if (!check_utf8(c)) return 0;
        } else {
            c->at++;
            if (byte == '\\' && !check_escape(c)) return 0;
        }
    }
    return refuse(c, "a string without an end");
}

static size_t skip_digits(checker *c) {
    const char *start = c->at;
    while (c->at < c->end && is_digit(*c->at)) c->at++;
    return (size_t)(c->at - start);
}

/* The number of so many characters, as a double; 0 for want of memory. strtod wants this program's decimal point, and a 0. */
static int read_real(const char *number, size_t length, bw_heap *heap, double *value) {
    char few[64], *copy = length < sizeof few ? few : bw_take(heap, length + 1, 1);
    if (copy == NULL) return 0;
    memcpy(copy, number, length);
    copy[length] = 0;
    char *point = strchr(copy, '.');
    if (point != NULL) *point = localeconv()->decimal_point[0];
    *value = strtod(copy, NULL);
    if (copy != few) bw_give_back(heap, copy);
    return 1;
}

static int check_number(checker *c) {
    const char *start = c->at;
    int real = 0;
    if (*c->at == '-') c->at++;
    const int leading_zero = c->at < c->end && *c->at == '0';
    size_t digits = 1;
    if (leading_zero) c->at++;
    else digits = skip_digits(c);
    if (digits == 0) return refuse(c, "no value");
    /* What follows the digits belongs to the number only if it is a whole fraction or exponent. */
    if (c->end - c->at >= 2 && *c->at == '.' && is_digit(c->at[1])) {
        c->at++;
        skip_digits(c);
        real = 1;
    }
    if (c->end - c->at >= 2 && (*c->at == 'e' || *c->at == 'E')) {
        const int sign = c->at[1] == '-' || c->at[1] == '+';
        if (c->end - c->at >= 2 + sign && is_digit(c->at[1 + sign])) {
            c->at += 1 + sign;
            skip_digits(c);
            real = 1;
        }
    }
    if (!real) return digits <= MAX_DIGITS || refuse(c, "a whole number of more than 19 digits");
    double value;
    if (!read_real(start, (size_t)(c->at - start), c->heap, &value)) {
        c->status = bw_fail(c->error, BITWREN_NO_MEMORY, -1, "out of memory");
        return 0;
    }
    return isfinite(value) || refuse(c, "a number that is not finite");
}

static int check_value(checker *c, int depth);

static int check_list(checker *c, int depth) {
    c->at++;
    skip_space(c);
    if (c->at < c->end && *c->at == ']') {
        c->at++;
        return 1;
    }
    for (;;) {
        if (!check_value(c, depth + 1)) return 0;
        skip_space(c);
        if (c->at == c->end || (*c->at != ',' && *c->at != ']')) return refuse(c, "',' or ']' is missing");
        if (*c->at++ == ']') return 1;
        skip_space(c);
    }
}

static void sift_down(const char **keys, size_t root, size_t count) {
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && compare_strings(keys[child], keys[child + 1]) < 0) child++;
        if (compare_strings(keys[root], keys[child]) >= 0) return;
        const char *swap = keys[root];
        keys[root] = keys[child];
        keys[child] = swap;
    }
}

/* Heapsort: no memory, and no order of the keys makes it slow. */
static int has_twins(const char **keys, size_t count) {
    for (size_t k = count / 2; k > 0; k--) sift_down(keys, k - 1, count);
    for (size_t k = count; k > 1; k--) {
        const char *largest = keys[0];
        keys[0] = keys[k - 1];
        keys[k - 1] = largest;
        sift_down(keys, 0, k - 1);
    }
    for (size_t k = 1; k < count; k++)
        if (compare_strings(keys[k - 1], keys[k]) == 0) return 1;
    return 0;
}

static int check_object(checker *c, int depth) {
    const size_t outer = c->key_count;
    c->at++;
    skip_space(c);
    if (c->at < c->end && *c->at == '}') {
        c->at++;
        return 1;
    }
    for (;;) {
        if (c->at == c->end || *c->at != '"') return refuse(c, "a key is missing");
        const char *key = c->at;
        if (!check_string(c)) return 0;
        skip_space(c);
        if (c->at == c->end || *c->at != ':') return refuse(c, "':' is missing");
        c->at++;
        c->keys[c->key_count++] = key;
        skip_space(c);
        if (!check_value(c, depth + 1)) return 0;
        skip_space(c);
        if (c->at == c->end || (*c->at != ',' && *c->at != '}')) return refuse(c, "',' or '}' is missing");
        if (*c->at++ == '}') break;
        skip_space(c);
    }
    if (has_twins(c->keys + outer, c->key_count - outer)) return refuse(c, "a key stands twice in the object that ends here");
    c->key_count = outer;
    return 1;
}

static int check_value(checker *c, int depth) {
    if (c->at == c->end) return refuse(c, "a value is missing");
    if (depth > MAX_DEPTH) return refuse(c, "nested too deeply");
    switch (*c->at) {
    case '{': return check_object(c, depth);
    case '[': return check_list(c, depth);
    case '"': return check_string(c);
    default: break;
    }
    static const char *const words[] = {"true", "false", "null"};
    for (int k = 0; k < 3; k++) {
        const size_t length = strlen(words[k]);
        if ((size_t)(c->end - c->at) < length || memcmp(c->at, words[k], length) != 0) continue;
        c->at += length;
        return 1;
    }
    if (*c->at != '-' && !is_digit(*c->at)) return refuse(c, "no value");
    return check_number(c);
}

bitwren_status bw_check_json(const char *text, size_t size, const char *what, bw_heap *heap, bitwren_error *error) {
    checker c = {.text = text, .at = text, .end = text + size, .what = what, .heap = heap, .error = error};
    size_t colons = 0;
    for (size_t k = 0; k < size; k++) colons += text[k] == ':';
    c.keys = bw_take(heap, colons + 1, sizeof *c.keys);
    if (c.keys == NULL) return bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
    skip_space(&c);
    if (c.at == c.end || *c.at != '{') refuse(&c, "no object");
    else if (check_object(&c, 0)) {
        skip_space(&c);
        if (c.at < c.end) refuse(&c, "something after the object");
    }
    bw_give_back(heap, c.keys);
    return c.status;
}

/* ------------------------------------------------------------------ reading */

const char *bw_json_start(const char *text) {
    while (is_space(*text)) text++;
    return text;
}

static const char *after_string(const char *at) {
    for (at++; *at != '"'; at++) at += *at == '\\';
    return at + 1;
}

static const char *after_value(const char *at) {
    if (*at == '"') return after_string(at);
    if (*at != '{' && *at != '[') {
        while (!is_space(*at) && *at != ',' && *at != ']' && *at != '}') at++;
        return at;
    }
    for (int depth = 0;;) {
        if (*at == '"') {
            at = after_string(at);
            continue;
        }
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        at++;
        if (depth == 0) return at;
    }
}

int bw_next_member(const char *list, bw_member *member) {
    const char *at = bw_json_start(member->value == NULL ? list + 1 : after_value(member->value));
    if (*at == ']' || *at == '}') return 0;
    if (member->value != NULL) at = bw_json_start(at + 1); /* past the comma */
    member->key = NULL;
    if (*list == '{') {
        member->key = at;
        at = bw_json_start(bw_json_start(after_string(at)) + 1); /* past the colon */
    }
    member->value = at;
    return 1;
}

int32_t bw_count_members(const char *list) {
    int32_t count = 0;
    for (bw_member m = {NULL, NULL}; bw_next_member(list, &m);) count++;
    return count;
}

int bw_is_string(const char *value, const char *expected) {
    if (*value++ != '"') return 0;
    for (;; expected++) {
        const int32_t character = next_character(&value);
        if (character < 0) return *expected == 0;
        if (character != (unsigned char)*expected) return 0;
    }
}

const char *bw_find_member(const char *object, const char *key) {
    for (bw_member m = {NULL, NULL}; bw_next_member(object, &m);)
        if (bw_is_string(m.key, key)) return m.value;
    return NULL;
}

int bw_is_whole(const char *value, int64_t low, int64_t high, int64_t *number) {
    const int negative = *value == '-';
    const char *at = value + negative;
    uint64_t size = 0; /* of 19 digits at most */
    if (!is_digit(*at)) return 0;
    for (; is_digit(*at); at++) size = 10 * size + (uint64_t)(*at - '0');
    if (*at == '.' || *at == 'e' || *at == 'E' || size > INT64_MAX) return 0;
    *number = negative ? -(int64_t)size : (int64_t)size;
    return *number >= low && *number <= high;
}

int bw_is_real(const char *value, bw_heap *heap, double *number) {
    const size_t length = strspn(value, "+-.0123456789eE");
    if ((*value != '-' && !is_digit(*value)) || strcspn(value, ".eE") >= length) return 0;
    return read_real(value, length, heap, number);
}

static size_t encode(int32_t character, char *to) {
    if (character < 0x80) {
        to[0] = (char)character;
        return 1;
    }
    const int more = character >= 0x10000 ? 3 : character >= 0x800 ? 2 : 1;
    to[0] = (char)((0xFF << (7 - more) & 0xFF) | character >> (6 * more));
    for (int k = 1; k <= more; k++) to[k] = (char)(0x80 | (character >> (6 * (more - k)) & 0x3F));
    return (size_t)more + 1;
}

size_t bw_decode_string(const char *value, char *to) {
    const char *start = to, *at = value + 1;
    for (int32_t character; (character = next_character(&at)) >= 0;) to += encode(character, to);
    return (size_t)(to - start);
}

int32_t bw_count_characters(const char *value) {
    const char *at = value + 1;
    int32_t count = 0;
    for (int32_t character; (character = next_character(&at)) >= 0; count++)
        if (character < 0x20 || (character >= 0x7F && character <= 0x9F)) return -1;
    return count;
}

bw_shown bw_show(const char *value) {
    bw_shown shown = {{0}};
    const size_t length = (size_t)(after_value(value) - value), most = sizeof shown.text - 4;
    for (size_t k = 0; k < length && k < most; k++)
        shown.text[k] = value[k] >= 0x20 && value[k] < 0x7F ? value[k] : '?';
    if (length > most) memcpy(shown.text + most, "...", 4);
    return shown;
}
