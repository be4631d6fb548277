/* SPDX-License-Identifier: Apache-2.0 */
/* The command line's parser, its tables, and that manual and completion know every command. */
#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/suggest.h"
#include "cli/args.h"
#include "cli/complete.h"
#include "cli/help.h"
#include "cli/ps.h"
#include "cli/text.h"

static const struct command *find(const char *words)
{
    auto_free char *copy = text_dup(words);
    char *argv[2] = {strtok(copy, " "), strtok(NULL, " ")};
    int used = 0;
    const struct command *c = command_find(argv, argv[1] ? 2 : 1, &used);

    assert_true(!c || used == 1 || argv[1]);
    return c;
}

/* Parses words (NULL-terminated) of a command; the error is the caller's. */
static int parse(const char *command, char **argv, struct args *ret, struct error **err)
{
    int argc = 0;

    while (argv[argc])
        argc++;
    return args_parse(find(command), argv, argc, ret, err);
}

#define WORDS(...) ((char *[]){__VA_ARGS__, NULL})

static void test_options_between_words(void **state)
{
    struct args args;

    assert_int_equal(parse("stop", WORDS("a", "-t", "5", "b", "--no-wait"), &args, NULL), 0);
    assert_int_equal(args.word_count, 2);
    assert_string_equal(args.words[1], "b");
    assert_string_equal(args_get(&args, "time"), "5");
    assert_true(args_flag(&args, "no-wait"));
    assert_false(args_flag(&args, "json"));
    args_clear(&args);
}

static void test_joined_letters_and_values(void **state)
{
    struct args args;

    assert_int_equal(
        parse("run", WORDS("-itm64m", "--cpus=0.5", "-eA=b", "-e", "C=d", "img", "-x", "--json"), &args, NULL), 0);
    assert_true(args_flag(&args, "interactive") && args_flag(&args, "tty"));
    assert_string_equal(args_get(&args, "memory"), "64m");
    assert_string_equal(args_get(&args, "cpus"), "0.5");
    size_t i = 0;
    assert_string_equal(args_next(&args, "env", &i), "A=b");
    assert_string_equal(args_next(&args, "env", &i), "C=d");
    assert_null(args_next(&args, "env", &i));
    /* What stands behind the image is the application's, even when it looks like ours. */
    assert_int_equal(args.word_count, 3);
    assert_string_equal(args.words[2], "--json");
    assert_false(args_flag(&args, "json"));
    args_clear(&args);
}

static void test_end_of_options(void **state)
{
    struct args args;

    assert_int_equal(parse("exec", WORDS("-t", "fw", "--", "ls", "--", "-l"), &args, NULL), 0);
    assert_int_equal(args.word_count, 4);
    assert_string_equal(args.words[1], "ls");
    assert_string_equal(args.words[2], "--");
    args_clear(&args);
    assert_int_equal(parse("rm", WORDS("--", "-odd"), &args, NULL), 0);
    assert_string_equal(args.words[0], "-odd");
    args_clear(&args);
}

static void test_flag_with_value(void **state)
{
    struct args args;
    struct error *err = NULL;

    assert_int_equal(parse("rm", WORDS("--force=true", "a"), &args, NULL), 0);
    assert_true(args_flag(&args, "force"));
    args_clear(&args);
    assert_int_equal(parse("rm", WORDS("--force=false", "a"), &args, NULL), 0);
    assert_false(args_flag(&args, "force"));
    args_clear(&args);
    assert_int_equal(parse("rm", WORDS("--force=maybe", "a"), &args, &err), -EINVAL);
    assert_string_equal(err->code, "INVALID_VALUE");
    error_free(err);
}

static void assert_parse_fails(const char *command, char **argv, const char *code, const char *hint)
{
    struct error *err = NULL;
    struct args args = {0};

    assert_int_equal(parse(command, argv, &args, &err), -EINVAL);
    assert_string_equal(err->code, code);
    assert_non_null(strstr(err->hint, hint));
    assert_null(args.values);
    error_free(err);
}

