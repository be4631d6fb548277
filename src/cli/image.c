/* SPDX-License-Identifier: Apache-2.0 */
/* image: what instances are made from; imported from files and directories, pulled, listed, removed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/field.h"
#include "cli/guest_image.h"
#include "cli/table.h"
#include "cli/tar_stream.h"

enum { COLUMN_COUNT = 7 };

/* --guest of several commands: which of a name's images is meant. */
#define GUEST_OPTION(help) {"guest", 0, "KIND", help, WORD_LIST, "process|unikernel|linux|disk"}

static void add_guests(const struct args *args, char **path)
{
    const char *guest;

    for (size_t i = 0; (guest = args_next(args, "guest", &i));)
        query_add(path, "guest", guest);
}

static char *size_cell(const json_t *image, const char *key)
{
    const json_t *value = json_object_get(image, key);

    return json_is_integer(value) ? text_bytes((uint64_t)json_integer_value(value)) : text_dup(NOT_MEASURED);
}

static void print_table(const struct cli *cli, const json_t *items, bool no_trunc)
{
    static const struct column columns[] = {
        {"REFERENCE", 0},          {"GUEST", 0},              {"DIGEST", 0},        {"FORMAT", 0},
        {"SHIPPED", COLUMN_RIGHT}, {"UNPACKED", COLUMN_RIGHT}, {"AGE", COLUMN_RIGHT}};
    struct table *table = table_new(cli, columns, COLUMN_COUNT, !no_trunc);
    time_t now = time(NULL), then;
    json_t *image;
    size_t i;

    json_array_foreach(items, i, image)
    {
        const char *digest = text_member(image, "digest");
        bool prefixed = !strncmp(digest, "sha256:", 7);
        char *cells[COLUMN_COUNT] = {
            text_dup(text_member(image, "reference")),
            text_dup(text_member(image, "guest")),
            no_trunc ? text_dup(digest) : text_printf("%.12s", prefixed ? digest + 7 : digest),
            text_dup(text_member(image, "format")),
            size_cell(image, "size_bytes"),
            size_cell(image, "unpacked_bytes"),
            text_parse_time(text_member(image, "created_at"), &then) == 0 ? text_age(then, now) : text_dup("-"),
        };

        table_row(table, cells);
    }
    table_print(table);
}

static int run_ls(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_dup("/v1/images");
    json_t *answer = NULL, *item;
    size_t i;
    int r;

    add_guests(args, &path);
    r = api_get(cli, path, &answer, err);
    if (r < 0 || cli->explain)
        return r;
    if (cli->json)
        print_json(answer);
    else if (cli->quiet)
        json_array_foreach(json_object_get(answer, "items"), i, item) printf("%s\n", text_member(item, "reference"));
    else
        print_table(cli, json_object_get(answer, "items"), args_flag(args, "no-trunc"));
    json_decref(answer);
    return 0;
}

/* "/tmp/iperf.tar.gz" is called "iperf" when no name is given. */
static char *name_from_path(const char *path)
{
    auto_free char *copy = text_dup(path);
    char *base, *dot;

    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = 0;
    base = strrchr(copy, '/') ? strrchr(copy, '/') + 1 : copy;
    dot = strchr(base[0] == '.' ? base + 1 : base, '.');
    if (dot)
        *dot = 0;
    return text_dup(*base ? base : "image");
}

static void report_image(const struct cli *cli, const char *verb, const json_t *image)
{
    auto_free char *shipped = size_cell(image, "size_bytes"), *unpacked = size_cell(image, "unpacked_bytes");
    const char *name = text_member(image, "reference");
    auto_free char *sentence = text_printf("%s %s: %s shipped, %s unpacked, %zu layers", name, verb, shipped, unpacked,
                                           json_array_size(json_object_get(image, "layers")));

    if (cli->json)
        print_json(image);
    report_done(cli, name, sentence);
}

