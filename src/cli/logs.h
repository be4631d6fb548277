/* SPDX-License-Identifier: Apache-2.0 */
/* Log records (docs/formats/host-layout.md, the CRI's form) turned back into the lines the application wrote. */
#ifndef CORACLE_CLI_LOGS_H
#define CORACLE_CLI_LOGS_H

#include "base/buffer.h"
#include "cli/cli.h"

struct log_record {
    const char *time, *stream, *text; /* not terminated; see the sizes */
    size_t time_size, stream_size, text_size;
    bool partial; /* the line goes on in the next record of this stream */
};

/* line: one record without its newline. Returns -EPROTO when it is none. */
int log_record_parse(const char *line, size_t size, struct log_record *ret);

struct log_printer {
    const struct cli *cli;
    bool timestamps;
    struct buffer rest; /* of a record that is not whole yet */
    bool in_line[2];    /* stdout, stderr: the last record was partial */
};

/* api_sink: prints stdout records to stdout and stderr records to stderr. */
int log_printer_feed(void *printer, const char *data, size_t size);

/* Streams an instance's logs through a printer. query: "" or "?follow=true&tail=10". */
int logs_stream(struct cli *cli, const char *name, const char *query, bool timestamps, struct error **err);

#endif
