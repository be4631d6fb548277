/* SPDX-License-Identifier: Apache-2.0 */
/* Line by line: "data:" collects, a blank line hands out; ids, types and comments are not needed, data holds them. */
#include <string.h>

#include "cli/sse.h"

static int take_line(struct sse *sse)
{
    const char *line = sse->line.length ? sse->line.data : "";
    int r = 0;

    if (!*line) {
        if (sse->data.length)
            r = sse->event(sse->context, sse->data.data);
        sse->data.length = 0;
    } else if (!strncmp(line, "data:", 5)) {
        if (sse->data.length)
            buffer_char(&sse->data, '\n');
        buffer_text(&sse->data, line + 5 + (line[5] == ' '));
    }
    sse->line.length = 0;
    return r;
}

int sse_feed(struct sse *sse, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        int r = 0;

        if (bytes[i] == '\n')
            r = take_line(sse);
        else if (bytes[i] != '\r')
            buffer_char(&sse->line, bytes[i]);
        if (r)
            return r;
    }
    return 0;
}

void sse_clear(struct sse *sse)
{
    buffer_clear(&sse->line);
    buffer_clear(&sse->data);
}
