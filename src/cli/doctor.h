/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor finds: one line each. checks.c looks at the host, doctor.c at the daemon, and prints. */
#ifndef CORACLE_CLI_DOCTOR_H
#define CORACLE_CLI_DOCTOR_H

#include "cli/cli.h"

enum finding_result { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct findings {
    json_t *list; /* [{"check", "result": "ok"|"warn"|"fail", "detail", "try"}] */
    bool failed;
};

/* try: what would help, or NULL; detail in printf's form. */
void finding_add(struct findings *findings, const char *check, enum finding_result result, const char *remedy,
                 const char *detail, ...) __attribute__((format(printf, 5, 6)));

/* All checks of the host itself; needs no privilege. */
void checks_of_host(struct findings *findings);

#endif
