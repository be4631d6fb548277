/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every file of the command line shares: a command as a table row, its parsed words, and the run's context.
 *
 * One source: the tables below drive parsing, help, completion and the manual. A new command is one struct command in
 * its own file and one line in commands.c. Single-threaded, except the archive writer (tar_stream.c).
 */
#ifndef CORACLE_CLI_CLI_H
#define CORACLE_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

/* Exit codes beside those of src/model/codes.h. EXIT_SIGNAL_BASE + N: the process ended by signal N, as shells say. */
enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 64, EXIT_SIGNAL_BASE = 128 };

/* What a word of the command line stands for; completion asks the daemon or the tables for candidates. */
enum word_kind {
    WORD_ANY,
    WORD_INSTANCE,
    WORD_IMAGE,
    WORD_NETWORK,
    WORD_SNAPSHOT,
    WORD_OPERATION,
    WORD_FILE,
    WORD_DIRECTORY,
    WORD_COMMAND,
    WORD_TECHNOLOGY,
    WORD_FILTER,
    WORD_LIST, /* one of option_spec.words */
};

struct option_spec {
    const char *name;  /* long name without dashes; NULL ends a table */
    char letter;       /* 0: none */
    const char *value; /* placeholder of its value ("N"); NULL: a flag */
    const char *help;
    enum word_kind kind; /* of the value */
    const char *words;   /* "a|b|c" when kind is WORD_LIST */
    const char *alias;   /* another long name for the same, or NULL */
};

struct cli;
struct args;

/* Returns the exit status (>= 0), or -errno with *err set. */
typedef int (*command_run)(struct cli *cli, const struct args *args, struct error **err);

struct command {
    const char *name;                       /* "image import": the group's word, a blank, the verb; or one word */
    const char *aliases;                    /* "|"-separated other spellings, each whole ("images"), or NULL */
    const char *section;                    /* heading in the overview */
    const char *synopsis;                   /* what follows the name and [OPTIONS]: "NAME..." */
    const char *summary;                    /* one line, no full stop */
    const char *text;                       /* paragraphs of the manual, "\n\n" between them */
    const char *examples;                   /* lines, each a command; NULL: none */
    const struct option_spec *options;      /* NULL: none */
    const struct option_spec *more_options; /* a second table shared with other commands, or NULL */
    enum word_kind words;                   /* of its positional words */
    const char *word_list;                  /* "a|b|c" when words is WORD_LIST */
    int min_words, max_words;               /* -1: any number */
    int stop_at_word;  /* options end behind this many words (0: never): the rest belongs to another program */
    bool filter_words; /* "-key:value" is a word, not options */
    bool raw;          /* everything after the name is handed on unparsed */
    command_run run;
};

struct arg_value {
    const struct option_spec *spec;
    const char *value; /* "" for a flag */
};

struct args {
    const struct command *command;
    struct arg_value *values;
    size_t value_count;
    char **words; /* NULL-terminated, borrowed from argv */
    size_t word_count;
};

enum color_mode { COLOR_AUTO, COLOR_NEVER, COLOR_ALWAYS };

struct connection {
    const char *host; /* unix:///path or https://host:port */
    const char *cert, *key, *cacert, *token;
};

struct cli {
    struct connection connection;
    bool json;    /* --json */
    bool explain; /* --explain: print requests, send none */
    bool quiet;   /* --quiet */
    enum color_mode color;
    bool out_tty, err_tty, unicode;
    char *program; /* argv[0], for finding the programs beside it */
    struct api *api;
};

/* commands.c */
extern const struct command *const all_commands[]; /* NULL-terminated, in the order of the overview */
extern const struct option_spec global_options[];

/*
 * Finds the command at argv[0..]: two words before one. *ret_used: words taken. Returns NULL when there is none.
 * A group's plural alone ("images") is the alias of its list.
 */
const struct command *command_find(char *const *argv, int argc, int *ret_used);

/* The nearest command name to a mistyped word, or NULL. */
const char *command_suggest(const char *word);

#endif
