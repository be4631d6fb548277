/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest is told about itself, as docs/formats/guest-metadata.md defines it: words "name=value", then "--" and
 * the application's arguments. Read from the kernel's command line, a metadata disk or the agent; each may come from an
 * operator, so nothing in it is trusted to be well-formed. Pure: text in, struct out. Built into guest-init, and on the
 * host for tests and the fuzz target.
 */
#ifndef CORACLE_GUEST_CONFIG_H
#define CORACLE_GUEST_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CONFIG_NIC_MAX = 8,
    CONFIG_ADDRESS_MAX = 8, /* of one interface */
    CONFIG_DNS_MAX = 3,     /* what a resolver reads */
    CONFIG_KEY_MAX = 32,
    CONFIG_ENV_MAX = 64,
    CONFIG_ARGUMENT_MAX = 256,
    CONFIG_HOSTNAME_SIZE = 65,
    CONFIG_USER_SIZE = 33,
    CONFIG_SEED_MAX = 64,
    CONFIG_TEXT_MAX = 32768, /* one source, with its terminator: the first sectors of a metadata disk */
};

#define CONFIG_DISK_MAGIC "coracle-metadata 1\n"

struct config_address {
    uint8_t family; /* 4, 6; 0: none */
    uint8_t prefix;
    uint8_t ip[16];
};

struct config_nic {
    struct config_address addresses[CONFIG_ADDRESS_MAX];
    unsigned address_count;
    struct config_address gateway4, gateway6;
    bool has_mac, has_gateway_mac;
    uint8_t mac[6], gateway_mac[6];
    uint32_t mtu; /* 0: as it is */
};

/* Pointers go into the texts that were parsed: these must live as long. */
struct config {
    struct config_nic nics[CONFIG_NIC_MAX];
    struct config_address dns[CONFIG_DNS_MAX];
    unsigned dns_count;
    char hostname[CONFIG_HOSTNAME_SIZE];
    char machine_id[33];
    char ssh_user[CONFIG_USER_SIZE];
    const char *keys[CONFIG_KEY_MAX];
    unsigned key_count;
    const char *directory; /* of the application; NULL: / */
    bool has_user;
    uint32_t uid, gid; /* of the application */
    uint8_t seed[CONFIG_SEED_MAX];
    unsigned seed_size;
    uint64_t time_ns;                    /* since 1970; 0: not told */
    uint64_t generation;                 /* of the memory: another one than before means restored from a snapshot */
    const char *env[CONFIG_ENV_MAX + 1]; /* NULL-terminated */
    unsigned env_count;
    const char *arguments[CONFIG_ARGUMENT_MAX + 1]; /* NULL-terminated */
    unsigned argument_count;
};

enum config_source {
    CONFIG_COMMAND_LINE, /* unknown names are the kernel's or the monitor's */
    CONFIG_OURS,         /* unknown names are complained of */
};

/* Called for each word that was not taken, with the reason. NULL: nobody cares. */
typedef void config_complain_fn(void *context, const char *word, const char *reason);

/*
 * Adds what text says to *config, which begins as zeroes. text is changed in place. A word that is wrong is complained
 * of and left out, the rest is taken: a guest with one bad address answers at its others, and its log says what
 * happened. Of names that can stand once the last counts. Returns how many words were wrong.
 */
unsigned config_parse(char *text, enum config_source source, struct config *config, config_complain_fn *complain,
                      void *context);

/*
 * The same for the agent's line "identity 1 name=value ..." (docs/formats/guest-agent.md) without its first two words:
 * generation, id, name, time, mac0 to mac7, seed, parameters. *ret_parameters is how many bytes of parameters follow
 * the line; they go to config_parse(). -EINVAL: that number is missing or above CONFIG_TEXT_MAX, the stream cannot be
 * followed.
 */
int config_parse_identity(char *line, struct config *config, size_t *ret_parameters);

#endif
