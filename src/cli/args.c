/* SPDX-License-Identifier: Apache-2.0 */
/* The option parser: walks argv once, driven by the const tables of the command. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/suggest.h"
#include "cli/args.h"

const struct option_spec *option_next(const struct command *command, size_t *index)
{
    const struct option_spec *tables[] = {command ? command->options : NULL, command ? command->more_options : NULL,
                                          global_options};
    size_t skip = (*index)++;

    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
        for (const struct option_spec *o = tables[t]; o && o->name; o++)
            if (skip-- == 0)
                return o;
    return NULL;
}

static bool name_is(const char *known, const char *name, size_t n)
{
    return known && strlen(known) == n && !strncmp(known, name, n);
}

const struct option_spec *option_find(const struct command *command, const char *name, size_t n, bool is_letter)
{
    const struct option_spec *o;

    for (size_t i = 0; (o = option_next(command, &i));)
        if (is_letter ? o->letter == name[0] : name_is(o->name, name, n) || name_is(o->alias, name, n))
            return o;
    return NULL;
}

static int unknown_option(const struct command *command, const char *word, size_t n, struct error **err)
{
    const char *best = NULL;
    const struct option_spec *o;
    char typed[64];

    snprintf(typed, sizeof(typed), "%.*s", (int)n, word);
    for (size_t i = 0; (o = option_next(command, &i));)
        suggest_offer(typed, o->name, &best);
    error_set(err, EINVAL, "UNKNOWN_PARAMETER", "%s: unknown option --%s", command ? command->name : "coracle", typed);
    if (best)
        error_hint(err, "did you mean --%s?", best);
    else
        error_hint(err, "coracle help %s lists its options", command ? command->name : "");
    return -EINVAL;
}

static void args_add(struct args *args, const struct option_spec *spec, const char *value)
{
    args->values[args->value_count++] = (struct arg_value){spec, value};
}

static int need_value(const struct command *command, const struct option_spec *spec, struct error **err)
{
    error_set(err, EINVAL, "MISSING_FIELD", "%s: option --%s needs a value: %s", command ? command->name : "coracle",
              spec->name, spec->value);
    error_hint(err, "coracle help %s explains it", command ? command->name : "");
    return -EINVAL;
}

/* "--name", "--name=value", "--name value". *i is moved when the value is the next word. */
static int parse_long(struct args *args, char **argv, int argc, int *i, struct error **err)
{
    const char *word = argv[*i] + 2, *equal = strchr(word, '=');
    size_t n = equal ? (size_t)(equal - word) : strlen(word);
    const struct option_spec *spec = option_find(args->command, word, n, false);

    if (!spec)
        return unknown_option(args->command, word, n, err);
    if (!spec->value) {
        if (equal && !strcmp(equal + 1, "false"))
            return 0;
        if (equal && strcmp(equal + 1, "true") != 0)
            return error_set(err, EINVAL, "INVALID_VALUE", "option --%s is a switch: \"%s\" is neither true nor false",
                             spec->name, equal + 1);
        args_add(args, spec, "");
        return 0;
    }
    if (!equal && *i + 1 >= argc)
        return need_value(args->command, spec, err);
    args_add(args, spec, equal ? equal + 1 : argv[++*i]);
    return 0;
}

/* "-f", "-it", "-nvalue", "-n value". */
static int parse_letters(struct args *args, char **argv, int argc, int *i, struct error **err)
{
    for (const char *p = argv[*i] + 1; *p; p++) {
        const struct option_spec *spec = option_find(args->command, p, 1, true);

        if (!spec) {
            error_set(err, EINVAL, "UNKNOWN_PARAMETER", "%s: unknown option -%c",
                      args->command ? args->command->name : "coracle", *p);
            error_hint(err, "coracle help %s lists its options", args->command ? args->command->name : "");
            return -EINVAL;
        }
        if (!spec->value) {
            args_add(args, spec, "");
            continue;
        }
        if (!p[1] && *i + 1 >= argc)
            return need_value(args->command, spec, err);
        args_add(args, spec, p[1] ? p + 1 : argv[++*i]);
        return 0;
    }
    return 0;
}

