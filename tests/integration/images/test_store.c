/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image store of the daemon against the real coracle-unpack: uploads, names, removal, and everything that can go
 * wrong between them. Needs root (owners of files are set); skipped otherwise.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>
#include <sqlite3.h>

#include "base/cleanup.h"
#include "daemon/images.h"
#include "fake_core.h"

static const char *unpacker;
static const struct technology container = {.name = "container", .guest_kind = GUEST_PROCESS};
static const struct technology unikernel = {.name = "unikernel.kvm", .guest_kind = GUEST_UNIKERNEL};
static const struct technology tinyx = {.name = "tinyx.kvm", .guest_kind = GUEST_LINUX};
static const struct technology standardvm = {
    .name = "standardvm.kvm", .guest_kind = GUEST_LINUX, .prefers = 1u << VARIANT_DISK};

struct fixture {
    struct core core;
    struct images *images;
    char top[64];
    bool done;
    bool added;
    char reference[128], code[64], message[1024];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->top, "/tmp/coracle-store-XXXXXX");
    assert_non_null(mkdtemp(f->top));
    fake_core_open(&f->core, f->top, unpacker);
    assert_int_equal(images_open(&f->core, &f->images, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    auto_free char *command = NULL;

    images_close(f->images);
    fake_core_close(&f->core);
    assert_true(asprintf(&command, "umount %s/spool 2>/dev/null; rm -rf %s", f->top, f->top) > 0);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* A tar with one file of the given content. */
static size_t make_tar(const char *name, const char *content, char *buf, size_t size)
{
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    size_t used = 0;

    archive_write_set_format_ustar(a);
    archive_write_open_memory(a, buf, size, &used);
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0755);
    archive_entry_set_size(e, (la_int64_t)strlen(content));
    archive_write_header(a, e);
    archive_write_data(a, content, strlen(content));
    archive_write_close(a);
    archive_entry_free(e);
    archive_write_free(a);
    return used;
}

static void on_done(void *context, const char *reference, const char *name, bool added, const struct error *err)
{
    struct fixture *f = context;

    f->done = true;
    f->added = added;
    snprintf(f->reference, sizeof(f->reference), "%s", reference ? reference : "");
    snprintf(f->code, sizeof(f->code), "%s", err ? err->code : "");
    snprintf(f->message, sizeof(f->message), "%s", err ? err->message : "");
}

static void on_removed(void *context, const struct error *err)
{
    on_done(context, NULL, NULL, false, err);
}

static void upload(struct fixture *f, const char *name, const char *entrypoint, const char *content)
{
    struct image_upload *u = NULL;
    char tar[32768];
    size_t size = make_tar("app", content, tar, sizeof(tar));

    f->done = false;
    assert_int_equal(images_upload_begin(f->images, name, entrypoint, &u, NULL), 0);
    for (size_t at = 0; at < size; at += 1000)
        assert_int_equal(images_upload_write(u, tar + at, size - at < 1000 ? size - at : 1000, NULL), 0);
    assert_int_equal(images_upload_finish(u, on_done, f, NULL), 0);
    assert_false(f->done); /* never from within the call */
    assert_true(fake_core_run(&f->core, &f->done));
}

static size_t count_items(struct fixture *f)
{
    auto_buffer struct buffer out = {0};
    json_t *j;
    size_t n;

    images_render_list(f->images, VARIANT_ALL, &out);
    j = json_loadb(out.data, out.length, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    n = json_array_size(json_object_get(j, "items"));
    json_decref(j);
    return n;
}

static json_t *render(struct fixture *f, const char *ref)
{
    auto_buffer struct buffer out = {0};
    json_t *j;

    if (images_render(f->images, ref, VARIANT_ALL, &out, NULL) < 0)
        return NULL;
    j = json_loadb(out.data, out.length, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    return j;
}

static const char *text_of(const json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

static size_t count_entries(const struct fixture *f, const char *folder)
{
    auto_free char *path = NULL;
    auto_dir DIR *dir = NULL;
    size_t n = 0;

    assert_true(asprintf(&path, "%s/%s", f->top, folder) > 0);
    dir = opendir(path);
    while (dir && readdir(dir))
        n++;
    return n > 2 ? n - 2 : 0;
}

static void settle(struct fixture *f)
{
    for (int i = 0; i < 50; i++)
        sd_event_run(f->core.loop, 1000);
}

static void remove_image(struct fixture *f, const char *ref)
{
    f->done = false;
    assert_int_equal(images_remove(f->images, ref, VARIANT_ALL, on_removed, f, NULL), 0);
    assert_false(f->done);
    assert_true(fake_core_run(&f->core, &f->done));
}

static void upload_is_recorded_and_found(void **state)
{
    struct fixture *f = *state;
    struct image_view view;
    json_t *j;

    upload(f, "coracle/app", "[\"/app\",\"-s\"]", "one");
    assert_string_equal(f->code, "");
    assert_true(f->added);
    assert_string_equal(f->core.events, "image.added ");
    assert_int_equal(count_items(f), 1);
    assert_int_equal(count_entries(f, "images/layers"), 1);
    assert_int_equal(count_entries(f, "spool"), 0);
    j = render(f, "coracle/app");
    assert_string_equal(text_of(j, "reference"), "coracle/app:latest");
    assert_string_equal(text_of(j, "format"), "rootfs");
    assert_string_equal(text_of(j, "digest"), f->reference);
    assert_int_equal(json_array_size(json_object_get(json_object_get(j, "config"), "entrypoint")), 2);
    json_decref(j);
    assert_int_equal(f->core.ops->find(f->core.ops_context, "coracle/app:latest", &container, &view, NULL), 0);
    assert_string_equal(view.config->entrypoint[1], "-s");
    assert_int_equal(view.config->layer_count, 1);
    assert_int_equal(f->core.ops->find(f->core.ops_context, view.digest, &container, &view, NULL), 0);
    assert_string_equal(view.reference, "coracle/app:latest");
}

static void same_content_again_is_no_error(void **state)
{
    struct fixture *f = *state;
    char first[128];

    upload(f, "a", NULL, "one");
    strcpy(first, f->reference);
    upload(f, "b", NULL, "one");
    assert_string_equal(f->code, "");
    assert_false(f->added);
    assert_string_equal(f->reference, first);
    assert_int_equal(count_items(f), 2); /* one image, two names */
    upload(f, "a", NULL, "two");         /* the name moves */
    assert_true(f->added);
    assert_string_not_equal(f->reference, first);
    assert_int_equal(count_items(f), 2);
    upload(f, "c", "[\"/x\"]", "one"); /* the same files, run otherwise: another image, the same layer */
    assert_true(f->added);
    assert_int_equal(count_entries(f, "images/layers"), 2);
}

static void records_survive_a_restart(void **state)
{
    struct fixture *f = *state;
    json_t *before, *after;

    upload(f, "coracle/app:1", "[\"/app\"]", "one");
    upload(f, NULL, NULL, "unnamed");
    before = render(f, "coracle/app:1");
    images_close(f->images);
    settle(f);
    assert_int_equal(images_open(&f->core, &f->images, NULL), 0);
    settle(f);
    after = render(f, "coracle/app:1");
    assert_true(json_equal(before, after));
    assert_int_equal(count_items(f), 2);
    assert_int_equal(f->core.removals, 0);
    json_decref(before);
    json_decref(after);
}

static void found_by_short_name_digest_and_prefix(void **state)
{
    struct fixture *f = *state;
    auto_error struct error *err = NULL;
    auto_buffer struct buffer out = {0};
    char prefix[16], with_digest[256];
    json_t *j;

    upload(f, "docker.io/library/nginx:1", NULL, "one");
    snprintf(prefix, sizeof(prefix), "%.6s", f->reference + 7);
    snprintf(with_digest, sizeof(with_digest), "nginx:1@%s", f->reference);
    for (const char **ref = (const char *[]){"nginx:1", "library/nginx:1", "docker.io/library/nginx:1", f->reference,
                                             f->reference + 7, prefix, with_digest, NULL};
         *ref; ref++) {
        j = render(f, *ref);
        if (!j)
            fail_msg("%s was not found", *ref);
        assert_string_equal(text_of(j, "digest"), f->reference);
        json_decref(j);
    }
    assert_int_equal(images_render(f->images, "docker.io/library/ngnix:1", VARIANT_ALL, &out, &err), -ENOENT);
    assert_string_equal(err->code, "IMAGE_NOT_FOUND");
    assert_non_null(strstr(err->hint, "docker.io/library/nginx:1"));
}

static void removal_counts_layers(void **state)
{
    struct fixture *f = *state;

    upload(f, "a", NULL, "one");
    upload(f, "b", "[\"/x\"]", "one");
    upload(f, "second-name", NULL, "one");
    remove_image(f, "a"); /* has another name */
    settle(f);
    assert_int_equal(f->core.removals, 0);
    assert_int_equal(count_items(f), 2);
    remove_image(f, "second-name"); /* the image goes; "b" still needs the layer */
    settle(f);
    assert_int_equal(f->core.removals, 0);
    assert_int_equal(count_entries(f, "images/layers"), 1);
    remove_image(f, "b");
    settle(f);
    assert_int_equal(f->core.removals, 1);
    assert_int_equal(count_entries(f, "images/layers"), 0);
    assert_int_equal(count_items(f), 0);
    assert_null(render(f, "b"));
}

static void removal_in_use_is_refused(void **state)
{
    struct fixture *f = *state;
    auto_error struct error *err = NULL;

    upload(f, "a", NULL, "one");
    f->core.user = "edge-fw";
    assert_int_equal(images_remove(f->images, "a", VARIANT_ALL, on_removed, f, &err), -EBUSY);
    assert_string_equal(err->code, "IMAGE_IN_USE");
    assert_non_null(strstr(err->message, "edge-fw"));
    f->core.user = NULL;
    remove_image(f, "a");
    assert_string_equal(f->code, "");
}

static void commit_failure_undoes(void **state)
{
    struct fixture *f = *state;

    f->core.commit_result = SQLITE_FULL;
    upload(f, "a", NULL, "one");
    assert_string_equal(f->code, "NO_SPACE");
    settle(f);
    assert_int_equal(count_items(f), 0);
    assert_int_equal(count_entries(f, "images/layers"), 0);
    f->core.commit_result = 0;
    upload(f, "a", NULL, "one");
    f->core.commit_result = SQLITE_IOERR;
    remove_image(f, "a");
    assert_string_equal(f->code, "STORE_FAILED");
    settle(f);
    assert_int_equal(count_items(f), 1);
    assert_int_equal(count_entries(f, "images/layers"), 1);
}

static void removal_waits_for_the_launcher(void **state)
{
    struct fixture *f = *state;
    bool never = false;

    upload(f, "a", NULL, "one");
    f->core.launcher_away = true;
    remove_image(f, "a"); /* acknowledged: the record is gone */
    assert_string_equal(f->code, "");
    settle(f);
    assert_int_equal(count_entries(f, "images/layers"), 1);
    f->core.launcher_away = false;
    for (int i = 0; i < 30 && count_entries(f, "images/layers"); i++)
        sd_event_run(f->core.loop, 100000);
    assert_int_equal(count_entries(f, "images/layers"), 0);
    (void)never;
}

static void orphan_layers_are_removed_at_start(void **state)
{
    struct fixture *f = *state;
    char path[256];

    upload(f, "a", NULL, "one");
    images_close(f->images);
    snprintf(path, sizeof(path), "%s/images/layers/%064d", f->top, 7);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof(path), "%s/spool/pull-x", f->top);
    assert_int_equal(mkdir(path, 0755), 0);
    strcat(path, "/image.tar");
    fclose(fopen(path, "w"));
    assert_int_equal(images_open(&f->core, &f->images, NULL), 0);
    settle(f);
    assert_int_equal(count_entries(f, "images/layers"), 1);
    assert_int_equal(count_entries(f, "spool"), 0);
}

static void launcher_away_or_lost(void **state)
{
    struct fixture *f = *state;

    f->core.launcher_away = true;
    upload(f, "a", NULL, "one");
    assert_string_equal(f->code, "LAUNCHER_UNAVAILABLE");
    f->core.launcher_away = false;
    f->core.launcher_dies = true;
    upload(f, "a", NULL, "one");
    assert_string_equal(f->code, "LAUNCHER_UNAVAILABLE");
    upload(f, "a", NULL, "one");
    assert_string_equal(f->code, "");
    assert_int_equal(count_items(f), 1);
}

#define HEX "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ANSWER_CONFIG(config)                                                                                          \
    "{\"digest\":\"" HEX "\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[\"" HEX              \
    "\"],\"config\":{" config "}}"
#define GOOD_ANSWER                                                                                                    \
    "{\"digest\":\"" HEX "\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[\"" HEX              \
    "\"],\"config\":{}}"

static void answers_are_not_believed(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"digest\":\"../../etc\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[\"" HEX
        "\"],\"config\":{}}",
        "{\"digest\":\"" HEX "\",\"format\":\"oci\",\"size_bytes\":-1,\"unpacked_bytes\":1,\"layers\":[\"" HEX
        "\"],\"config\":{}}",
        "{\"digest\":\"" HEX
        "\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[\"../x\"],\"config\":{}}",
        "{\"digest\":\"" HEX "\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[\"" HEX
        "\",\"" HEX "\"],\"config\":{}}",
        "{\"digest\":\"" HEX "\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[],\"config\":{}}",
        "{\"digest\":\"" HEX "\",\"format\":\"odd\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[\"" HEX
        "\"],\"config\":{}}",
        "{\"digest\":\"" HEX "\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[\"" HEX
        "\"],\"config\":{\"env\":[1]}}",
        "{\"digest\":\"" HEX "\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,\"layers\":[\"" HEX
        "\"],\"config\":{\"stop_signal\":99}}",
        ANSWER_CONFIG("\"guest\":\"odd\",\"boot\":\"linux\""),
        ANSWER_CONFIG("\"guest\":1,\"boot\":\"linux\""),
        ANSWER_CONFIG("\"guest\":\"unikernel\""),
        ANSWER_CONFIG("\"guest\":\"unikernel\",\"boot\":\"sideways\""),
        ANSWER_CONFIG("\"guest\":\"disk\",\"boot\":\"linux\""),
        ANSWER_CONFIG("\"guest\":\"linux\",\"boot\":\"linux\",\"memory\":-1"),
        ANSWER_CONFIG("\"guest\":\"linux\",\"boot\":\"linux\",\"memory\":2199023255552"),
        ANSWER_CONFIG("\"guest\":\"linux\",\"boot\":\"linux\",\"disk\":\"../../etc/passwd\""),
        ANSWER_CONFIG("\"guest\":\"linux\",\"boot\":\"linux\",\"parameters\":\"a\\nb\""),
        ANSWER_CONFIG("\"guest\":\"linux\",\"boot\":\"linux\",\"parameters\":7"),
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        f->core.answer = bad[i];
        upload(f, "a", NULL, "one");
        if (strcmp(f->code, "IMAGE_MALFORMED") != 0)
            fail_msg("answer %zu gave \"%s\"", i, f->code);
    }
    f->core.answer = GOOD_ANSWER;
    f->core.answer_failed = true;
    upload(f, "a", NULL, "one");
    assert_string_equal(f->code, "LAUNCHER_REFUSED");
    f->core.answer = "{\"error\":{\"code\":\"IMAGE_PATH_ESCAPE\",\"message\":\"words\",\"hint\":\"h\"}}";
    upload(f, "a", NULL, "one");
    assert_string_equal(f->code, "IMAGE_PATH_ESCAPE");
    assert_string_equal(f->message, "words");
    f->core.answer = "{\"error\":{\"code\":\"EVIL\"}}";
    upload(f, "a", NULL, "one");
    assert_string_equal(f->code, "INTERNAL");
    assert_int_equal(count_items(f), 0);
    f->core.answer = GOOD_ANSWER;
    f->core.answer_failed = false;
    upload(f, "a", NULL, "one");
    assert_string_equal(f->code, "");
}

/* Records an image of its own content under a name; config: the guest's members of the answer. */
static void record_variant(struct fixture *f, const char *name, char digit, const char *config)
{
    auto_free char *text = NULL;
    char hex[65] = {0};

    memset(hex, digit, 64);
    assert_true(asprintf(&text,
                         "{\"digest\":\"%s\",\"format\":\"oci\",\"size_bytes\":1,\"unpacked_bytes\":1,"
                         "\"layers\":[\"%s\"],\"config\":{%s}}",
                         hex, hex, config) > 0);
    f->core.answer = text;
    upload(f, name, NULL, "x");
    f->core.answer = NULL;
    assert_string_equal(f->code, "");
}

static const char unikernel_config[] = "\"guest\":\"unikernel\",\"boot\":\"unikernel\",\"entrypoint\":[\"iperf\"],"
                                       "\"parameters\":\"quiet\",\"memory\":4194304";
static const char linux_config[] = "\"guest\":\"linux\",\"boot\":\"linux\",\"initrd\":true";
static const char disk_config[] = "\"guest\":\"disk\",\"boot\":\"disk\",\"disk\":\"disk.qcow2\"";

static char digest_digit(struct fixture *f, const char *ref, const struct technology *technology)
{
    struct image_view view;

    if (f->core.ops->find(f->core.ops_context, ref, technology, &view, NULL) < 0)
        return '-';
    assert_int_equal(view.config->guest, technology->guest_kind);
    return view.digest[7];
}

static void one_name_several_technologies(void **state)
{
    struct fixture *f = *state;
    struct image_view view;

    record_variant(f, "coracle/iperf", 'a', "");
    record_variant(f, "coracle/iperf", 'b', unikernel_config);
    record_variant(f, "coracle/iperf", 'c', linux_config);
    assert_int_equal(digest_digit(f, "coracle/iperf", &standardvm), 'c'); /* no disk: the kind counts */
    record_variant(f, "coracle/iperf", 'd', disk_config);
    assert_int_equal(count_items(f), 4);
    assert_int_equal(digest_digit(f, "coracle/iperf", &container), 'a');
    assert_int_equal(digest_digit(f, "coracle/iperf", &unikernel), 'b');
    assert_int_equal(digest_digit(f, "coracle/iperf", &tinyx), 'c');
    assert_int_equal(digest_digit(f, "coracle/iperf", &standardvm), 'd');
    record_variant(f, "coracle/iperf", 'e', unikernel_config); /* the name moves within its variant */
    assert_int_equal(digest_digit(f, "coracle/iperf", &unikernel), 'e');
    assert_int_equal(digest_digit(f, "coracle/iperf", &container), 'a');
    images_close(f->images);
    assert_int_equal(images_open(&f->core, &f->images, NULL), 0);
    assert_int_equal(digest_digit(f, "coracle/iperf", &container), 'a');
    assert_int_equal(digest_digit(f, "coracle/iperf", &unikernel), 'e');
    assert_int_equal(digest_digit(f, "coracle/iperf", &standardvm), 'd');
    assert_int_equal(f->core.ops->find(f->core.ops_context, "coracle/iperf", &unikernel, &view, NULL), 0);
    assert_string_equal(view.config->boot, "unikernel");
    assert_string_equal(view.config->parameters, "quiet");
    assert_int_equal(view.config->memory_min, 4194304);
    assert_string_equal(view.config->entrypoint[0], "iperf");
    assert_int_equal(f->core.ops->find(f->core.ops_context, "coracle/iperf", &tinyx, &view, NULL), 0);
    assert_true(view.config->initrd);
}

static void wrong_guest_is_named(void **state)
{
    struct fixture *f = *state;
    auto_error struct error *err = NULL;
    struct image_view view;

    record_variant(f, "only", 'a', "");
    assert_int_equal(f->core.ops->find(f->core.ops_context, "only", &unikernel, &view, &err), -ENOENT);
    assert_string_equal(err->code, "IMAGE_WRONG_GUEST");
    assert_non_null(strstr(err->message, "process"));
    assert_non_null(strstr(err->message, "unikernel.kvm"));
    assert_non_null(strstr(err->hint, "coracle build APP --for unikernel.kvm"));
    err = (error_free(err), NULL);
    record_variant(f, "vm", 'b', unikernel_config);
    record_variant(f, "vm", 'c', disk_config);
    assert_int_equal(f->core.ops->find(f->core.ops_context, "vm", &container, &view, &err), -ENOENT);
    assert_non_null(strstr(err->message, "unikernel and disk"));
    /* by digest too: what is named so exactly still has to fit */
    assert_int_equal(digest_digit(f, "bbbbbb", &container), '-');
    assert_int_equal(digest_digit(f, "bbbbbb", &unikernel), 'b');
}

static void remove_variants(struct fixture *f, const char *ref, uint32_t variants)
{
    f->done = false;
    assert_int_equal(images_remove(f->images, ref, variants, on_removed, f, NULL), 0);
    assert_true(fake_core_run(&f->core, &f->done));
}

static void variants_are_removed_together_or_alone(void **state)
{
    struct fixture *f = *state;
    auto_error struct error *err = NULL;

    record_variant(f, "x", 'a', "");
    record_variant(f, "x", 'b', unikernel_config);
    record_variant(f, "x", 'c', linux_config);
    remove_variants(f, "x", 1u << VARIANT_UNIKERNEL);
    assert_int_equal(digest_digit(f, "x", &unikernel), '-');
    assert_int_equal(digest_digit(f, "x", &container), 'a');
    record_variant(f, "x", 'b', unikernel_config);
    remove_variants(f, "bbbb", VARIANT_ALL);
    assert_int_equal(count_items(f), 2);
    assert_int_equal(images_remove(f->images, "x", 1u << VARIANT_DISK, on_removed, f, &err), -ENOENT);
    assert_string_equal(err->code, "IMAGE_WRONG_GUEST");
    record_variant(f, "x", 'b', unikernel_config);
    f->core.commit_result = SQLITE_IOERR;
    remove_variants(f, "x", VARIANT_ALL);
    assert_string_equal(f->code, "STORE_FAILED");
    assert_int_equal(count_items(f), 3); /* all came back */
    f->core.commit_result = 0;
    remove_variants(f, "x", VARIANT_ALL);
    assert_int_equal(count_items(f), 0);
    images_close(f->images);
    assert_int_equal(images_open(&f->core, &f->images, NULL), 0);
    assert_int_equal(count_items(f), 0);
}

/* What the release before variants left: its two tables, one name one image. */
static void older_store_is_migrated(void **state)
{
    struct fixture *f = *state;
    static const char downgrade[] =
        "ALTER TABLE image_name RENAME TO newer;"
        "CREATE TABLE image_name(reference TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT;"
        "INSERT INTO image_name SELECT reference, digest FROM newer ORDER BY rowid;"
        "DROP TABLE newer; DROP TABLE snapshots; DELETE FROM schema_migrations WHERE version >= 2;";

    record_variant(f, "older", 'a', "");
    record_variant(f, "second-name", 'a', "");
    images_close(f->images);
    assert_int_equal(sqlite3_exec(f->core.db, downgrade, NULL, NULL, NULL), SQLITE_OK);
    fake_core_close(&f->core);
    fake_core_open(&f->core, f->top, unpacker);
    assert_int_equal(images_open(&f->core, &f->images, NULL), 0);
    assert_int_equal(count_items(f), 2);
    assert_int_equal(digest_digit(f, "older", &container), 'a');
    record_variant(f, "older", 'b', unikernel_config);
    assert_int_equal(digest_digit(f, "older", &container), 'a');
}

static void hostile_archive_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct image_upload *u;
    char tar[32768];
    size_t size = make_tar("../escape", "x", tar, sizeof(tar));

    assert_int_equal(images_upload_begin(f->images, "a", NULL, &u, NULL), 0);
    assert_int_equal(images_upload_write(u, tar, size, NULL), 0);
    f->done = false;
    assert_int_equal(images_upload_finish(u, on_done, f, NULL), 0);
    assert_true(fake_core_run(&f->core, &f->done));
    assert_string_equal(f->code, "IMAGE_PATH_ESCAPE");
    assert_int_equal(count_items(f), 0);
    assert_int_equal(count_entries(f, "images"), 0);
    assert_int_equal(count_entries(f, "spool"), 0);
}

static void full_spool(void **state)
{
    struct fixture *f = *state;
    auto_error struct error *err = NULL;
    struct image_upload *u;
    char path[128], block[65536] = {0};
    int r = 0;

    snprintf(path, sizeof(path), "%s/spool", f->top);
    if (mount("x", path, "tmpfs", 0, "size=1m") < 0) {
        print_message("cannot mount a tmpfs: not tested\n");
        skip();
    }
    assert_int_equal(images_upload_begin(f->images, "a", NULL, &u, NULL), 0);
    for (int i = 0; i < 32 && r == 0; i++)
        r = images_upload_write(u, block, sizeof(block), &err);
    assert_int_equal(r, -ENOSPC);
    assert_string_equal(err->code, "NO_SPACE");
    images_upload_abort(u);
    upload(f, "a", NULL, "one"); /* the space is there again */
    assert_string_equal(f->code, "");
}

static void names_and_entry_points_are_checked_first(void **state)
{
    struct fixture *f = *state;
    struct image_upload *u = NULL;

    assert_int_equal(images_upload_begin(f->images, "UPPER", NULL, &u, NULL), -EINVAL);
    assert_int_equal(images_upload_begin(f->images, "a@sha256:" HEX, NULL, &u, NULL), -EINVAL);
    assert_int_equal(images_upload_begin(f->images, "a", "not json", &u, NULL), -EINVAL);
    assert_int_equal(images_upload_begin(f->images, "a", "{}", &u, NULL), -EINVAL);
    assert_int_equal(images_upload_begin(f->images, "a", "[1]", &u, NULL), -EINVAL);
    assert_null(u);
}

static void forgotten_client_gets_no_answer(void **state)
{
    struct fixture *f = *state;
    struct image_upload *u;
    char tar[32768];
    size_t size = make_tar("app", "x", tar, sizeof(tar));

    assert_int_equal(images_upload_begin(f->images, "a", NULL, &u, NULL), 0);
    assert_int_equal(images_upload_write(u, tar, size, NULL), 0);
    f->done = false;
    assert_int_equal(images_upload_finish(u, on_done, f, NULL), 0);
    images_forget(f->images, f);
    for (int i = 0; i < 100 && count_items(f) == 0; i++)
        sd_event_run(f->core.loop, 100000);
    settle(f);
    assert_int_equal(count_items(f), 1); /* the import itself went on */
    assert_false(f->done);
}

static void many_at_once_run_one_by_one(void **state)
{
    struct fixture *f = *state;
    struct image_upload *u[5];
    char tar[32768], content[2] = "0";

    for (int i = 0; i < 5; i++) {
        size_t size;

        content[0] = (char)('0' + i % 2);
        size = make_tar("app", content, tar, sizeof(tar));
        assert_int_equal(images_upload_begin(f->images, "a", NULL, &u[i], NULL), 0);
        assert_int_equal(images_upload_write(u[i], tar, size, NULL), 0);
    }
    for (int i = 0; i < 5; i++) {
        f->done = false;
        assert_int_equal(images_upload_finish(u[i], on_done, f, NULL), 0);
    }
    for (int i = 0; i < 200 && f->core.unpacks < 5; i++)
        sd_event_run(f->core.loop, 100000);
    settle(f);
    assert_int_equal(f->core.running_max, 1);
    assert_int_equal(count_items(f), 2);
}

static void closing_in_the_middle(void **state)
{
    struct fixture *f = *state;
    struct image_upload *u;
    char tar[32768];
    size_t size = make_tar("app", "x", tar, sizeof(tar));

    for (int turns = 0; turns < 4; turns++) {
        assert_int_equal(images_upload_begin(f->images, "a", NULL, &u, NULL), 0);
        assert_int_equal(images_upload_write(u, tar, size, NULL), 0);
        assert_int_equal(images_upload_finish(u, on_done, f, NULL), 0);
        assert_int_equal(images_upload_begin(f->images, "b", NULL, &u, NULL), 0);
        for (int i = 0; i < turns; i++)
            sd_event_run(f->core.loop, 10000);
        f->done = false;
        images_close(f->images);
        /* the reader that was under way ends in its own time, which a loaded host stretches */
        for (int i = 0; i < 300 && f->core.running; i++)
            sd_event_run(f->core.loop, 100000);
        settle(f);
        assert_false(f->done);
        assert_int_equal(images_open(&f->core, &f->images, NULL), 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(upload_is_recorded_and_found, setup, teardown),
        cmocka_unit_test_setup_teardown(same_content_again_is_no_error, setup, teardown),
        cmocka_unit_test_setup_teardown(records_survive_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(found_by_short_name_digest_and_prefix, setup, teardown),
        cmocka_unit_test_setup_teardown(removal_counts_layers, setup, teardown),
        cmocka_unit_test_setup_teardown(removal_in_use_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(commit_failure_undoes, setup, teardown),
        cmocka_unit_test_setup_teardown(removal_waits_for_the_launcher, setup, teardown),
        cmocka_unit_test_setup_teardown(orphan_layers_are_removed_at_start, setup, teardown),
        cmocka_unit_test_setup_teardown(launcher_away_or_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_are_not_believed, setup, teardown),
        cmocka_unit_test_setup_teardown(one_name_several_technologies, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_guest_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(variants_are_removed_together_or_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(older_store_is_migrated, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_archive_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(full_spool, setup, teardown),
        cmocka_unit_test_setup_teardown(names_and_entry_points_are_checked_first, setup, teardown),
        cmocka_unit_test_setup_teardown(forgotten_client_gets_no_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(many_at_once_run_one_by_one, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_in_the_middle, setup, teardown),
    };

    if (geteuid() != 0) {
        puts("skipped: setting owners of unpacked files needs root");
        return 77;
    }
    unpacker = argc > 1 ? argv[1] : NULL;
    return unpacker ? cmocka_run_group_tests(tests, NULL, NULL) : 64;
}
