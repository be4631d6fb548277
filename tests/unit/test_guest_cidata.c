/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata disk: read back by libarchive as a file system, and by the guest's own parser from its front. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <archive.h>
#include <archive_entry.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "guest/cidata.h"
#include "guest/config.h"

static const char words[] =
    "ip4=198.18.0.2/24 gw4=198.18.0.1 ip6=fd00::2/64 gw6=fd00::1 mac=02:00:00:00:00:05 mtu=1400 "
    "dns=198.18.0.53 eth1.ip4=10.0.0.1/8 hostname=fw ssh.user=op ssh.key=ssh-ed25519%20AA\"A%20me "
    "env.A=b%20$c user=5 -- /bin/x %25p $HOME a%22b \xc3\xa9";

/* The content of a file of the image; freed by the caller. NULL: none of that name. */
static char *read_file(const struct buffer *image, const char *name, size_t *ret_count)
{
    struct archive *a = archive_read_new();
    struct archive_entry *entry;
    char *found = NULL;

    *ret_count = 0;
    archive_read_support_format_iso9660(a);
    assert_int_equal(archive_read_open_memory(a, image->data, image->length), ARCHIVE_OK);
    while (archive_read_next_header(a, &entry) == ARCHIVE_OK) {
        size_t size = (size_t)archive_entry_size(entry);
        if (archive_entry_filetype(entry) != AE_IFREG)
            continue;
        ++*ret_count;
        if (strcasecmp(archive_entry_pathname(entry), name) != 0)
            continue;
        found = calloc(1, size + 1);
        assert_int_equal(archive_read_data(a, found, size), size);
    }
    archive_read_free(a);
    return found;
}

static void has(const struct buffer *image, const char *name, const char *const *parts)
{
    size_t count;
    char *text = read_file(image, name, &count);

    assert_non_null(text);
    assert_int_equal(count, 3);
    for (; *parts; parts++) {
        if (!strstr(text, *parts))
            fail_msg("%s lacks \"%s\": %s", name, *parts, text);
    }
    free(text);
}

static void is_a_file_system_of_three(void **state)
{
    struct buffer image = {0};

    (void)state;
    assert_int_equal(cidata_image(words, "id-1", &image, NULL), 0);
    assert_int_equal(image.length % 2048, 0);
    assert_memory_equal(image.data + 16 * 2048 + 40, "cidata  ", 8);
    has(&image, "meta-data", (const char *[]){"\"instance-id\": \"id-1\"", "\"local-hostname\": \"fw\"", NULL});
    has(&image, "network-config",
        (const char *[]){"\"version\": 2", "\"addresses\": [\"198.18.0.2/24\", \"fd00::2/64\"]", "\"mtu\": 1400",
                         "{\"to\": \"0.0.0.0/0\", \"via\": \"198.18.0.1\"}, {\"to\": \"::/0\", \"via\": \"fd00::1\"}",
                         "\"macaddress\": \"02:00:00:00:00:05\"", "\"eth1\": {",
                         "\"nameservers\": {\"addresses\": [\"198.18.0.53\"]}", NULL});
    has(&image, "user-data",
        (const char *[]){
            "#cloud-config\n{", "ssh-ed25519 AA\\\"A me", "\"name\": \"op\"", "Environment=\\\"A=b $c\\\"", "User=5",
            "ExecStart=\\\"/bin/x\\\" \\\"%%p\\\" \\\"$$HOME\\\" \\\"a\\\\\\\"b\\\" \\\"\xc3\xa9\\\"", NULL});
    buffer_clear(&image);
}

static void its_front_is_the_words(void **state)
{
    struct buffer image = {0};
    struct config config = {0};

    (void)state;
    assert_int_equal(cidata_image(words, "id-1", &image, NULL), 0);
    assert_int_equal(strncmp(image.data, CONFIG_DISK_MAGIC, strlen(CONFIG_DISK_MAGIC)), 0);
    assert_int_equal(config_parse(image.data + strlen(CONFIG_DISK_MAGIC), CONFIG_OURS, &config, NULL, NULL), 0);
    assert_string_equal(config.hostname, "fw");
    assert_int_equal(config.argument_count, 5);
    buffer_clear(&image);
}

static void same_words_same_bytes(void **state)
{
    struct buffer one = {0}, two = {0};

    (void)state;
    assert_int_equal(cidata_image(words, "i", &one, NULL), 0);
    assert_int_equal(cidata_image(words, "i", &two, NULL), 0);
    assert_int_equal(one.length, two.length);
    assert_memory_equal(one.data, two.data, one.length);
    buffer_clear(&one);
    buffer_clear(&two);
}

static void refuses_wrong_words(void **state)
{
    struct buffer image = {0};
    struct error *err = NULL;
    char *large = malloc(CONFIG_TEXT_MAX);

    (void)state;
    assert_int_not_equal(cidata_image("ip4=1.2.3.4", "i", &image, &err), 0);
    assert_non_null(strstr(err->message, "ip4"));
    error_free(err);
    assert_int_not_equal(cidata_image("console=ttyS0", "i", &image, NULL), 0);
    assert_int_not_equal(cidata_image("", "", &image, NULL), 0);
    memset(large, ' ', CONFIG_TEXT_MAX - 1);
    large[CONFIG_TEXT_MAX - 1] = '\0';
    assert_int_not_equal(cidata_image(large, "i", &image, NULL), 0);
    free(large);
    assert_int_equal(image.length, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_a_file_system_of_three),
        cmocka_unit_test(its_front_is_the_words),
        cmocka_unit_test(same_words_same_bytes),
        cmocka_unit_test(refuses_wrong_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