static int open_source(const char *path, int *ret_fd, int64_t *ret_size, bool *ret_is_directory, struct error **err)
{
    auto_fd int fd = !strcmp(path, "-") ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        int saved = errno;

        error_set_errno(err, saved, "INVALID_VALUE", "%s cannot be read", path);
        error_hint(err, "give an image archive, an OCI layout directory, or - for standard input; "
                        "coracle image pull fetches from a registry");
        return -saved;
    }
    *ret_is_directory = S_ISDIR(st.st_mode);
    *ret_size = S_ISREG(st.st_mode) ? st.st_size : -1;
    *ret_fd = take_fd(&fd);
    return 0;
}

/* A directory without oci-layout would be sent as a root file system by mistake, with everything that lies in it. */
static int check_directory(const char *path, struct error **err)
{
    auto_free char *marker = text_printf("%s/oci-layout", path);

    if (access(marker, R_OK) == 0)
        return 0;
    error_set(err, EINVAL, "IMAGE_MALFORMED", "%s is no OCI image layout: it has no file oci-layout", path);
    error_hint(err, "a plain root file system is imported as a tar: tar -C %s -c . | coracle image import - NAME",
               path);
    return -EINVAL;
}

static char *import_path(const struct args *args, const char *name)
{
    char *path = text_dup("/v1/images");
    const char *entrypoint = args_get(args, "entrypoint");

    query_add(&path, "name", name);
    if (entrypoint && *entrypoint == '[') {
        query_add(&path, "entrypoint", entrypoint);
    } else if (entrypoint) {
        json_t *list = json_pack("[s]", entrypoint);
        auto_free char *text = json_dumps(list, JSON_COMPACT);

        query_add(&path, "entrypoint", text);
        json_decref(list);
    }
    return path;
}

/* A bare kernel or disk: packed on the way (guest_image.h). */
static int import_guest(struct cli *cli, const struct args *args, const char *name, struct error **err)
{
    const struct guest_source source = {.file = args->words[0],
                                        .name = name,
                                        .guest = args_get(args, "guest"),
                                        .boot = args_get(args, "boot"),
                                        .parameters = args_get(args, "parameters"),
                                        .memory = args_get(args, "memory"),
                                        .entrypoint = args_get(args, "entrypoint"),
                                        .initrd = args_get(args, "initrd"),
                                        .disk = args_get(args, "disk")};
    auto_free char *path = text_dup("/v1/images");
    struct guest_image *guest = NULL;
    struct tar_stream *tar = NULL;
    auto_fd int fd = -1;
    json_t *image = NULL;
    int r = guest_image_open(&source, &guest, err);

    query_add(&path, "name", name);
    if (r == 0 && cli->explain) {
        json_t *configuration = guest_image_configuration(guest);

        r = api_call(cli, "POST", path, configuration, NULL, err);
        json_decref(configuration);
        guest_image_free(guest);
        return r;
    }
    if (r == 0)
        r = guest_image_stream(guest, &tar, &fd, err);
    if (r == 0)
        r = api_upload(cli, path, fd, -1, source.file, &image, err);
    fd = close_fd(fd);
    if (tar) {
        int written = tar_stream_close(tar, err);

        r = r < 0 ? r : written;
    }
    if (r == 0)
        report_image(cli, "imported", image);
    json_decref(image);
    return r;
}

