/* SPDX-License-Identifier: Apache-2.0 */
/*
 * build: an application from its sources as an image for one technology. Local, without the daemon: the work is done by
 * libexec/coracle/build-KIND, KIND being the technology's first word, so a new kind of guest is a new program there
 * (images/build/build-common says how it is called).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/program.h"
#include "model/units.h"

/* The kinds this release knows of; which of them are there depends on what was installed. */
static const char *const kinds[] = {"container", "unikernel", "tinyx", "standardvm"};

/* "build-unikernel" of "unikernel.kvm"; refused when none was said or when there is no such program. */
static int find_builder(const char *technology, char **ret, struct error **err)
{
    auto_free char *name = NULL, *there = text_dup("");
    char *path;

    if (!technology) {
        error_set(err, EINVAL, "MISSING_FIELD", "build: for which technology?");
        error_hint(err, "say it with --for: container, unikernel.kvm; coracle doctor lists technologies");
        return -EINVAL;
    }
    name = text_printf("build-%.*s", (int)strcspn(technology, "."), technology);
    path = strpbrk(technology, "/ ") ? NULL : program_find(name, NULL);
    if (path) {
        free(path);
        *ret = take_ptr(name);
        return 0;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        auto_free char *other = text_printf("build-%s", kinds[i]);
        auto_free char *found = program_find(other, NULL);
        char *longer = found ? text_printf("%s%s%s", there, *there ? ", " : "", kinds[i]) : NULL;

        if (longer) {
            free(there);
            there = longer;
        }
    }
    error_set(err, EINVAL, "INVALID_VALUE", "--for: nothing here builds for \"%s\"", technology);
    error_hint(err, *there ? "what can be built for: %s" : "install all of coracle (meson install); none of its build programs is there%s",
               there);
    return -EINVAL;
}

struct words {
    char **list;
    size_t count;
};

static void add(struct words *words, const char *option, const char *value)
{
    if (option)
        words->list[words->count++] = (char *)option;
    if (value)
        words->list[words->count++] = (char *)value;
}

static void add_option(struct words *words, const struct args *args, const char *name, const char *option)
{
    if (args_get(args, name))
        add(words, option, args_get(args, name));
}

static int run_build(struct cli *cli, const struct args *args, struct error **err)
{
    struct words words = {text_alloc(2 * args->value_count + args->word_count + 16, sizeof(char *)), 0};
    const char *technology = args_get(args, "for"), *word;
    auto_free char *builder = NULL, *memory = NULL;
    bool explain = cli->explain;
    uint64_t bytes;
    int r;

    r = find_builder(technology, &builder, err);
    if (r == 0 && args_get(args, "memory")) {
        r = units_size(args_get(args, "memory"), "--memory", &bytes, err);
        memory = r == 0 ? text_printf("%llu", (unsigned long long)bytes) : NULL;
    }
    if (r == 0) {
        add(&words, "--technology", technology);
        add_option(&words, args, "output", "--output");
        add_option(&words, args, "name", "--name");
        add_option(&words, args, "parameters", "--parameters");
        if (memory)
            add(&words, "--memory", memory);
        for (size_t i = 0; (word = args_next(args, "argument", &i));)
            add(&words, "--argument", word);
        add(&words, explain ? "--explain" : NULL, NULL);
        add(&words, "--", NULL);
        for (size_t i = 0; i < args->word_count; i++)
            add(&words, NULL, args->words[i]);
        cli->explain = false; /* here it asks what the parts of the image are for */
        r = program_become(cli, builder, words.list, words.count, err);
        cli->explain = explain;
    }
    free(words.list);
    return r;
}

static const struct option_spec options[] = {
    {"for", 'F', "TECHNOLOGY", "what it shall run as: container, unikernel.kvm, ...", WORD_TECHNOLOGY},
    {"output", 'o', "FILE", "the image (default: APP.KIND.oci.tar here)", WORD_FILE},
    {"name", 'r', "REFERENCE", "name inside the image (default: coracle/APP, or the sources' name)"},
    {"argument", 'c', "WORD", "default argument of the application; may repeat"},
    {"memory", 0, "SIZE", "least memory a machine needs"},
    {"parameters", 0, "TEXT", "default kernel command line of a machine"},
    {NULL},
};

const struct command command_build = {
    .name = "build",
    .section = "Images and networks",
    .synopsis = "--for TECHNOLOGY [OPTIONS] APP...",
    .summary = "Build an application as an image for one technology",
    .text = "APP is a function that is shipped (iperf, responder, forward, pause), or C sources: a directory, or files, "
            "that are written against nf/platform/platform.h, or hold an element (nfv/element.h). The same sources serve "
            "every technology. For container one static program is made, for unikernel.kvm one kernel with the network "
            "stack in it; only what the application refers to is linked. Two builds give the same bytes. --explain prints "
            "what each part weighs and for what it is there. Needs compilers and no daemon: see coracle-build(1). coracle "
            "image import takes the result.",
    .examples = "  coracle build iperf --for unikernel.kvm -o iperf.oci.tar\n"
                "  coracle build ./firewall --for container --name team/firewall:1",
    .options = options,
    .words = WORD_FILE,
    .min_words = 1,
    .max_words = -1,
    .run = run_build,
};
