/* SPDX-License-Identifier: Apache-2.0 */
/* What can stand where the cursor is: walks the words as the parser does, then lists candidates of that kind. */
#include <stdio.h>
#include <string.h>

#include "cli/args.h"
#include "cli/common.h"
#include "cli/complete.h"

static void offer(const char *typed, const char *candidate, const char *description)
{
    if (!strncmp(candidate, typed, strlen(typed)))
        printf("%s\t%s\n", candidate, description);
}

/* Candidates of one "a|b|c" list, each behind a prefix ("--color="). */
static void offer_list(const char *prefix, const char *typed, const char *list)
{
    for (const char *p = list; p && *p; p += strcspn(p, "|"), p += *p == '|') {
        auto_free char *word = text_printf("%s%.*s", prefix, (int)strcspn(p, "|"), p);

        offer(typed, word, "");
    }
}

/* Names from the daemon; nothing when it does not answer. */
static void offer_names(struct cli *cli, const char *typed, const char *path, const char *key, const char *about)
{
    json_t *answer = NULL, *item;
    size_t i;

    if ((!cli->api && api_open(cli, NULL) < 0) || api_peek(cli, path, &answer, NULL) < 0)
        return;
    json_array_foreach(json_object_get(answer, "items"), i, item)
        offer(typed, text_member(item, key), text_member(item, about));
    json_decref(answer);
}

static void offer_technologies(struct cli *cli, const char *typed)
{
    json_t *host = NULL, *item;
    size_t i;

    if ((!cli->api && api_open(cli, NULL) < 0) || api_peek(cli, "/v1/host", &host, NULL) < 0)
        return;
    json_array_foreach(json_object_get(host, "technologies"), i, item)
        offer(typed, text_member(item, "name"),
              json_is_true(json_object_get(item, "available")) ? "" : "not available on this host");
    json_decref(host);
}

/* Other spellings of one word, once something of them is typed: they would only lengthen the list. */
static void offer_aliases(const char *typed, const struct command *command)
{
    for (const char *p = command->aliases; p && *p; p += strcspn(p, "|"), p += *p == '|') {
        auto_free char *word = text_printf("%.*s", (int)strcspn(p, "|"), p);

        if (!strchr(word, ' '))
            offer(typed, word, command->summary);
    }
}

/* First words (and second, of groups) of all commands. */
static void offer_commands(const char *typed, const char *first)
{
    const char *last = "";

    for (size_t i = 0; all_commands[i]; i++) {
        const char *name = all_commands[i]->name, *blank = strchr(name, ' ');
        size_t n = strcspn(name, " ");

        if (first && blank && strlen(first) == n && !strncmp(name, first, n)) {
            offer(typed, blank + 1, all_commands[i]->summary);
        } else if (!first && (strncmp(last, name, n) != 0 || last[n] != ' ' || !blank)) {
            auto_free char *word = text_printf("%.*s", (int)n, name);

            offer(typed, word, blank ? "group of commands" : all_commands[i]->summary);
        }
        if (!first && *typed)
            offer_aliases(typed, all_commands[i]);
        last = name;
    }
}

static void offer_kind(struct cli *cli, const char *typed, enum word_kind kind, const char *list)
{
    switch (kind) {
    case WORD_INSTANCE:
        offer_names(cli, typed, "/v1/instances", "name", "state");
        break;
    case WORD_IMAGE:
        offer_names(cli, typed, "/v1/images", "reference", "guest");
        break;
    case WORD_NETWORK:
        offer_names(cli, typed, "/v1/networks", "name", "ipv4");
        break;
    case WORD_SNAPSHOT:
        offer_names(cli, typed, "/v1/snapshots", "name", "technology");
        break;
    case WORD_OPERATION:
        offer_names(cli, typed, "/v1/operations", "id", "operation");
        break;
    case WORD_TECHNOLOGY:
        offer_technologies(cli, typed);
        break;
    case WORD_COMMAND:
        offer_commands(typed, NULL);
        break;
    case WORD_FILTER:
        offer_list("", typed, "name:|tech:|state:|label:|image:|-tech:|-state:|-label:|-image:");
        break;
    case WORD_LIST:
        offer_list("", typed, list);
        break;
    case WORD_FILE:
        puts(":file");
        break;
    case WORD_DIRECTORY:
        puts(":directory");
        break;
    case WORD_ANY:
        break;
    }
}