/* "-state:STOPPED": a negated search word, which no option looks like. */
static bool is_filter_word(const char *word)
{
    size_t n;

    if (word[0] != '-' || word[1] == '-')
        return false;
    n = strspn(word + 1, "abcdefghijklmnopqrstuvwxyz");
    return n >= 2 && word[1 + n] == ':';
}

static int count_check(const struct args *args, struct error **err)
{
    const struct command *c = args->command;

    if (!c || ((int)args->word_count >= c->min_words && (c->max_words < 0 || (int)args->word_count <= c->max_words)))
        return 0;
    if ((int)args->word_count < c->min_words)
        error_set(err, EINVAL, "MISSING_FIELD", "%s: something is missing: coracle %s %s", c->name, c->name,
                  c->synopsis);
    else
        error_set(err, EINVAL, "UNKNOWN_PARAMETER", "%s: \"%s\" is one word too many: coracle %s %s", c->name,
                  args->words[c->max_words], c->name, c->synopsis);
    error_hint(err, "coracle help %s explains it", c->name);
    return -EINVAL;
}

/* The words of another program; a "--" before them is only our end of options. */
static int parse_rest(struct args *args, char **argv, int argc)
{
    for (int i = 0; i < argc; i++)
        if (i > 0 || strcmp(argv[i], "--") != 0)
            args->words[args->word_count++] = argv[i];
    return 0;
}

/* Without a command (the options before it), the first word ends the options. */
static int parse_all(struct args *args, char **argv, int argc, struct error **err)
{
    const struct command *c = args->command;

    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        int r = 0;

        if (!strcmp(word, "--")) {
            while (++i < argc)
                args->words[args->word_count++] = argv[i];
            break;
        }
        if (word[0] != '-' || !word[1] || (c && c->filter_words && is_filter_word(word))) {
            args->words[args->word_count++] = argv[i];
            if ((int)args->word_count == (c ? c->stop_at_word : 1))
                return parse_rest(args, argv + i + 1, argc - i - 1);
            continue;
        }
        r = word[1] == '-' ? parse_long(args, argv, argc, &i, err) : parse_letters(args, argv, argc, &i, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int args_parse(const struct command *command, char **argv, int argc, struct args *ret, struct error **err)
{
    struct args args = {.command = command};
    size_t letters = 1;
    int r;

    for (int i = 0; i < argc; i++)
        letters += strlen(argv[i]) + 1;
    args.values = calloc(letters, sizeof(*args.values));
    args.words = calloc((size_t)argc + 1, sizeof(*args.words));
    if (!args.values || !args.words) {
        args_clear(&args);
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    }
    r = parse_all(&args, argv, argc, err);
    if (r == 0 && !args_flag(&args, "help"))
        r = count_check(&args, err);
    if (r < 0) {
        args_clear(&args);
        return r;
    }
    *ret = args;
    return 0;
}

void args_clear(struct args *args)
{
    free(args->values);
    free(args->words);
    *args = (struct args){0};
}

const char *args_next(const struct args *args, const char *name, size_t *index)
{
    const struct option_spec *spec = option_find(args->command, name, strlen(name), false);

    if (!spec) {
        fprintf(stderr, "coracle: internal error: command %s has no option %s\n", args->command->name, name);
        abort();
    }
    while (*index < args->value_count) {
        const struct arg_value *v = &args->values[(*index)++];

        if (v->spec == spec)
            return v->value;
    }
    return NULL;
}

const char *args_get(const struct args *args, const char *name)
{
    const char *last = NULL, *value;

    for (size_t i = 0; (value = args_next(args, name, &i));)
        last = value;
    return last;
}

bool args_flag(const struct args *args, const char *name)
{
    return args_get(args, name) != NULL;
}
