/* SPDX-License-Identifier: Apache-2.0 */
/* Command line and configuration file of coracled (docs/formats/host-layout.md). Used by its main only. */
#ifndef CORACLE_DAEMON_OPTIONS_H
#define CORACLE_DAEMON_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

struct daemon_options {
    char *run_dir, *state_dir, *config, *user; /* all strings are owned */
    bool config_named;                         /* --config was given: the file must be there */
    enum log_level log_level;
    char *listen, *tls_cert, *tls_key, *tls_client_ca, *token_file;
    char *ipv4_pool, *ipv6_pool;
    uint32_t max_connections, operation_history;
};

/* Fills *ret with defaults, then the arguments. Returns 0, 1 when --help or --version was answered, or -EINVAL. */
int options_parse(int argc, char **argv, struct daemon_options *ret, struct error **err);

/* Reads the configuration file over the defaults. An unknown key is an error with a "did you mean". */
int options_read_file(struct daemon_options *, struct error **err);

void options_clear(struct daemon_options *);

#endif
