/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's reading of its metadata: what is taken, what is refused and that the rest stands, and the agent's line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/config.h"

static char reasons[4096];

static void note(void *context, const char *word, const char *reason)
{
    size_t used = strlen(reasons);

    (void)context;
    snprintf(reasons + used, sizeof(reasons) - used, "%s: %s\n", word, reason);
}

/* Parses a copy that leaks on purpose: the struct points into it. */
static unsigned parse(const char *words, enum config_source source, struct config *ret)
{
    static char text[CONFIG_TEXT_MAX];

    reasons[0] = '\0';
    memset(ret, 0, sizeof(*ret));
    snprintf(text, sizeof(text), "%s", words);
    return config_parse(text, source, ret, note, NULL);
}

static void takes_what_the_unikernel_takes(void **state)
{
    static const uint8_t ip4[] = {198, 18, 0, 2}, mac[] = {2, 0, 0, 0, 0, 1};
    struct config c;

    (void)state;
    assert_int_equal(parse("console=ttyS0 ip4=198.18.0.2/24 gw4=198.18.0.1 ip6=fd00::2/64 gw6=fd00::1 "
                           "gwmac=02:00:00:00:00:01 mtu=9000 eth1.ip4=10.0.0.1/8 hostname=fw-1 -- iperf -s -p 5001",
                           CONFIG_COMMAND_LINE, &c),
                     0);
    assert_int_equal(c.nics[0].address_count, 2);
    assert_int_equal(c.nics[0].addresses[0].family, 4);
    assert_int_equal(c.nics[0].addresses[0].prefix, 24);
    assert_memory_equal(c.nics[0].addresses[0].ip, ip4, 4);
    assert_int_equal(c.nics[0].addresses[1].family, 6);
    assert_int_equal(c.nics[0].gateway4.family, 4);
    assert_int_equal(c.nics[0].gateway6.family, 6);
    assert_true(c.nics[0].has_gateway_mac);
    assert_memory_equal(c.nics[0].gateway_mac, mac, 6);
    assert_int_equal(c.nics[0].mtu, 9000);
    assert_int_equal(c.nics[1].addresses[0].prefix, 8);
    assert_string_equal(c.hostname, "fw-1");
    assert_int_equal(c.argument_count, 4);
    assert_string_equal(c.arguments[0], "iperf");
    assert_string_equal(c.arguments[3], "5001");
    assert_null(c.arguments[4]);
}

static void decodes_and_keeps_keys(void **state)
{
    struct config c;

    (void)state;
    assert_int_equal(parse("ssh.key=ssh-ed25519%20AAAA%20me%40here ssh.user=admin env.A=1 env.B=x%3Dy env.A=2 user=7:8 "
                           "directory=/srv machine-id=0123456789ABCDEF0123456789abcdef -- /bin/a b%20c %2d",
                           CONFIG_OURS, &c),
                     0);
    assert_int_equal(c.key_count, 1);
    assert_string_equal(c.keys[0], "ssh-ed25519 AAAA me@here");
    assert_string_equal(c.ssh_user, "admin");
    assert_int_equal(c.env_count, 2);
    assert_string_equal(c.env[0], "A=2");
    assert_string_equal(c.env[1], "B=x=y");
    assert_true(c.has_user && c.uid == 7 && c.gid == 8);
    assert_string_equal(c.machine_id, "0123456789abcdef0123456789abcdef");
    assert_string_equal(c.arguments[1], "b c");
    assert_string_equal(c.arguments[2], "-");
}

/* Each alone; the good word beside it still counts. */
static void refuses_what_is_wrong(void **state)
{
    static const char *const wrong[] = {
        "ip4=198.18.0.2",
        "ip4=198.18.0.2/33",
        "ip4=1.2.3/8",
        "ip4=fd00::1/64",
        "ip6=198.18.0.2/24",
        "ip6=fd00::1/129",
        "ip4=1.2.3.4/-1",
        "ip4=1.2.3.4/",
        "ip4=",
        "gw4=1.2.3.4/8",
        "gw6=::g",
        "mac=01:00:00:00:00:00",
        "mac=02:00:00:00:00",
        "mac=02-00-00-00-00-00",
        "mac=02:00:00:00:00:000",
        "mtu=575",
        "mtu=65536",
        "mtu=99999999999999999999999",
        "mtu=",
        "dns=host",
        "hostname=",
        "hostname=-a",
        "hostname=a_b",
        "hostname=a/../b",
        "machine-id=12",
        "ssh.user=../root",
        "ssh.user=a:0:0",
        "ssh.user=",
        "ssh.key=",
        "ssh.key=a%0Ab",
        "ssh.key=a%00b",
        "directory=srv",
        "user=root",
        "user=1:",
        "user=4294967295",
        "seed=00",
        "seed=0",
        "env.=1",
        "env.A",
        "hostname=%4",
        "hostname=%00",
        "hostname=%zz",
        "eth9.ip4=1.2.3.4/8",
        "eth1.hostname=a",
        "nonsense",
        "nonsense=1",
        "=",
        "time=x",
        "hostname=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    char words[256];
    struct config c;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        snprintf(words, sizeof(words), "%s gw4=10.0.0.1", wrong[i]);
        if (parse(words, CONFIG_OURS, &c) != 1)
            fail_msg("\"%s\" was taken", wrong[i]);
        assert_int_equal(c.nics[0].gateway4.family, 4);
        assert_true(strlen(reasons) > strlen(wrong[i]) / 2);
    }
}