static void test_errors_name_the_fix(void **state)
{
    assert_parse_fails("run", WORDS("--nmae", "x"), "UNKNOWN_PARAMETER", "did you mean --name?");
    assert_parse_fails("run", WORDS("-Z"), "UNKNOWN_PARAMETER", "coracle help run");
    assert_parse_fails("stop", WORDS("a", "--time"), "MISSING_FIELD", "coracle help stop");
    assert_parse_fails("stop", WORDS("-t"), "MISSING_FIELD", "coracle help stop");
    assert_parse_fails("attach", WORDS("a", "b"), "UNKNOWN_PARAMETER", "coracle help attach");
    assert_parse_fails("exec", WORDS("a"), "MISSING_FIELD", "coracle help exec");
}

static void test_alias_of_option(void **state)
{
    struct args args;

    assert_int_equal(parse("run", WORDS("--on", "fake", "--net=none", "img"), &args, NULL), 0);
    assert_string_equal(args_get(&args, "technology"), "fake");
    assert_string_equal(args_get(&args, "network"), "none");
    args_clear(&args);
}

static void test_search_words(void **state)
{
    struct args args;

    assert_int_equal(parse("ps", WORDS("-a", "tech:container", "-state:STOPPED", "edge"), &args, NULL), 0);
    assert_true(args_flag(&args, "all"));
    assert_int_equal(args.word_count, 3);
    assert_string_equal(args.words[1], "-state:STOPPED");
    args_clear(&args);
}

static void test_find_commands(void **state)
{
    assert_ptr_equal(find("images"), find("image ls"));
    assert_ptr_equal(find("operations inspect"), find("operation inspect"));
    assert_ptr_equal(find("unpause"), find("resume"));
    assert_ptr_equal(find("console"), find("attach"));
    assert_ptr_equal(find("rmi"), find("image rm"));
    assert_null(find("image"));
    assert_null(find("nonsense"));
}

static void test_suggestions(void **state)
{
    assert_string_equal(command_suggest("stpo"), "stop");
    assert_string_equal(command_suggest("imges"), "image ls");
    assert_string_equal(command_suggest("unpuase"), "resume");
    assert_string_equal(command_suggest("insp"), "inspect");
    assert_null(command_suggest("qwertz"));
}

/* Every row must be whole: an option without help or a command without words would only show when a user asks. */
static void test_tables_are_whole(void **state)
{
    for (size_t i = 0; all_commands[i]; i++) {
        const struct command *c = all_commands[i];
        const struct option_spec *o;

        assert_true(*c->name && *c->section && *c->summary && *c->text && c->synopsis && c->run);
        assert_true(isupper((unsigned char)c->summary[0]));
        for (size_t k = 0; (o = option_next(c, &k));) {
            assert_true(strlen(o->name) > 1 && o->help && *o->help);
            assert_true(o->kind != WORD_LIST || o->words);
            /* The first option found for a name must be this one, or it could never be given. */
            assert_ptr_equal(option_find(c, o->name, strlen(o->name), false), o);
        }
    }
}

static void test_letters_are_unique(void **state)
{
    for (size_t i = 0; all_commands[i]; i++) {
        const struct option_spec *o;

        for (size_t k = 0; (o = option_next(all_commands[i], &k));)
            if (o->letter && option_find(all_commands[i], &o->letter, 1, true) != o)
                fail_msg("coracle %s: -%c of --%s is taken", all_commands[i]->name, o->letter, o->name);
    }
}

/* What a function prints to stdout, whole. Caller frees. */
static char *captured(void (*print)(void *), void *context)
{
    FILE *saved = stdout;
    char *text = NULL;
    size_t size;

    stdout = open_memstream(&text, &size);
    print(context);
    fclose(stdout);
    stdout = saved;
    return text;
}

static void print_manual(void *context)
{
    help_manual();
}

static void test_manual_has_every_command_and_option(void **state)
{
    auto_free char *manual = captured(print_manual, NULL);

    for (size_t i = 0; all_commands[i]; i++) {
        auto_free char *heading = text_printf(".SS coracle %s", all_commands[i]->name);
        const struct option_spec *o;

        if (!strstr(manual, heading))
            fail_msg("the manual lacks %s", all_commands[i]->name);
        for (size_t k = 0; (o = option_next(all_commands[i], &k));) {
            auto_free char *name = text_dup("");

            for (const char *p = o->name; *p; p++) {
                char *longer = text_printf("%s%s%c", name, *p == '-' ? "\\" : "", *p);

                free(name);
                name = longer;
            }
            if (!strstr(manual, name))
                fail_msg("the manual lacks --%s of %s", o->name, all_commands[i]->name);
        }
    }
}

