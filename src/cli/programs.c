/* SPDX-License-Identifier: Apache-2.0 */
/* bench and pack: programs of their own that are started under this one's name, connection settings passed on. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/program.h"

/* Relative to the directory of this program: installed, then build tree. */
static const char *const places[] = {".",
                                     "../sbin",
                                     "../libexec/coracle",
                                     "../../bench",
                                     "../launcher",
                                     "../daemon",
                                     "../runtime/init",
                                     "../unpack",
                                     "../../images/container",
                                     "/usr/local/sbin",
                                     "/usr/local/libexec/coracle",
                                     "/usr/sbin",
                                     "/usr/libexec/coracle"};

/* What the launcher starts: coracle-vmm is there twice, and the one for people lies in bin. */
static const char *const helper_places[] = {
    "../libexec/coracle",         "../runtime/init",     "../unpack", "../vmm/static", "../qemu", "../pack",
    "/usr/local/libexec/coracle", "/usr/libexec/coracle"};

char *program_directory(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    char *slash;

    path[n > 0 ? n : 0] = 0;
    slash = strrchr(path, '/');
    if (slash)
        *slash = 0;
    return text_dup(path);
}

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* Looks in a list of directories, relative ones beside this program. NULL when it is in none. */
static char *find_in(const char *const *list, size_t count, const char *name)
{
    auto_free char *own = program_directory();

    for (size_t i = 0; i < count; i++) {
        bool is_absolute = *list[i] == '/';
        auto_free char *path = text_printf("%s%s%s/%s", is_absolute ? "" : own, is_absolute ? "" : "/", list[i], name);

        if (is_program(path)) {
            char *real = realpath(path, NULL);
            return real ? real : text_dup(name);
        }
    }
    return NULL;
}

char *program_find(const char *name, struct error **err)
{
    auto_free char *own = program_directory();
    char *path = find_in(places, sizeof(places) / sizeof(places[0]), name);

    if (path)
        return path;
    error_set(err, ENOENT, "INVALID_VALUE", "the program %s is not installed: it is not in %s, nor in libexec/coracle",
              name, own);
    error_hint(err, "install all of coracle (meson install), or run it from its build directory");
    return NULL;
}

char *helper_find(const char *name)
{
    return find_in(helper_places, sizeof(helper_places) / sizeof(helper_places[0]), name);
}

bool program_on_path(const char *name)
{
    auto_free char *path = text_dup(getenv("PATH") ? getenv("PATH") : "/usr/sbin:/usr/bin:/sbin:/bin");
    char *save = NULL;

    for (char *p = strtok_r(path, ":", &save); p; p = strtok_r(NULL, ":", &save)) {
        auto_free char *full = text_printf("%s/%s", p, name);

        if (is_program(full))
            return true;
    }
    /* An account that is not root has no sbin on its path, the daemon's has. */
    for (const char *const *d = (const char *const[]){"/usr/sbin", "/sbin", "/usr/local/sbin", NULL}; *d; d++) {
        auto_free char *full = text_printf("%s/%s", *d, name);

        if (is_program(full))
            return true;
    }
    return false;
}

static void export_connection(const struct cli *cli)
{
    const struct connection *c = &cli->connection;
    const char *const pairs[][2] = {{"CORACLE_HOST", c->host},
                                    {"CORACLE_TOKEN", c->token},
                                    {"CORACLE_CERT", c->cert},
                                    {"CORACLE_KEY", c->key},
                                    {"CORACLE_CACERT", c->cacert}};

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (pairs[i][1])
            setenv(pairs[i][0], pairs[i][1], 1);
}

/* Replaces this process; returns only on failure. */
int program_become(struct cli *cli, const char *name, char **words, size_t count, struct error **err)
{
    auto_free char *path = program_find(name, err);
    char **argv;
    size_t n = 0;

    if (!path)
        return -ENOENT;
    argv = text_alloc(count + 4, sizeof(char *));
    argv[n++] = path;
    for (size_t i = 0; i < count; i++)
        argv[n++] = words[i];
    if (cli->explain) {
        for (size_t i = 0; i < n; i++)
            printf("%s%s", i ? " " : "", argv[i]);
        putchar('\n');
        free(argv);
        return 0;
    }
    export_connection(cli);
    fflush(stdout);
    execv(path, argv);
    n = (size_t)errno;
    free(argv);
    return error_set_errno(err, (int)n, "INTERNAL", "%s cannot be started", path);
}

static int run_bench(struct cli *cli, const struct args *args, struct error **err)
{
    char **words = text_alloc(args->word_count + 2, sizeof(char *));
    size_t count = 0;
    int r;

    for (size_t i = 0; i < args->word_count; i++) {
        if (!strcmp(args->words[i], "--explain"))
            cli->explain = true;
        else if (!strcmp(args->words[i], "--json"))
            cli->json = true;
        else
            words[count++] = args->words[i];
    }
    if (cli->json)
        words[count++] = (char *)"--format=json";
    r = program_become(cli, "coracle-bench", words, count, err);
    free(words);
    return r;
}

static int run_pack(struct cli *cli, const struct args *args, struct error **err)
{
    return program_become(cli, "pack-image", args->words, args->word_count, err);
}

const struct command command_bench = {
    .name = "bench",
    .section = "Measure",
    .synopsis = "[OPTIONS]",
    .summary = "Measure this host's technologies as the draft's five tables do",
    .text = "Starts coracle-bench, which has the options: coracle bench --help. Measuring needs root.",
    .examples = "  coracle bench --technology container --metric instantiation --runs 30 --format json --output r.json",
    .max_words = -1,
    .raw = true,
    .run = run_bench,
};

const struct command command_pack = {
    .name = "pack",
    .section = "Images and networks",
    .synopsis = "[OPTIONS] FILE...",
    .summary = "Pack files as an image",
    .examples = "  coracle pack -o fw.oci.tar -r fw:1 -e /firewall ./firewall=/firewall",
    .text = "Starts pack-image, which has the options: coracle pack --help. Makes an OCI archive of files and "
            "directories, from scratch and reproducibly; coracle image import takes it. coracle build makes one from "
            "sources.",
    .max_words = -1,
    .raw = true,
    .run = run_pack,
};
