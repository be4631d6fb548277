/* SPDX-License-Identifier: Apache-2.0 */
/* Image names, references and documents: the pure parts of src/image and of the daemon's image store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/images_reference.h"
#include "image/documents.h"
#include "image/path.h"

static void paths_are_cleaned(void **state)
{
    static const char *const good[][2] = {{"a/b", "a/b"}, {"/a//b/", "a/b"}, {"././a/.", "a"},        {"./", ""},
                                          {"", ""},       {"...", "..."},    {"a..b/..c", "a..b/..c"}};
    static const char *const bad[] = {"..", "../a", "a/..", "a/../b", "/..", "./../x"};
    char ret[IMAGE_PATH_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(image_path_clean(good[i][0], ret, NULL), 0);
        assert_string_equal(ret, good[i][1]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct error *err = NULL;

        strcpy(ret, "untouched");
        assert_true(image_path_clean(bad[i], ret, &err) < 0);
        assert_string_equal(err->code, "IMAGE_PATH_ESCAPE");
        assert_non_null(strstr(err->message, bad[i]));
        assert_string_equal(ret, "untouched");
        error_free(err);
    }
}

static void long_paths_are_refused_not_cut(void **state)
{
    char raw[3 * IMAGE_PATH_SIZE], ret[IMAGE_PATH_SIZE];

    (void)state;
    memset(raw, 'a', 256);
    raw[256] = '\0';
    assert_true(image_path_clean(raw, ret, NULL) < 0);
    raw[255] = '\0';
    assert_int_equal(image_path_clean(raw, ret, NULL), 0);
    for (size_t i = 0; i < 20; i++) {
        memset(raw + i * 240, 'b', 239);
        raw[i * 240 + 239] = '/';
    }
    raw[20 * 240] = '\0';
    assert_true(image_path_clean(raw, ret, NULL) < 0);
    raw[17 * 240] = '\0';
    assert_int_equal(image_path_clean(raw, ret, NULL), 0);
    assert_int_equal(strlen(ret), 17 * 240 - 1);
}

static void whiteouts_are_told_apart(void **state)
{
    static const struct {
        const char *path, *hidden;
        enum path_kind kind;
    } good[] = {{"a/b", "a/b", PATH_PLAIN},           {".wh.x", "x", PATH_WHITEOUT},
                {"a/.wh.b", "a/b", PATH_WHITEOUT},    {"a/.wh..hid", "a/.hid", PATH_WHITEOUT},
                {"a/.wh..wh..opq", "a", PATH_OPAQUE}, {".wh", ".wh", PATH_PLAIN},
                {"a.wh.b", "a.wh.b", PATH_PLAIN}};
    static const char *const bad[][2] = {{".wh.", "IMAGE_MALFORMED"},        {".wh..", "IMAGE_PATH_ESCAPE"},
                                         {"a/.wh...", "IMAGE_PATH_ESCAPE"},  {".wh..wh..opq", "IMAGE_MALFORMED"},
                                         {"a/.wh..wh.x", "IMAGE_MALFORMED"}, {".wh.a/b", "IMAGE_MALFORMED"},
                                         {"x/.wh.a/b/c", "IMAGE_MALFORMED"}};
    char path[64];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        enum path_kind kind;

        strcpy(path, good[i].path);
        assert_int_equal(image_path_kind(path, &kind, NULL), 0);
        assert_int_equal(kind, good[i].kind);
        assert_string_equal(path, good[i].hidden);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        enum path_kind kind;
        struct error *err = NULL;

        strcpy(path, bad[i][0]);
        assert_true(image_path_kind(path, &kind, &err) < 0);
        assert_string_equal(err->code, bad[i][1]);
        error_free(err);
    }
}

static void names_are_printable_in_messages(void **state)
{
    char buf[IMAGE_PRINTABLE_SIZE], longer[1000];

    (void)state;
    assert_string_equal(image_printable("a\nb\x1b\xff", buf), "a\\x0ab\\x1b\\xff");
    memset(longer, '\n', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_true(strlen(image_printable(longer, buf)) < sizeof(buf));
}

static void references_are_normalised(void **state)
{
    static const char digest[] = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static const char *const good[][2] = {
        {"nginx", "nginx:latest"},
        {"coracle/iperf", "coracle/iperf:latest"},
        {"host:5000/a/b", "host:5000/a/b:latest"},
        {"Host.Example/a:V1.2-x", "Host.Example/a:V1.2-x"},
        {"localhost/a__b--c.d:1", "localhost/a__b--c.d:1"},
        {"1:1", "1:1"},
        {"h-1.x:80/a", "h-1.x:80/a:latest"},
    };
    static const char *const bad[] = {"",    "A",    "a:",   "a:b:c", "/a",   "a/",  "a//b",        "a b",
                                      "-a",  "a-",   "a..b", "a___b", "a:-t", "a@x", "a@sha256:12", "host:port/a",
                                      "a/B", "../a", "a\n",  "a._b"};
    struct image_reference r;
    char with[256];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(image_reference_parse(good[i][0], &r, NULL), 0);
        assert_string_equal(r.name, good[i][1]);
        assert_string_equal(r.digest, "");
    }
    snprintf(with, sizeof(with), "a/b:1@%s", digest);
    assert_int_equal(image_reference_parse(with, &r, NULL), 0);
    assert_string_equal(r.name, "a/b:1");
    assert_string_equal(r.digest, digest);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct error *err = NULL;

        if (image_reference_parse(bad[i], &r, &err) == 0)
            fail_msg("\"%s\" was accepted", bad[i]);
        assert_string_equal(err->code, "INVALID_VALUE");
        assert_non_null(err->hint);
        error_free(err);
    }
}

static void references_at_the_bound(void **state)
{
    struct image_reference r;
    char text[400];

    (void)state;
    for (size_t n = 1; n < sizeof(text); n++) {
        memset(text, 'a', n);
        text[n] = '\0';
        assert_int_equal(image_reference_parse(text, &r, NULL) == 0, n + sizeof(":latest") <= IMAGE_REF_SIZE);
        if (n > 3) {
            memcpy(text + n - 2, ":1", 2);
            assert_int_equal(image_reference_parse(text, &r, NULL) == 0, n < IMAGE_REF_SIZE);
        }
    }
}

static void digests_and_prefixes(void **state)
{
    (void)state;
    assert_null(image_digest_prefix("abc"));
    assert_string_equal(image_digest_prefix("abcd"), "abcd");
    assert_string_equal(image_digest_prefix("sha256:abcd"), "abcd");
    assert_null(image_digest_prefix("ABCD"));
    assert_null(image_digest_prefix("sha256:"));
    assert_false(image_digest_valid("sha256:abcd"));
    assert_false(image_digest_valid("sha512:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    assert_true(image_digest_valid("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
}

static void stop_signals(void **state)
{
    static const struct {
        const char *text;
        int number;
    } good[] = {{"SIGTERM", 15}, {"TERM", 15}, {"15", 15},     {"SIGRTMIN+3", 37},
                {"RTMIN+0", 34}, {"64", 64},   {"SIGUSR1", 10}};
    static const char *const bad[] = {"",    "0",  "65",      "SIG",        "SIGRTMIN+", "SIGRTMIN+31",
                                      "15x", "-9", "sigterm", "SIGRTMIN+-1"};
    int n;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(stop_signal_parse(good[i].text, &n), 0);
        assert_int_equal(n, good[i].number);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_true(stop_signal_parse(bad[i], &n) < 0);
}

static void documents_are_bounded(void **state)
{
    static const char quoted[] = "[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[\"]";
    char deep[200];
    json_t *j = NULL;

    (void)state;
    memset(deep, '[', 33);
    memset(deep + 33, ']', 33);
    assert_true(document_parse("x", deep, 66, &j, NULL) < 0);
    assert_null(j);
    assert_int_equal(document_parse("x", deep + 1, 64, &j, NULL), 0);
    json_decref(j);
    /* brackets in strings nest nothing */
    assert_int_equal(document_parse("x", quoted, strlen(quoted), &j, NULL), 0);
    json_decref(j);
}

