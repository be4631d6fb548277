/* SPDX-License-Identifier: Apache-2.0 */
/* What several commands do alike: print an answer, wait for an operation, say what happened to an instance. */
#ifndef CORACLE_CLI_COMMON_H
#define CORACLE_CLI_COMMON_H

#include "cli/api.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/term.h"
#include "cli/text.h"

/* Prints indented JSON and a newline. NULL prints {}. */
void print_json(const json_t *value);

/* One line of JSON (streams). */
void print_json_line(const json_t *value);

/* Prints error, cause and remedy to stderr; a problem object under --json. Returns the exit status of its code. */
int report_error(const struct cli *cli, const struct error *err);

/*
 * Waits until an operation has ended and shows its phases on a terminal. Returns 0 and the ended OPERATION in
 * *ret_done (NULL: not wanted), or the operation's own error. Under --explain prints the request it would repeat.
 */
int operation_wait(struct cli *cli, const json_t *operation, json_t **ret_done, struct error **err);

/* "edge-fw started in 2.9 ms (warm pool)": sentence on a terminal; else the name on stdout and it on stderr. */
void report_done(const struct cli *cli, const char *name, const char *sentence);

/* The sentence for a started instance: its time from the operation, warm or cold from the instance. Caller frees. */
char *started_sentence(const json_t *instance, const json_t *operation);

/* Collects the outcome of several names: prints all but the last error at once, keeps the first exit status. */
struct outcome {
    int status;
    json_t *items; /* for --json; NULL until something was added */
};

/* Adds item (stolen, may be NULL). */
void outcome_add(struct outcome *outcome, json_t *item);
void outcome_error(const struct cli *cli, struct outcome *outcome, struct error **err);

/* Prints the JSON form (one object for one name, a list for several) and returns the exit status. */
int outcome_end(const struct cli *cli, struct outcome *outcome, size_t names);

/* GETs the collection at path and prints it: the API's JSON, one name_member of an item a line when quiet, or the table. */
int list_items(struct cli *cli, const char *path, const char *name_member,
               void (*print_table)(const struct cli *cli, const json_t *items), struct error **err);

/* DELETEs each word of args; base is the collection's path, what names the kind: "network a removed". */
int remove_named(struct cli *cli, const struct args *args, const char *base, const char *what);

/* The exit status a shell would show for INSTANCE's "exit" member; -1 when it has none. */
int exit_status_of(const json_t *exit);

/* Grows an owned query string: "" -> "?key=value" -> "&key=value", value percent-encoded. */
void query_add(char **query, const char *key, const char *value);

#endif
