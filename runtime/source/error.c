#include "error.h"

#include <stdarg.h>
#include <stdio.h>

bitwren_status bw_fail(bitwren_error *error, bitwren_status status, int32_t node, const char *format, ...) {
    if (error != NULL) {
        error->status = status;
        error->node = node;
        va_list values;
        va_start(values, format);
        vsnprintf(error->message, sizeof error->message, format, values);
        va_end(values);
    }
    return status;
}