static void guests_are_what_their_labels_say(void **state)
{
    static const struct {
        const char *labels, *boot; /* boot NULL: refused */
        enum image_variant variant;
    } cases[] = {
        {"{}", "", VARIANT_PROCESS},
        {"{\"org.coracle.guest\":\"process\"}", "", VARIANT_PROCESS},
        {"{\"org.coracle.guest\":\"unikernel\"}", "unikernel", VARIANT_UNIKERNEL},
        {"{\"org.coracle.guest\":\"unikernel\",\"org.coracle.boot\":\"multiboot\"}", "multiboot", VARIANT_UNIKERNEL},
        {"{\"org.coracle.guest\":\"linux\",\"org.coracle.boot\":\"pvh\"}", "pvh", VARIANT_LINUX},
        {"{\"org.coracle.guest\":\"linux\",\"org.coracle.boot\":\"\"}", "linux", VARIANT_LINUX},
        {"{\"org.coracle.guest\":\"disk\"}", "disk", VARIANT_DISK},
        {"{\"org.coracle.guest\":\"disk\",\"org.coracle.boot\":\"linux\"}", NULL, 0},
        {"{\"org.coracle.guest\":\"\"}", NULL, 0},
        {"{\"org.coracle.guest\":\"Linux\"}", NULL, 0},
        {"{\"org.coracle.guest\":\"linux\\u0000\"}", NULL, 0},
        {"{\"org.coracle.boot\":\"linux\"}", NULL, 0},
        {"{\"org.coracle.guest\":\"linux\",\"org.coracle.memory\":\"64MiB\"}", NULL, 0},
        {"{\"org.coracle.guest\":\"linux\",\"org.coracle.memory\":\"-1\"}", NULL, 0},
        {"{\"org.coracle.guest\":\"linux\",\"org.coracle.memory\":\"1099511627777\"}", NULL, 0},
        {"{\"org.coracle.guest\":\"linux\",\"org.coracle.memory\":\"1099511627776\"}", "linux", VARIANT_LINUX},
        {"{\"org.coracle.guest\":\"linux\",\"org.coracle.parameters\":\"a\\tb\"}", NULL, 0},
        {"{\"org.coracle.guest\":\"linux\",\"org.coracle.parameters\":\"console=hvc0 -- x\"}", "linux", VARIANT_LINUX},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        json_t *labels = json_loads(cases[i].labels, JSON_ALLOW_NUL, NULL);
        struct image_guest g = {0};
        int r = image_guest_parse("x", labels, &g, NULL);

        if ((r == 0) != (cases[i].boot != NULL))
            fail_msg("labels %s gave %d", cases[i].labels, r);
        assert_int_equal(g.variant, cases[i].variant);
        if (r == 0)
            assert_string_equal(g.boot ? g.boot : "", cases[i].boot);
        image_guest_clear(&g);
        json_decref(labels);
    }
}

