/* SPDX-License-Identifier: Apache-2.0 */
/* The `coracle` program: global options, choice of the command, errors and exit status. Holds no privilege of its own.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/common.h"
#include "cli/complete.h"
#include "cli/help.h"
#include "model/codes.h"

static int color_parse(const char *word, enum color_mode *ret, struct error **err)
{
    static const char *const words[] = {"auto", "never", "always"};

    for (size_t i = 0; i < 3; i++) {
        if (!strcmp(words[i], word)) {
            *ret = (enum color_mode)i;
            return 0;
        }
    }
    return error_set(err, EINVAL, "INVALID_VALUE", "--color: \"%s\" is none of auto, never, always", word);
}

static void take(const struct args *args, const char *name, const char **place)
{
    const char *value = args_get(args, name);

    if (value)
        *place = value;
}

/* Options may stand before and behind the command: both sets end up in cli. */
static int apply_globals(struct cli *cli, const struct args *args, struct error **err)
{
    const char *color = args_get(args, "color");

    take(args, "host", &cli->connection.host);
    take(args, "cert", &cli->connection.cert);
    take(args, "key", &cli->connection.key);
    take(args, "cacert", &cli->connection.cacert);
    take(args, "token", &cli->connection.token);
    cli->json |= args_flag(args, "json");
    cli->explain |= args_flag(args, "explain");
    cli->quiet |= args_flag(args, "quiet");
    return color ? color_parse(color, &cli->color, err) : 0;
}

static void defaults_from_environment(struct cli *cli)
{
    const char *host = getenv("CORACLE_HOST");

    cli->connection.host = host && *host ? host : DEFAULT_HOST;
    cli->connection.token = getenv("CORACLE_TOKEN");
    cli->connection.cert = getenv("CORACLE_CERT");
    cli->connection.key = getenv("CORACLE_KEY");
    cli->connection.cacert = getenv("CORACLE_CACERT");
}

static int unknown_command(const struct args *before, struct error **err)
{
    const char *word = before->words[0], *near;
    auto_free char *two = before->word_count > 1 ? text_printf("%s %s", word, before->words[1]) : NULL;

    near = two ? command_suggest(two) : NULL;
    if (!near)
        near = command_suggest(word);
    error_set(err, EINVAL, "UNKNOWN_PARAMETER", "coracle has no command \"%s\"", word);
    if (near)
        error_hint(err, "did you mean coracle %s?", near);
    else
        error_hint(err, "coracle help lists the commands");
    return -EINVAL;
}

static int run_parsed(struct cli *cli, const struct args *args, struct error **err)
{
    int r;

    if (args_flag(args, "help")) {
        help_command(cli, args->command);
        return 0;
    }
    r = api_open(cli, err);
    return r < 0 ? r : args->command->run(cli, args, err);
}

static int run_command(struct cli *cli, const struct args *before, struct error **err)
{
    int used = 0, r, count = (int)before->word_count;
    const struct command *command = command_find(before->words, count, &used);
    struct args args = {0};

    if (!command)
        return unknown_command(before, err);
    if (command->raw) {
        args = (struct args){command, NULL, 0, before->words + used, before->word_count - (size_t)used};
        r = api_open(cli, err);
        return r < 0 ? r : command->run(cli, &args, err);
    }
    /* --json wins even over what is wrong with the other words: programs read errors too. */
    for (int i = used; i < count && !command->stop_at_word; i++)
        cli->json |= !strcmp(before->words[i], "--json");
    r = args_parse(command, before->words + used, count - used, &args, err);
    if (r == 0)
        r = apply_globals(cli, &args, err);
    if (r == 0) {
        term_open(cli);
        r = run_parsed(cli, &args, err);
    }
    args_clear(&args);
    return r;
}

static int run(struct cli *cli, int argc, char **argv, struct error **err)
{
    struct args before = {0};
    int r;

    if (argc > 1 && !strcmp(argv[1], COMPLETE_WORD))
        return complete_run(cli, argv + 2, argc - 2);
    r = args_parse(NULL, argv + 1, argc - 1, &before, err);
    if (r == 0)
        r = apply_globals(cli, &before, err);
    term_open(cli);
    if (r == 0 && (args_flag(&before, "version") || args_flag(&before, "help") || before.word_count == 0)) {
        if (args_flag(&before, "version"))
            printf("coracle %s\n", CORACLE_VERSION);
        else
            help_overview(cli);
        /* Nothing asked at all is a usage error, for scripts whose command is an empty variable. */
        r = before.word_count || args_flag(&before, "version") || args_flag(&before, "help") ? 0 : STATUS_USAGE;
    } else if (r == 0) {
        r = run_command(cli, &before, err);
    }
    args_clear(&before);
    return r;
}

int main(int argc, char **argv)
{
    struct cli cli = {.program = argv[0]};
    auto_error struct error *err = NULL;
    int r;

    signal(SIGPIPE, SIG_IGN);
    defaults_from_environment(&cli);
    r = run(&cli, argc, argv, &err);
    api_close(&cli);
    term_restore();
    if (r < 0 && err)
        r = report_error(&cli, err);
    else if (r < 0)
        r = STATUS_FAILED;
    if (fflush(stdout) != 0 && r == 0)
        r = STATUS_FAILED;
    return r;
}
