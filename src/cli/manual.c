/* SPDX-License-Identifier: Apache-2.0 */
/* coracle(1) from the command tables, in man(7) macros; run at build time (coracle help --man). */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/help.h"
#include "model/codes.h"

enum { LINE_MAX_COLUMNS = 76 };

/* One word, with what roff would read as a request, an escape or a hyphen made harmless. */
static void roff_word(const char *word, size_t n, bool line_start)
{
    if (line_start && (*word == '.' || *word == '\''))
        fputs("\\&", stdout);
    for (size_t i = 0; i < n; i++) {
        if (word[i] == '\\')
            fputs("\\e", stdout);
        else if (word[i] == '-')
            fputs("\\-", stdout);
        else
            putchar(word[i]);
    }
}

/* A paragraph text: filled lines, "\n\n" begins a new paragraph. */
static void roff(const char *text)
{
    size_t column = 0;

    while (*text) {
        size_t n = strcspn(text, " \n");

        if (column && column + 1 + n > LINE_MAX_COLUMNS) {
            putchar('\n');
            column = 0;
        } else if (column && n) {
            putchar(' ');
            column++;
        }
        roff_word(text, n, column == 0);
        column += n;
        text += n;
        if (!strncmp(text, "\n\n", 2)) {
            fputs("\n.PP\n", stdout);
            column = 0;
        }
        text += strspn(text, " \n");
    }
    putchar('\n');
}

/* Lines as they are, for .nf. */
static void roff_lines(const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");

        roff_word(text, n, true);
        putchar('\n');
        text += n + (text[n] == '\n');
    }
}

static void roff_options(const struct option_spec *options)
{
    for (; options && options->name; options++) {
        fputs(".TP\n\\fB", stdout);
        if (options->letter)
            printf("\\-%c\\fR, \\fB", options->letter);
        fputs("\\-\\-", stdout);
        for (const char *p = options->name; *p; p++)
            printf(*p == '-' ? "\\-" : "%c", *p);
        fputs("\\fR", stdout);
        if (options->value)
            printf(" \\fI%s\\fR", options->value);
        putchar('\n');
        roff(options->help);
        for (const char *w = options->words; w && *w; w += strcspn(w, "|"), w += *w == '|') {
            size_t n = strcspn(w, "|");

            fputs(w == options->words ? "(" : "", stdout);
            roff_word(w, n, true);
            puts(w[n] ? "," : ")");
        }
    }
}

static void roff_examples(const char *examples)
{
    fputs(".PP\nExamples:\n.PP\n.nf\n", stdout);
    roff_lines(examples);
    fputs(".fi\n", stdout);
}

static void roff_command(const struct command *c)
{
    printf(".SS coracle %s", c->name);
    if (*c->synopsis)
        putchar(' ');
    roff_word(c->synopsis, strlen(c->synopsis), false);
    putchar('\n');
    roff(c->summary);
    fputs(".PP\n", stdout);
    roff(c->text);
    if (c->aliases) {
        fputs(".PP\nAlso written: ", stdout);
        roff(c->aliases);
    }
    roff_options(c->options);
    roff_options(c->more_options);
    if (c->examples)
        roff_examples(c->examples);
}

static void roff_codes(int status)
{
    bool first = true;

#define ROW(code, http, exit_code)                                                                                     \
    if ((exit_code) == status) {                                                                                       \
        printf("%s%s", first ? "" : ",\n", #code);                                                                     \
        first = false;                                                                                                 \
    }
    ERROR_CODES(ROW)
#undef ROW
    puts(".");
}

static void roff_exit_codes(void)
{
    static const struct {
        int status;
        const char *words;
    } table[] = {
        {1, "The command failed:"},
        {2, "What was asked for cannot be placed on this host:"},
        {3, "Something named does not exist:"},
        {4, "A conflict with the present state:"},
        {5, "Refused:"},
        {64, "The request itself is wrong (sysexits.h, EX_USAGE):"},
    };

    fputs(".SH EXIT STATUS\n.TP\n0\nDone.\n", stdout);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        printf(".TP\n%d\n%s\n", table[i].status, table[i].words);
        roff_codes(table[i].status);
    }
    puts(".PP");
    roff("exec, attach, and run with --attach end with the status of the process, or 128 and the number of the signal "
         "that ended it.");
}

static const char environment[] =
    ".SH ENVIRONMENT\n"
    ".TP\n.B CORACLE_HOST\nAddress of the daemon, as \\-\\-host.\n"
    ".TP\n.B CORACLE_TOKEN\nBearer token, as \\-\\-token; better here\nthan among the arguments, which others can "
    "see.\n"
    ".TP\n.B CORACLE_CERT\\fR, \\fBCORACLE_KEY\\fR, \\fBCORACLE_CACERT\nAs the options of these names.\n"
    ".TP\n.B NO_COLOR\nSet to anything: no colours.\n"
    ".SH FILES\n"
    ".TP\n.I /run/coracle/api.sock\nThe daemon's socket.\n"
    ".SH SEE ALSO\n"
    ".BR coracled (8),\n.BR coracle\\-launcher (8),\n.BR coracle\\-descriptor (5)\n";

static const char description[] =
    "coracle talks to the coracle daemon over its REST interface: on a unix socket of this machine, or over TLS. It "
    "needs no privilege but the right to connect.\n\n"
    "Listings are tables on a terminal and in pipes; --json gives the answer of the interface instead, which is "
    "versioned and the one to build on. What is not known is called \"not measured\", never 0. A name, or four or more "
    "leading characters of an id that fit only one instance, serve wherever NAME stands.";

static void roff_start(void)
{
    printf(".\\\" SPDX\\-License\\-Identifier: Apache\\-2.0\n.\\\" Made by \"coracle help \\-\\-man\".\n"
           ".TH CORACLE 1 2026-11-23 \"coracle %s\" \"User Commands\"\n.SH NAME\n"
           "coracle \\- run network functions as containers, unikernels and virtual machines\n"
           ".SH SYNOPSIS\n.B coracle\n[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIWORDS\\fR]\n.SH DESCRIPTION\n",
           CORACLE_VERSION);
    roff(description);
    puts(".SH OPTIONS\nEvery command takes these.");
}

void help_manual(void)
{
    const char *section = "";

    roff_start();
    roff_options(global_options);
    for (size_t i = 0; all_commands[i]; i++) {
        if (strcmp(all_commands[i]->section, section) != 0) {
            section = all_commands[i]->section;
            printf(".SH COMMANDS: ");
            for (const char *p = section; *p; p++)
                putchar(toupper((unsigned char)*p));
            putchar('\n');
        }
        roff_command(all_commands[i]);
    }
    roff_exit_codes();
    fputs(environment, stdout);
}