static void leaves_the_kernels_words_alone(void **state)
{
    struct config c;

    (void)state;
    assert_int_equal(
        parse("virtio_mmio.device=512@0xfeb00000:5 quiet =x eth9.ip4=1.2.3.4/8 reboot=t", CONFIG_COMMAND_LINE, &c), 0);
}

static void holds_at_its_limits(void **state)
{
    char words[CONFIG_TEXT_MAX] = "";
    struct config c;

    (void)state;
    for (int i = 0; i < CONFIG_ADDRESS_MAX + 3; i++)
        snprintf(words + strlen(words), sizeof(words) - strlen(words), "ip4=10.0.0.%d/8 ", i);
    for (int i = 0; i < CONFIG_KEY_MAX + 3; i++)
        strcat(words, "ssh.key=k ");
    for (int i = 0; i < CONFIG_ENV_MAX + 3; i++)
        snprintf(words + strlen(words), sizeof(words) - strlen(words), "env.V%d=1 ", i);
    for (int i = 0; i < CONFIG_DNS_MAX + 3; i++)
        strcat(words, "dns=1.1.1.1 ");
    strcat(words, "-- ");
    for (int i = 0; i < CONFIG_ARGUMENT_MAX + 3; i++)
        strcat(words, "a ");
    assert_int_equal(parse(words, CONFIG_OURS, &c), 15);
    assert_int_equal(c.argument_count, CONFIG_ARGUMENT_MAX);
    assert_null(c.arguments[CONFIG_ARGUMENT_MAX]);
    assert_null(c.env[CONFIG_ENV_MAX]);
}

static void the_last_application_counts(void **state)
{
    static char first[] = "-- a b c", second[] = "hostname=x -- d";
    struct config c = {0};

    (void)state;
    config_parse(first, CONFIG_COMMAND_LINE, &c, NULL, NULL);
    config_parse(second, CONFIG_OURS, &c, NULL, NULL);
    assert_int_equal(c.argument_count, 1);
    assert_string_equal(c.arguments[0], "d");
    assert_null(c.arguments[1]);
}

static void reads_the_agents_line(void **state)
{
    char line[] =
        "generation=3 id=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0 name=fw time=1700000000.000000005 mac0=02:00:00:00:00:07 "
        "mac9=02:00:00:00:00:08 seed=000102030405060708090a0b0c0d0e0f future=1 parameters=17";
    char bad[] = "generation=1 name=fw", large[] = "parameters=32768";
    struct config c = {0};
    size_t size = 0;

    (void)state;
    assert_int_equal(config_parse_identity(line, &c, &size), 0);
    assert_int_equal(size, 17);
    assert_int_equal(c.generation, 3);
    assert_string_equal(c.machine_id, "0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    assert_string_equal(c.hostname, "fw");
    assert_int_equal(c.time_ns, UINT64_C(1700000000000000005));
    assert_int_equal(c.nics[0].mac[5], 7);
    assert_int_equal(c.seed_size, 16);
    assert_int_not_equal(config_parse_identity(bad, &c, &size), 0);
    assert_int_not_equal(config_parse_identity(large, &c, &size), 0);
    assert_int_equal(size, 17);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_the_unikernel_takes),
        cmocka_unit_test(decodes_and_keeps_keys),
        cmocka_unit_test(refuses_what_is_wrong),
        cmocka_unit_test(leaves_the_kernels_words_alone),
        cmocka_unit_test(holds_at_its_limits),
        cmocka_unit_test(the_last_application_counts),
        cmocka_unit_test(reads_the_agents_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