/* Options that need --guest say so: without it they would be dropped silently. */
static int check_guest_options(const struct args *args, struct error **err)
{
    static const char *const names[] = {"boot", "initrd", "disk", "parameters", "memory"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (args_get(args, names[i])) {
            error_set(err, EINVAL, "INVALID_VALUE", "--%s is for a bare kernel or disk", names[i]);
            error_hint(err, "say what it is with --guest unikernel|linux|disk; an image archive has it in its labels");
            return -EINVAL;
        }
    return 0;
}

static int run_import(struct cli *cli, const struct args *args, struct error **err)
{
    const char *source = args->words[0];
    auto_free char *name = args->word_count > 1 ? text_dup(args->words[1]) : name_from_path(source);
    auto_free char *path = import_path(args, name);
    struct tar_stream *tar = NULL;
    auto_fd int fd = -1;
    bool is_directory = false;
    json_t *image = NULL;
    int64_t size = -1;
    int r;

    if (args_get(args, "guest"))
        return import_guest(cli, args, name, err);
    r = check_guest_options(args, err);
    if (r == 0)
        r = open_source(source, &fd, &size, &is_directory, err);
    if (r == 0 && is_directory)
        r = check_directory(source, err);
    if (r == 0 && is_directory && !cli->explain) {
        fd = close_fd(fd);
        r = tar_stream_open(source, &tar, &fd, err);
    }
    if (r == 0)
        r = api_upload(cli, path, fd, size, source, &image, err);
    fd = close_fd(fd);
    if (tar) {
        int written = tar_stream_close(tar, err);

        r = r < 0 ? r : written;
    }
    if (r == 0 && !cli->explain)
        report_image(cli, "imported", image);
    json_decref(image);
    return r;
}

static int run_pull(struct cli *cli, const struct args *args, struct error **err)
{
    const char *word = args->words[0];
    auto_free char *reference = text_printf("%s%s", strstr(word, "://") ? "" : "docker://", word);
    json_t *body = json_pack("{s:s}", "reference", reference), *operation = NULL, *done = NULL;
    int r = api_call(cli, "POST", "/v1/images/pull", body, &operation, err);

    json_decref(body);
    if (r == 0)
        r = operation_wait(cli, operation, &done, err);
    if (r == 0 && !cli->explain) {
        auto_free char *time = text_duration_us((uint64_t)json_integer_value(json_object_get(done, "duration_us")));
        auto_free char *sentence = text_printf("%s pulled in %s", word, time);

        if (cli->json)
            print_json(done);
        report_done(cli, word, sentence);
    }
    json_decref(operation);
    json_decref(done);
    return r;
}

static int run_rm(struct cli *cli, const struct args *args, struct error **err)
{
    struct outcome outcome = {0};
    struct error *one = NULL;

    for (size_t i = 0; i < args->word_count; i++) {
        auto_free char *path = text_path("/v1/images/%s", args->words[i]);
        auto_free char *sentence = text_printf("image %s removed", args->words[i]);

        add_guests(args, &path);
        if (api_call(cli, "DELETE", path, NULL, NULL, &one) < 0) {
            outcome_error(cli, &outcome, &one);
            continue;
        }
        outcome_add(&outcome, json_pack("{s:s}", "reference", args->words[i]));
        report_done(cli, args->words[i], sentence);
    }
    return outcome_end(cli, &outcome, args->word_count);
}

static void print_image(const json_t *image)
{
    static const char *const members[] = {"reference", "guest", "digest", "format", "created_at"};
    static const char *const config[] = {"entrypoint", "command", "env", "user", "workdir", "stop_signal"};
    static const char *const machine[] = {"boot", "parameters", "memory", "initrd", "disk"};
    bool boots = strcmp(text_member(image, "guest"), "process") != 0;
    auto_free char *shipped = size_cell(image, "size_bytes"), *unpacked = size_cell(image, "unpacked_bytes");

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        printf("%-14s %s\n", members[i], text_member(image, members[i]));
    printf("%-14s %s shipped, %s unpacked, %zu layers\n", "size", shipped, unpacked,
           json_array_size(json_object_get(image, "layers")));
    for (size_t i = 0; i < sizeof(config) / sizeof(config[0]); i++) {
        auto_free char *value = text_json(json_object_get(json_object_get(image, "config"), config[i]), "-");

        printf("%-14s %s\n", config[i], value);
    }
    for (size_t i = 0; boots && i < sizeof(machine) / sizeof(machine[0]); i++) {
        auto_free char *value = text_json(json_object_get(json_object_get(image, "config"), machine[i]), "-");

        printf("%-14s %s\n", machine[i], value);
    }
}

static int run_inspect(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_path("/v1/images/%s", args->words[0]);
    const char *field = args_get(args, "field");
    const json_t *value;
    json_t *image = NULL;
    int r;

    add_guests(args, &path);
    r = api_get(cli, path, &image, err);
    if (r < 0 || cli->explain)
        return r;
    if (field) {
        r = field_find(image, field, &value, err);
        if (r == 0) {
            auto_free char *text = text_json(value, NULL);

            printf("%s\n", text);
        }
    } else if (cli->json) {
        print_json(image);
    } else {
        print_image(image);
    }
    json_decref(image);
    return r;
}

static const struct option_spec ls_options[] = {
    {"no-trunc", 0, NULL, "whole digests"},
    GUEST_OPTION("only images for this kind of guest; may repeat"),
    {NULL},
};

const struct command command_image_ls = {
    .name = "image ls",
    .aliases = "images|image list|images ls",
    .section = "Images and networks",
    .synopsis = "[OPTIONS]",
    .summary = "List images",
    .text = "GUEST is what the image is for: process (a container), unikernel, linux (a kernel), disk. A name may stand "
            "for one of each; a technology takes the one it can run. SHIPPED is what has to be sent for the image, "
            "UNPACKED what it takes on this host's disk.",
    .options = ls_options,
    .run = run_ls,
};

static const struct option_spec import_options[] = {
    {"entrypoint", 0, "PROGRAM",
     "what a plain root file system, or a kernel's guest, runs: a path, or a JSON array of words"},
    {"guest", 0, "KIND", "FILE is a bare kernel or disk for this kind of guest", WORD_LIST, "unikernel|linux|disk"},
    {"boot", 0, "WAY", "how it boots, where that cannot be seen from the file", WORD_LIST,
     "unikernel|pvh|linux|multiboot|disk"},
    {"initrd", 0, "FILE", "initial RAM disk of a kernel", WORD_FILE},
    {"disk", 0, "FILE", "disk beside a kernel, raw or qcow2", WORD_FILE},
    {"parameters", 0, "TEXT", "default command line of the kernel"},
    {"memory", 0, "SIZE", "least memory it runs in"},
    {NULL},
};

const struct command command_image_import = {
    .name = "image import",
    .aliases = "import|load|image load",
    .section = "Images and networks",
    .synopsis = "[OPTIONS] FILE|DIRECTORY|- [NAME]",
    .summary = "Import an image from a file or directory",
    .text = "Takes an OCI archive, an OCI image layout directory, the output of docker save, or the tar of a plain "
            "root file system, compressed or not; which one it is, is seen from the content. With --guest also a bare "
            "kernel (an ELF file with a PVH note or multiboot header, a bzImage, a unikernel of Coracle's) or a disk (raw "
            "or qcow2): it is packed into an OCI archive on its way. A name may stand for one image of each kind of guest.",
    .examples = "  coracle image import iperf.oci.tar coracle/iperf\n"
                "  docker save tools | coracle image import - tools\n"
                "  coracle image import loader.elf osv/redis --guest unikernel --disk usr.img --parameters /redis-server",
    .options = import_options,
    .words = WORD_FILE,
    .min_words = 1,
    .max_words = 2,
    .run = run_import,
};

const struct command command_image_pull = {
    .name = "image pull",
    .aliases = "pull",
    .section = "Images and networks",
    .synopsis = "REFERENCE",
    .summary = "Fetch an image from a registry",
    .text = "Needs skopeo on the daemon's host. docker:// is put before a reference without a transport.",
    .examples = "  coracle image pull registry.example/tools:1",
    .min_words = 1,
    .max_words = 1,
    .run = run_pull,
};

static const struct option_spec inspect_options[] = {
    {"field", 0, "PATH", "print one field only: config.entrypoint"},
    GUEST_OPTION("of a name that several images have, the one for this guest"),
    {NULL},
};

const struct command command_image_inspect = {
    .name = "image inspect",
    .aliases = "image show",
    .section = "Images and networks",
    .synopsis = "[OPTIONS] REFERENCE",
    .summary = "Show one image",
    .text = "Its layers, sizes and what it runs.",
    .options = inspect_options,
    .words = WORD_IMAGE,
    .min_words = 1,
    .max_words = 1,
    .run = run_inspect,
};

static const struct option_spec rm_options[] = {
    GUEST_OPTION("only the image for this kind of guest; may repeat"),
    {NULL},
};

const struct command command_image_rm = {
    .name = "image rm",
    .aliases = "rmi|image remove|image delete",
    .section = "Images and networks",
    .synopsis = "[OPTIONS] REFERENCE...",
    .summary = "Remove images",
    .text = "A name goes with all its images, or with those of --guest; a digest names one. Refused while an instance "
            "uses one of them.",
    .options = rm_options,
    .words = WORD_IMAGE,
    .min_words = 1,
    .max_words = -1,
    .run = run_rm,
};