static void offer_options(const struct command *command, const char *typed)
{
    const struct option_spec *o;

    for (size_t i = 0; (o = option_next(command, &i));) {
        auto_free char *word = text_printf("--%s", o->name);

        offer(typed, word, o->help);
    }
}

/* The option whose value the word behind `word` is, or NULL. */
static const struct option_spec *value_wanted(const struct command *command, const char *word)
{
    const struct option_spec *o = NULL;
    size_t n = strlen(word);

    if (!strncmp(word, "--", 2) && !strchr(word, '='))
        o = option_find(command, word + 2, n - 2, false);
    else if (word[0] == '-' && n > 1 && word[1] != '-')
        o = option_find(command, word + n - 1, 1, true);
    return o && o->value ? o : NULL;
}

/* "--option=val": candidates carry the part before. Bash splits at "=", the others do not. */
static bool complete_equal(const struct command *command, const char *typed)
{
    const char *equal = strchr(typed, '=');
    const struct option_spec *o;

    if (strncmp(typed, "--", 2) != 0 || !equal)
        return false;
    o = option_find(command, typed + 2, (size_t)(equal - typed - 2), false);
    if (o && o->kind == WORD_LIST) {
        auto_free char *prefix = text_printf("--%s=", o->name);

        offer_list(prefix, typed, o->words);
    }
    return true;
}

/* Counts words that are no options and no values; *ret_command: what they name, with *ret_first when only a group. */
static int walk(char **words, int count, const struct command **ret_command, const char **ret_first)
{
    char *plain[2] = {NULL, NULL};
    int n = 0, used = 0;

    for (int i = 0; i < count; i++) {
        if (words[i][0] == '-') {
            i += value_wanted(*ret_command, words[i]) != NULL;
            continue;
        }
        if (*ret_command) {
            n++;
            continue;
        }
        plain[n > 0] = words[i];
        n++;
        *ret_first = plain[0];
        *ret_command = command_find(plain, n > 1 ? 2 : 1, &used);
        /* "image" alone names no command yet; "operations" does, unless a verb of its group follows. */
        if (*ret_command && used == 1 && i + 1 < count && n == 1) {
            char *two[2] = {plain[0], words[i + 1]};
            const struct command *longer = command_find(two, 2, &used);

            if (longer && used == 2) {
                *ret_command = longer;
                i++;
            }
        }
        if (*ret_command)
            n = 0;
    }
    return n;
}

static enum word_kind word_kind_of(const struct command *command, int n)
{
    if (command->max_words >= 0 && n >= command->max_words)
        return WORD_ANY;
    if (command->stop_at_word && n >= command->stop_at_word)
        return WORD_ANY;
    return command->words;
}

int complete_run(struct cli *cli, char **words, int count)
{
    const struct command *command = NULL;
    const char *first = NULL, *typed = count > 0 ? words[count - 1] : "";
    const struct option_spec *option = NULL;
    int n = walk(words, count > 0 ? count - 1 : 0, &command, &first);

    if (count > 1)
        option = value_wanted(command, words[count - 2]);
    /* bash hands "--color=a" over as three words. */
    if (!option && count > 2 && !strcmp(words[count - 2], "="))
        option = value_wanted(command, words[count - 3]);
    if (!option && count > 1 && !strcmp(typed, "=")) {
        typed = "";
        option = value_wanted(command, words[count - 2]);
    }
    if (option)
        offer_kind(cli, typed, option->kind, option->words);
    else if (complete_equal(command, typed))
        return 0;
    else if (typed[0] == '-' && !(command && command->filter_words && typed[1] && typed[1] != '-'))
        offer_options(command, typed);
    else if (!command)
        offer_commands(typed, first);
    else
        offer_kind(cli, typed, word_kind_of(command, n), command->word_list);
    return 0;
}