static void print_completion(void *context)
{
    struct cli cli = {.connection.host = "unix:///nonexistent/api.sock"};
    char **words = context;
    int count = 0;

    while (words[count])
        count++;
    complete_run(&cli, words, count);
    /* Nobody listens: completion stays silent. */
}

static bool completes(char **words, const char *candidate)
{
    auto_free char *text = captured(print_completion, words);
    auto_free char *line = text_printf("%s\t", candidate), *later = text_printf("\n%s\t", candidate);

    return !strncmp(text, line, strlen(line)) || strstr(text, later);
}

static void test_completion_has_every_command_and_option(void **state)
{
    for (size_t i = 0; all_commands[i]; i++) {
        auto_free char *first = text_dup(all_commands[i]->name);
        char *second = strchr(first, ' ');
        const struct option_spec *o;

        if (second)
            *second++ = 0;
        assert_true(completes(WORDS((char *)""), first));
        if (second)
            assert_true(completes(WORDS(first, (char *)""), second));
        for (size_t k = 0; (o = option_next(all_commands[i], &k));) {
            auto_free char *name = text_printf("--%s", o->name);
            char *words[] = {first, second ? second : (char *)"--", second ? (char *)"--" : NULL, NULL};

            if (!completes(words, name))
                fail_msg("completion of %s lacks %s", all_commands[i]->name, name);
        }
    }
}

static void test_completion_of_values(void **state)
{
    assert_true(completes(WORDS("ps", "--sort", ""), "created"));
    assert_true(completes(WORDS("ps", "--color="), "--color=never"));
    assert_true(completes(WORDS("completion", ""), "zsh"));
    assert_true(completes(WORDS("ps", "-st"), "-state:"));
    assert_false(completes(WORDS("ps", "--sort", ""), "--all"));
}

static void test_filters(void **state)
{
    auto_free char *query = text_dup("/v1/instances");
    struct error *err = NULL;
    bool about_state = false;

    assert_int_equal(filter_add(&query, "tech:container", &about_state, &err), 0);
    assert_false(about_state);
    assert_int_equal(filter_add(&query, "-state:failed", &about_state, &err), 0);
    assert_true(about_state);
    assert_int_equal(filter_add(&query, "label=tenant=a b", &about_state, &err), 0);
    assert_int_equal(filter_add(&query, "status=running", &about_state, &err), 0);
    assert_string_equal(query, "/v1/instances?technology=container&state=-FAILED&label=tenant%3Da%20b&state=STARTED");
    assert_int_equal(filter_add(&query, "plain", &about_state, &err), -ENOENT);
    assert_null(err);
    assert_int_equal(filter_add(&query, "colour:red", &about_state, &err), -EINVAL);
    assert_string_equal(err->code, "UNKNOWN_PARAMETER");
    error_free(err);
}

static void test_plain_search(void **state)
{
    json_t *instance = json_pack("{s:s, s:s, s:s, s:{s:s}}", "name", "edge-fw", "id", "1234", "image", "coracle/iperf",
                                 "labels", "tenant", "acme");

    assert_true(filter_matches(instance, "EDGE"));
    assert_true(filter_matches(instance, "iperf"));
    assert_true(filter_matches(instance, "acm"));
    assert_false(filter_matches(instance, "core"));
    json_decref(instance);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_between_words),
        cmocka_unit_test(test_joined_letters_and_values),
        cmocka_unit_test(test_end_of_options),
        cmocka_unit_test(test_flag_with_value),
        cmocka_unit_test(test_errors_name_the_fix),
        cmocka_unit_test(test_alias_of_option),
        cmocka_unit_test(test_search_words),
        cmocka_unit_test(test_find_commands),
        cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_tables_are_whole),
        cmocka_unit_test(test_letters_are_unique),
        cmocka_unit_test(test_manual_has_every_command_and_option),
        cmocka_unit_test(test_completion_has_every_command_and_option),
        cmocka_unit_test(test_completion_of_values),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_plain_search),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
