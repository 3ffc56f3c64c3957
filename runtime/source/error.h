/* One way to fail: fill the caller's bitwren_error, return its status. */
#ifndef BW_ERROR_H
#define BW_ERROR_H

#include "bitwren.h"

/* node: index of the layer at fault, or -1. Returns status, so a caller writes `return bw_fail(...)`. error may be NULL. */
bitwren_status bw_fail(bitwren_error *error, bitwren_status status, int32_t node, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
