/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulling, through the real skopeo, from the registry that test_pull.py runs. Arguments: path of coracle-unpack and
 * HOST:PORT of the registry. It has "good/app:1", answers "slow/app" never, and knows nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "daemon/images.h"
#include "fake_core.h"

static const char *unpacker, *registry;

struct fixture {
    struct core core;
    struct images *images;
    char top[64];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->top, "/tmp/coracle-pull-XXXXXX");
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
    assert_true(asprintf(&command, "rmdir %s/spool && rm -rf %s", f->top, f->top) > 0);
    assert_int_equal(system(command), 0); /* the spool is empty, however it ended */
    free(f);
    return 0;
}

static int pull(struct fixture *f, const char *name, struct error **err)
{
    json_t *body = json_pack("{s:s}", "reference", name);
    struct operation *operation = NULL;
    int r = images_pull(f->images, body, NULL, &operation, err);

    json_decref(body);
    assert_true(r < 0 || operation);
    return r;
}

static void begin(struct fixture *f, const char *path)
{
    char name[256];

    snprintf(name, sizeof(name), "docker://%s/%s", registry, path);
    assert_int_equal(pull(f, name, NULL), 0);
}

static void pulled_image_is_there(void **state)
{
    struct fixture *f = *state;
    auto_buffer struct buffer out = {0};
    char name[256];

    begin(f, "good/app:1");
    assert_true(fake_core_run(&f->core, &f->core.operation_ended));
    if (f->core.operation_error[0])
        fail_msg("%s: %s", f->core.operation_error, f->core.operation_message);
    assert_string_equal(f->core.steps, "download unpack ");
    snprintf(name, sizeof(name), "%s/good/app:1", registry);
    assert_int_equal(images_render(f->images, name, VARIANT_ALL, &out, NULL), 0);
    assert_non_null(strstr(out.data, "\"format\":\"oci\""));
}

static void unknown_image_says_why(void **state)
{
    struct fixture *f = *state;

    begin(f, "no/such:1");
    assert_true(fake_core_run(&f->core, &f->core.operation_ended));
    assert_string_equal(f->core.operation_error, "IMAGE_PULL_FAILED");
    assert_non_null(strstr(f->core.operation_message, "no/such"));
}

static void cancelled_pull_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    begin(f, "slow/app:1");
    for (int i = 0; i < 10; i++)
        sd_event_run(f->core.loop, 100000);
    assert_false(f->core.operation_ended);
    f->core.cancel(f->core.cancel_context);
    assert_true(fake_core_run(&f->core, &f->core.operation_ended));
    assert_string_equal(f->core.operation_error, "CANCELLED");
}

static void closing_ends_the_child(void **state)
{
    struct fixture *f = *state;

    begin(f, "slow/app:1");
    sd_event_run(f->core.loop, 100000);
    images_close(f->images);
    assert_false(f->core.operation_ended);
    assert_int_equal(images_open(&f->core, &f->images, NULL), 0);
}

static void other_sources_are_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "dir:///etc", "docker-archive:///etc/passwd", "docker://", "docker://UPPER/x", "--help", "docker://a b"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        auto_error struct error *err = NULL;

        assert_true(pull(f, bad[i], &err) < 0);
        assert_string_equal(err->code, "INVALID_VALUE");
    }
}

static void without_skopeo_a_hint(void **state)
{
    struct fixture *f = *state;
    auto_error struct error *err = NULL;
    auto_free char *path = strdup(getenv("PATH"));

    setenv("PATH", "/nonexistent", 1);
    assert_true(pull(f, "docker://a/b", &err) < 0);
    setenv("PATH", path, 1);
    assert_string_equal(err->code, "IMAGE_PULL_FAILED");
    assert_non_null(strstr(err->hint, "apt install skopeo"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pulled_image_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_image_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_pull_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_ends_the_child, setup, teardown),
        cmocka_unit_test_setup_teardown(other_sources_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(without_skopeo_a_hint, setup, teardown),
    };

    if (argc != 3)
        return 64;
    unpacker = argv[1];
    registry = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
