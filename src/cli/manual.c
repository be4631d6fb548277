/* SPDX-License-Identifier: Apache-2.0 */
/* coracle(1) from the command tables, in man(7) macros; run at build time (coracle help --man). */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/help.h"
#include "model/codes.h"

/* Escapes what roff would read as a request, an escape or a hyphen. */
static void roff(const char *text)
{
    bool line_start = true;

    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        line_start = *text == '\n';
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\n' && text[1] == '\n')
            fputs("\n.PP", stdout);
        else if (!(*text == '\n' && text[-1] == '\n' && text[1] == '\n'))
            putchar(*text);
    }
    putchar('\n');
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
        if (options->words) {
            fputs("One of: ", stdout);
            roff(options->words);
        }
    }
}

static void roff_examples(const char *examples)
{
    fputs(".PP\nExamples:\n.PP\n.nf\n", stdout);
    roff(examples);
    fputs(".fi\n", stdout);
}

static void roff_command(const struct command *c)
{
    printf(".SS coracle %s", c->name);
    if (*c->synopsis)
        putchar(' ');
    roff(c->synopsis);
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
        {1, "The command failed: "},
        {2, "What was asked for cannot be placed on this host: "},
        {3, "Something named does not exist: "},
        {4, "A conflict with the present state: "},
        {5, "Refused: "},
        {64, "The request itself is wrong (sysexits.h, EX_USAGE): "},
    };

    fputs(".SH EXIT STATUS\n.TP\n0\nDone.\n", stdout);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        printf(".TP\n%d\n%s\n", table[i].status, table[i].words);
        roff_codes(table[i].status);
    }
    fputs(".PP\nexec, attach, and run with \\-\\-attach end with the status of the process, or 128 and the number of "
          "the\nsignal that ended it.\n",
          stdout);
}

static const char environment[] =
    ".SH ENVIRONMENT\n"
    ".TP\n.B CORACLE_HOST\nAddress of the daemon, as \\-\\-host.\n"
    ".TP\n.B CORACLE_TOKEN\nBearer token, as \\-\\-token; better here than among the arguments, which others can see.\n"
    ".TP\n.B CORACLE_CERT\\fR, \\fBCORACLE_KEY\\fR, \\fBCORACLE_CACERT\nAs the options of these names.\n"
    ".TP\n.B NO_COLOR\nSet to anything: no colours.\n"
    ".SH FILES\n"
    ".TP\n.I /run/coracle/api.sock\nThe daemon's socket.\n"
    ".SH SEE ALSO\n"
    ".BR coracled (8),\n.BR coracle\\-launcher (8),\n.BR coracle\\-descriptor (5)\n";

void help_manual(void)
{
    const char *section = "";

    printf(".\\\" SPDX\\-License\\-Identifier: Apache\\-2.0\n.\\\" Made by \"coracle help \\-\\-man\".\n"
           ".TH CORACLE 1 \"\" \"coracle %s\" \"User Commands\"\n.SH NAME\n"
           "coracle \\- run network functions as containers, unikernels and virtual machines\n"
           ".SH SYNOPSIS\n.B coracle\n[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIWORDS\\fR]\n"
           ".SH DESCRIPTION\ncoracle talks to the coracle daemon over its REST interface: on a unix socket of this\n"
           "machine, or over TLS. It needs no privilege but the right to connect.\n"
           ".PP\nListings are tables on a terminal and in pipes; \\fB\\-\\-json\\fR gives the answer of the\n"
           "interface instead, which is versioned and the one to build on. What is not known is called\n"
           "\\(lqnot measured\\(rq, never 0. A name, or four or more leading characters of an id that fit only one\n"
           "instance, serve wherever NAME stands.\n.SH OPTIONS\nEvery command takes these.\n",
           CORACLE_VERSION);
    roff_options(global_options);
    puts(".SH COMMANDS");
    for (size_t i = 0; all_commands[i]; i++) {
        if (strcmp(all_commands[i]->section, section) != 0) {
            section = all_commands[i]->section;
            printf(".PP\n\\fB%s\\fR\n", section);
        }
        roff_command(all_commands[i]);
    }
    roff_exit_codes();
    fputs(environment, stdout);
}