static void machines_have_what_they_boot(void **state)
{
    const struct image_guest kernel = {.variant = VARIANT_UNIKERNEL, .boot = "unikernel"};
    const struct image_guest disk = {.variant = VARIANT_DISK, .boot = "disk"}, none = {.variant = VARIANT_PROCESS};
    struct image_boot b = {0};

    (void)state;
    assert_int_equal(image_boot_check(&b, &none, 7, NULL), 0);
    assert_true(image_boot_check(&b, &kernel, 1, NULL) < 0);
    image_boot_note(&b, &(struct image_entry){.kind = ENTRY_SYMLINK, .path = "boot/kernel", .target = "/etc/shadow"});
    assert_true(image_boot_check(&b, &kernel, 1, NULL) < 0);
    image_boot_note(&b, &(struct image_entry){.kind = ENTRY_FILE, .path = "boot/kernel"});
    assert_int_equal(image_boot_check(&b, &kernel, 1, NULL), 0);
    assert_true(image_boot_check(&b, &kernel, 2, NULL) < 0);
    assert_true(image_boot_check(&b, &disk, 1, NULL) < 0);
    image_boot_note(&b, &(struct image_entry){.kind = ENTRY_FILE, .path = "boot/disk.raw"});
    assert_int_equal(image_boot_check(&b, &disk, 1, NULL), 0);
    image_boot_note(&b, &(struct image_entry){.kind = ENTRY_FILE, .path = "boot/disk.qcow2"});
    assert_true(image_boot_check(&b, &disk, 1, NULL) < 0);
    /* the file is replaced, or its directory is */
    image_boot_note(&b, &(struct image_entry){.kind = ENTRY_WHITEOUT, .path = "boot/disk.qcow2"});
    image_boot_note(&b, &(struct image_entry){.kind = ENTRY_SYMLINK, .path = "boot", .target = "/etc"});
    assert_true(image_boot_check(&b, &kernel, 1, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_cleaned),         cmocka_unit_test(long_paths_are_refused_not_cut),
        cmocka_unit_test(whiteouts_are_told_apart),  cmocka_unit_test(names_are_printable_in_messages),
        cmocka_unit_test(references_are_normalised), cmocka_unit_test(references_at_the_bound),
        cmocka_unit_test(digests_and_prefixes),      cmocka_unit_test(stop_signals),
        cmocka_unit_test(documents_are_bounded),     cmocka_unit_test(guests_are_what_their_labels_say),
        cmocka_unit_test(machines_have_what_they_boot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
