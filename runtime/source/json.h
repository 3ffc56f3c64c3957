/* JSON that nobody is trusted to have written (docs/file-format.md, section 3): checked once as a whole, then read in place.
 *
 * After bw_check_json every function here may walk the text without looking for its end. Nothing is copied, no tree is made;
 * to find a key is to pass over those before it.
 */
#ifndef BW_JSON_H
#define BW_JSON_H

#include "error.h"
#include "memory.h"

/* Whether `text` is one JSON object and white space. Refused beyond what JSON refuses: a key twice in an object, text that
 * is no UTF-8 or holds half of a surrogate pair, whole numbers of more than 19 digits, numbers that no double can hold,
 * nesting deeper than any of ours. what: its name, for the message. Takes 8 bytes from the heap for each key. */
bitwren_status bw_check_json(const char *text, size_t size, const char *what, bw_heap *heap, bitwren_error *error);

/* Values are known by where their first character stands. */
typedef struct {
    const char *key;   /* its opening quote, of a member of an object; NULL in a list */
    const char *value; /* NULL before the first */
} bw_member;

const char *bw_json_start(const char *text); /* skips white space */
/* The next member of a list or object, whose first is found from {NULL, NULL}; 0 past the last. */
int bw_next_member(const char *list, bw_member *member);
int32_t bw_count_members(const char *list);
/* The value of a key that is written without escapes here, or NULL. */
const char *bw_find_member(const char *object, const char *key);
/* Whether a value is that string. */
int bw_is_string(const char *value, const char *expected);
/* Whether it is a whole number (3, not 3.0) from low to high; then also in *number. */
int bw_is_whole(const char *value, int64_t low, int64_t high, int64_t *number);
/* Whether it is a number with a decimal point or an exponent; then also in *number. Takes its length from the heap. */
int bw_is_real(const char *value, bw_heap *heap, double *number);
/* The text of a string in UTF-8, no longer than `value` is, not ended by 0; returns its bytes. */
size_t bw_decode_string(const char *value, char *to);
/* Characters of a string; -1 if one is a control character (U+0000..1F, U+007F..9F). */
int32_t bw_count_characters(const char *value);
/* The first characters of a value as a message shows them. */
typedef struct {
    char text[44];
} bw_shown;
bw_shown bw_show(const char *value);

#endif
