/* SPDX-License-Identifier: Apache-2.0 */
/* `coracle help`: overview and one command for people, JSON for programs. */
#include <stdio.h>
#include <string.h>

#include "cli/args.h"
#include "cli/common.h"
#include "cli/help.h"

static void print_section(const struct cli *cli, const char *section)
{
    printf("\n%s%s%s\n", term_paint(cli, "bold"), section, term_plain(cli));
    for (size_t i = 0; all_commands[i]; i++)
        if (!strcmp(all_commands[i]->section, section))
            printf("  %-18s %s\n", all_commands[i]->name, all_commands[i]->summary);
}

static void print_option(const struct option_spec *o)
{
    auto_free char *left = text_printf("%s%c%s --%s%s%s", o->letter ? "-" : " ", o->letter ? o->letter : ' ',
                                       o->letter ? "," : " ", o->name, o->value ? " " : "", o->value ? o->value : "");

    if (strlen(left) > 26)
        printf("  %s\n  %-26s %s", left, "", o->help);
    else
        printf("  %-26s %s", left, o->help);
    if (o->words)
        printf(" (%s)", o->words);
    putchar('\n');
}

static void print_options(const struct option_spec *options)
{
    for (; options && options->name; options++)
        print_option(options);
}

void help_overview(const struct cli *cli)
{
    const char *section = "";

    printf("coracle - run network functions as containers, unikernels and virtual machines\n\n"
           "Usage: coracle [OPTIONS] COMMAND [WORDS]\n");
    for (size_t i = 0; all_commands[i]; i++) {
        if (!strcmp(all_commands[i]->section, section))
            continue;
        section = all_commands[i]->section;
        print_section(cli, section);
    }
    printf("\n%sOptions of every command%s\n", term_paint(cli, "bold"), term_plain(cli));
    print_options(global_options);
    printf("\ncoracle help COMMAND explains one; man coracle explains all.\n"
           "First steps: coracle doctor, coracle run IMAGE, coracle ps, coracle help run\n");
}

/* Fills lines up to 80 columns, or the terminal's width when that is less. */
static void print_filled(const char *text)
{
    unsigned short columns, rows;
    size_t column = 0, bound;

    term_size(&columns, &rows);
    bound = columns < 80 ? columns : 80;
    while (*text) {
        size_t n = strcspn(text, " \n");
        bool is_paragraph = !strncmp(text + n, "\n\n", 2);

        if (column && column + 1 + n > bound) {
            putchar('\n');
            column = 0;
        }
        printf("%s%.*s%s", column ? " " : "", (int)n, text, is_paragraph ? "\n\n" : "");
        column = is_paragraph ? 0 : column + n + (column > 0);
        text += n;
        text += strspn(text, " \n");
    }
    putchar('\n');
}

void help_command(const struct cli *cli, const struct command *c)
{
    const char *bold = term_paint(cli, "bold"), *plain = term_plain(cli);

    printf("coracle %s - %s\n\n%sUsage%s: coracle %s %s\n", c->name, c->summary, bold, plain, c->name, c->synopsis);
    if (c->aliases)
        printf("%sAlso%s: %s\n", bold, plain, c->aliases);
    putchar('\n');
    print_filled(c->text);
    if (c->options || c->more_options)
        printf("\n%sOptions%s\n", bold, plain);
    print_options(c->options);
    print_options(c->more_options);
    if (c->examples)
        printf("\n%sExamples%s\n%s\n", bold, plain, c->examples);
    printf("\nOptions of every command (--json, --explain, --host, ...): coracle help\n");
}

static json_t *options_json(const struct option_spec *options)
{
    json_t *list = json_array();

    for (; options && options->name; options++) {
        char letter[2] = {options->letter, 0};

        json_array_append_new(list, json_pack("{s:s, s:s?, s:s?, s:s}", "name", options->name, "letter",
                                              options->letter ? letter : NULL, "value", options->value, "help",
                                              options->help));
    }
    return list;
}

json_t *help_json(void)
{
    json_t *commands = json_array();

    for (size_t i = 0; all_commands[i]; i++) {
        const struct command *c = all_commands[i];
        json_t *options = options_json(c->options), *more = options_json(c->more_options);

        json_array_extend(options, more);
        json_decref(more);
        json_array_append_new(commands, json_pack("{s:s, s:s?, s:s, s:s, s:o}", "name", c->name, "aliases", c->aliases,
                                                  "synopsis", c->synopsis, "summary", c->summary, "options", options));
    }
    return json_pack("{s:o, s:o}", "commands", commands, "options", options_json(global_options));
}

static int run_help(struct cli *cli, const struct args *args, struct error **err)
{
    const struct command *command;
    struct args asked = *args;
    int used;

    if (args_flag(args, "man")) {
        help_manual();
        return 0;
    }
    if (cli->json) {
        json_t *all = help_json();

        print_json(all);
        json_decref(all);
        return 0;
    }
    if (args->word_count == 0) {
        help_overview(cli);
        return 0;
    }
    command = command_find(asked.words, (int)asked.word_count, &used);
    if (!command) {
        const char *near = command_suggest(args->words[0]);

        error_set(err, EINVAL, "UNKNOWN_PARAMETER", "coracle has no command \"%s\"", args->words[0]);
        error_hint(err, near ? "did you mean coracle help %s?" : "coracle help lists the commands%s", near ? near : "");
        return -EINVAL;
    }
    help_command(cli, command);
    return 0;
}

static const struct option_spec options[] = {
    {"man", 0, NULL, "print the manual page coracle(1) as roff"},
    {NULL},
};

const struct command command_help = {
    .name = "help",
    .section = "This program",
    .synopsis = "[COMMAND]",
    .summary = "Explain the commands, or one of them",
    .text = "Without a word lists the commands. With --json prints every command and option as data.",
    .examples = "  coracle help run\n  coracle help image import",
    .options = options,
    .words = WORD_COMMAND,
    .max_words = 2,
    .run = run_help,
};
