/* The outside of a .bwn file: its layout, its checksum, its header. */
#include "read.h"

#include <stdio.h>
#include <string.h>

#define CHECKSUM_AT 42
#define CHECKSUM_DIGITS 8
#define MAX_HEADER (1 << 20)

static const char start[] = "{\"__metadata__\":{\"bitwren.crc32\":\""; /* from byte 8 on */

static bitwren_status refuse(bitwren_error *error, const char *what) { return bw_fail(error, BITWREN_BAD_FILE, -1, "%s", what); }

/* CRC-32 of zlib, four bits at a time would take 20 ms for 3 MB; eight tables of 256 make it 3. */
typedef struct {
    uint32_t table[8][256];
} crc_tables;

static void make_tables(crc_tables *t) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        t->table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) {
            const uint32_t crc = t->table[k - 1][byte];
            t->table[k][byte] = crc >> 8 ^ t->table[0][crc & 0xFF];
        }
}

static uint32_t crc32(const crc_tables *t, uint32_t crc, const uint8_t *from, size_t bytes) {
    for (; bytes >= 8; bytes -= 8, from += 8) {
        crc ^= (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
        crc = t->table[7][crc & 0xFF] ^ t->table[6][crc >> 8 & 0xFF] ^ t->table[5][crc >> 16 & 0xFF] ^
              t->table[4][crc >> 24] ^ t->table[3][from[4]] ^ t->table[2][from[5]] ^ t->table[1][from[6]] ^
              t->table[0][from[7]];
    }
    for (; bytes > 0; bytes--) crc = crc >> 8 ^ t->table[0][(crc ^ *from++) & 0xFF];
    return crc;
}

/* Of the whole file, its own digits counted as zeros. */
static uint32_t checksum(const crc_tables *t, const uint8_t *file, size_t bytes) {
    uint32_t crc = crc32(t, 0xFFFFFFFFu, file, CHECKSUM_AT);
    crc = crc32(t, crc, (const uint8_t *)"00000000", CHECKSUM_DIGITS);
    crc = crc32(t, crc, file + CHECKSUM_AT + CHECKSUM_DIGITS, bytes - CHECKSUM_AT - CHECKSUM_DIGITS);
    return crc ^ 0xFFFFFFFFu;
}

static bitwren_status check_checksum(const uint8_t *file, size_t bytes, bw_heap *heap, bitwren_error *error) {
    crc_tables *tables = bw_take(heap, 1, sizeof *tables);
    if (tables == NULL) return bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
    make_tables(tables);
    char digits[CHECKSUM_DIGITS + 1];
    snprintf(digits, sizeof digits, "%08x", (unsigned)checksum(tables, file, bytes));
    bw_give_back(heap, tables);
    if (memcmp(file + CHECKSUM_AT, digits, CHECKSUM_DIGITS) == 0) return BITWREN_OK;
    return bw_fail(error, BITWREN_BAD_FILE, -1, "checksum %s, the file says another: the file is damaged", digits);
}

/* The description, unpacked from the string that it is in the header, and checked. */
static bitwren_status read_metadata(const char *metadata, bw_heap *heap, bw_parts *parts, bitwren_error *error) {
    const char *crc = bw_find_member(metadata, "bitwren.crc32"), *network = bw_find_member(metadata, "bitwren.network");
    if (bw_count_members(metadata) != 2 || crc == NULL || network == NULL || *network != '"')
        return refuse(error, "metadata: expected bitwren.crc32 and bitwren.network, both strings");
    if (crc[1 + CHECKSUM_DIGITS] != '"') return refuse(error, "bitwren.crc32: expected its 8 digits alone");
    size_t room = 0; /* the string's bytes as they stand are enough for it unpacked */
    for (const char *at = network + 1; *at != '"'; at++) {
        const int escaped = *at == '\\';
        at += escaped;
        room += 1 + (size_t)escaped;
    }
    char *text = bw_take(heap, room + 1, 1);
    if (text == NULL) return bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
    parts->description = text;
    return bw_check_json(text, bw_decode_string(network, text), "network", heap, error);
}

bitwren_status bw_check_start(const uint8_t *file, size_t bytes, bitwren_error *error) {
    if (bytes < BW_START)
        return bw_fail(error, BITWREN_BAD_FILE, -1, "%zu bytes, expected at least %d: not a .bwn file", bytes, BW_START);
    if (memcmp(file + 8, start, sizeof start - 1) != 0)
        return bw_fail(error, BITWREN_BAD_FILE, -1, "the header does not begin %.16s: not a .bwn file", start);
    if (bytes > BW_MOST) return bw_fail(error, BITWREN_BAD_FILE, -1, "%zu bytes, expected at most %d", bytes, BW_MOST);
    return BITWREN_OK;
}

bitwren_status bw_read_container(const uint8_t *file, size_t bytes, bw_heap *heap, bw_parts *parts, bitwren_error *error) {
    TRY(bw_check_start(file, bytes, error));
    uint64_t length = 0;
    for (int k = 7; k >= 0; k--) length = length << 8 | file[k];
    if (length % 8 != 0 || length <= sizeof start - 1 || length > MAX_HEADER || length > bytes - 8)
        return bw_fail(error, BITWREN_BAD_FILE, -1,
                       "header of %llu bytes, expected a multiple of 8, at most %d and the %zu present",
                       (unsigned long long)length, MAX_HEADER, bytes - 8);
    bitwren_status status = check_checksum(file, bytes, heap, error);
    if (status != BITWREN_OK) return status;
    parts->header = (const char *)file + 8;
    parts->tensors = file + 8 + length;
    parts->tensor_bytes = bytes - 8 - (size_t)length;
    status = bw_check_json(parts->header, (size_t)length, "header", heap, error);
    if (status != BITWREN_OK) return status;
    bw_member metadata = {NULL, NULL};
    bw_next_member(parts->header, &metadata);
    return read_metadata(metadata.value, heap, parts, error);
}
