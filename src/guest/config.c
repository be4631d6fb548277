/* SPDX-License-Identifier: Apache-2.0 */
/* The parser of guest metadata: words, each with its own small reader in one table. */
#include "guest/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

typedef const char *reader_fn(struct config *config, struct config_nic *nic, char *value); /* NULL, or the reason */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %XX stands for one byte, so that a value can hold a space. Never %00: what follows would be lost without a word. */
static bool decode(char *word)
{
    char *to = word;

    for (const char *from = word; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_digit(from[1]);
        int low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || high + low == 0)
            return false;
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = '\0';
    return true;
}

static bool read_number(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t n = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        unsigned digit = (unsigned)(*text - '0');
        if (n > (max - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *ret = n;
    return true;
}

/* Exactly count bytes, two digits each; separator between them unless '\0'. */
static bool read_hex(const char *text, char separator, uint8_t *ret, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int high = hex_digit(text[0]);
        int low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0)
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
        text += 2;
        if (separator && i + 1 < count && *text++ != separator)
            return false;
    }
    return *text == '\0';
}

/* ADDRESS or ADDRESS/PREFIX; family 4 or 6, 0: either. */
static bool read_address(char *text, int family, bool prefix_wanted, struct config_address *ret)
{
    struct config_address address = {0};
    char *slash = strchr(text, '/');
    uint64_t prefix;

    if (prefix_wanted != (slash != NULL))
        return false;
    if (slash)
        *slash = '\0';
    if (family != 6 && inet_pton(AF_INET, text, address.ip) == 1)
        address.family = 4;
    else if (family != 4 && inet_pton(AF_INET6, text, address.ip) == 1)
        address.family = 6;
    else
        return false;
    if (slash) {
        if (!read_number(slash + 1, address.family == 4 ? 32 : 128, &prefix))
            return false;
        address.prefix = (uint8_t)prefix;
    }
    *ret = address;
    return true;
}

static const char *add_address(struct config_nic *nic, char *value, int family)
{
    struct config_address address;

    if (nic->address_count == CONFIG_ADDRESS_MAX)
        return "more addresses than an interface can have here";
    if (!read_address(value, family, true, &address))
        return family == 4 ? "not an IPv4 address with prefix, as 198.18.0.2/24"
                           : "not an IPv6 address with prefix, as fd00::2/64";
    nic->addresses[nic->address_count++] = address;
    return NULL;
}

static const char *take_ip4(struct config *config, struct config_nic *nic, char *value)
{
    (void)config;
    return add_address(nic, value, 4);
}

static const char *take_ip6(struct config *config, struct config_nic *nic, char *value)
{
    (void)config;
    return add_address(nic, value, 6);
}

static const char *take_gw4(struct config *config, struct config_nic *nic, char *value)
{
    (void)config;
    return read_address(value, 4, false, &nic->gateway4) ? NULL : "not an IPv4 address";
}

static const char *take_gw6(struct config *config, struct config_nic *nic, char *value)
{
    (void)config;
    return read_address(value, 6, false, &nic->gateway6) ? NULL : "not an IPv6 address";
}

static const char *read_mac(const char *value, uint8_t ret[6], bool *ret_has)
{
    uint8_t mac[6];

    if (!read_hex(value, ':', mac, sizeof(mac)) || (mac[0] & 1))
        return "not an Ethernet address of one station";
    memcpy(ret, mac, sizeof(mac));
    *ret_has = true;
    return NULL;
}

static const char *take_mac(struct config *config, struct config_nic *nic, char *value)
{
    (void)config;
    return read_mac(value, nic->mac, &nic->has_mac);
}

static const char *take_gwmac(struct config *config, struct config_nic *nic, char *value)
{
    (void)config;
    return read_mac(value, nic->gateway_mac, &nic->has_gateway_mac);
}

static const char *take_mtu(struct config *config, struct config_nic *nic, char *value)
{
    uint64_t mtu;

    (void)config;
    if (!read_number(value, 65535, &mtu) || mtu < 576)
        return "not a number from 576 to 65535";
    nic->mtu = (uint32_t)mtu;
    return NULL;
}

static const char *take_dns(struct config *config, struct config_nic *nic, char *value)
{
    (void)nic;
    if (config->dns_count == CONFIG_DNS_MAX)
        return "more name servers than are ever asked";
    if (!read_address(value, 0, false, &config->dns[config->dns_count]))
        return "not an address";
    config->dns_count++;
    return NULL;
}

/* Letters, digits and what more says, not beginning with '-' or '.': goes into files and file names. */
static bool plain_name(const char *value, size_t size, const char *more)
{
    size_t n = strlen(value);

    if (n == 0 || n >= size || *value == '-' || *value == '.')
        return false;
    for (; *value; value++) {
        if (!isalnum((unsigned char)*value) && !strchr(more, *value))
            return false;
    }
    return true;
}

static const char *take_hostname(struct config *config, struct config_nic *nic, char *value)
{
    (void)nic;
    if (!plain_name(value, sizeof(config->hostname), "-."))
        return "not a host name of at most 64 letters, digits, '-' and '.'";
    strcpy(config->hostname, value);
    return NULL;
}

static const char *take_machine_id(struct config *config, struct config_nic *nic, char *value)
{
    uint8_t bytes[16];

    (void)nic;
    if (!read_hex(value, '\0', bytes, sizeof(bytes)))
        return "not 32 hexadecimal digits";
    for (size_t i = 0; i < 32; i++)
        config->machine_id[i] = (char)tolower((unsigned char)value[i]);
    config->machine_id[32] = '\0';
    return NULL;
}

static const char *take_ssh_user(struct config *config, struct config_nic *nic, char *value)
{
    (void)nic;
    if (!plain_name(value, sizeof(config->ssh_user), "-_"))
        return "not a user name of at most 32 letters, digits, '-' and '_'";
    strcpy(config->ssh_user, value);
    return NULL;
}

/* A line of authorized_keys. That it is one line is all that must be so: the ssh server reads the rest. */
static const char *take_ssh_key(struct config *config, struct config_nic *nic, char *value)
{
    (void)nic;
    if (config->key_count == CONFIG_KEY_MAX)
        return "more keys than fit";
    for (const char *c = value; *c; c++) {
        if (iscntrl((unsigned char)*c))
            return "a control character in a key";
    }
    if (!*value)
        return "no key";
    config->keys[config->key_count++] = value;
    return NULL;
}

static const char *take_directory(struct config *config, struct config_nic *nic, char *value)
{
    (void)nic;
    if (*value != '/')
        return "not an absolute path";
    config->directory = value;
    return NULL;
}

static const char *take_user(struct config *config, struct config_nic *nic, char *value)
{
    uint64_t uid, gid;
    char *colon = strchr(value, ':');

    (void)nic;
    if (colon)
        *colon = '\0';
    if (!read_number(value, 0xfffffffe, &uid) || !read_number(colon ? colon + 1 : value, 0xfffffffe, &gid))
        return "not UID or UID:GID in numbers";
    config->uid = (uint32_t)uid;
    config->gid = (uint32_t)gid;
    config->has_user = true;
    return NULL;
}

static const char *take_seed(struct config *config, struct config_nic *nic, char *value)
{
    size_t n = strlen(value);
    uint8_t seed[CONFIG_SEED_MAX];

    (void)nic;
    if (n < 32 || n % 2 || n / 2 > sizeof(seed) || !read_hex(value, '\0', seed, n / 2))
        return "not 16 to 64 bytes as hexadecimal digits";
    memcpy(config->seed, seed, n / 2);
    config->seed_size = (unsigned)(n / 2);
    return NULL;
}

static const char *take_time(struct config *config, struct config_nic *nic, char *value)
{
    (void)nic;
    return read_number(value, INT64_MAX, &config->time_ns) ? NULL : "not nanoseconds since 1970";
}

/* value is the whole "NAME=VALUE". */
static const char *take_env(struct config *config, char *value)
{
    char *equals = strchr(value, '=');
    size_t n;

    if (!equals || equals == value)
        return "not env.NAME=VALUE";
    n = (size_t)(equals - value);
    for (unsigned i = 0; i < config->env_count; i++) {
        if (strncmp(config->env[i], value, n + 1) == 0) {
            config->env[i] = value;
            return NULL;
        }
    }
    if (config->env_count == CONFIG_ENV_MAX)
        return "more variables than fit";
    config->env[config->env_count++] = value;
    return NULL;
}

static const struct {
    const char *name;
    bool of_nic; /* also as ethN.NAME */
    reader_fn *read;
} readers[] = {
    {"ip4", true, take_ip4},
    {"ip6", true, take_ip6},
    {"gw4", true, take_gw4},
    {"gw6", true, take_gw6},
    {"gwmac", true, take_gwmac},
    {"mac", true, take_mac},
    {"mtu", true, take_mtu},
    {"dns", false, take_dns},
    {"hostname", false, take_hostname},
    {"machine-id", false, take_machine_id},
    {"ssh.user", false, take_ssh_user},
    {"ssh.key", false, take_ssh_key},
    {"directory", false, take_directory},
    {"user", false, take_user},
    {"seed", false, take_seed},
    {"time", false, take_time},
};

/* "ethN." at the beginning: the rest, and which; NULL when N is none of ours. Without it: the word, and the first. */
static char *split_nic(char *name, unsigned *ret_nic)
{
    *ret_nic = 0;
    if (strncmp(name, "eth", 3) != 0 || name[3] < '0' || name[3] > '9' || name[4] != '.')
        return name;
    *ret_nic = (unsigned)(name[3] - '0');
    return *ret_nic < CONFIG_NIC_MAX ? name + 5 : NULL;
}

static const char *take_word(struct config *config, char *word, enum config_source source)
{
    static const char unknown[] = "no such name";
    char *equals = strchr(word, '=');
    unsigned nic;
    char *name;

    if (strncmp(word, "env.", 4) == 0)
        return decode(word + 4) ? take_env(config, word + 4) : "a % without two digits (not 00)";
    if (!equals || !(name = split_nic(word, &nic)))
        return source == CONFIG_OURS ? unknown : NULL;
    for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
        size_t n = strlen(readers[i].name);
        if (name + n != equals || memcmp(name, readers[i].name, n) != 0 || (name != word && !readers[i].of_nic))
            continue;
        if (!decode(equals + 1))
            return "a % without two digits (not 00)";
        return readers[i].read(config, &config->nics[nic], equals + 1);
    }
    return source == CONFIG_OURS ? unknown : NULL;
}

static const char *take_argument(struct config *config, char *word)
{
    if (config->argument_count == CONFIG_ARGUMENT_MAX)
        return "more arguments than fit";
    if (!decode(word))
        return "a % without two digits (not 00)";
    config->arguments[config->argument_count++] = word;
    return NULL;
}

unsigned config_parse(char *text, enum config_source source, struct config *config, config_complain_fn *complain,
                      void *context)
{
    bool arguments = false;
    unsigned wrong = 0;

    for (char *at = text; *at;) {
        char *word = at;
        const char *reason;

        at += strcspn(at, " \t\r\n");
        if (*at)
            *at++ = '\0';
        if (!*word)
            continue;
        if (!arguments && strcmp(word, "--") == 0) {
            arguments = true;
            config->argument_count = 0; /* the last source that names an application decides all of it */
            continue;
        }
        reason = arguments ? take_argument(config, word) : take_word(config, word, source);
        if (reason) {
            wrong++;
            if (complain)
                complain(context, word, reason);
        }
    }
    config->arguments[config->argument_count] = NULL;
    config->env[config->env_count] = NULL;
    return wrong;
}

/* Seconds with or without a fraction of at most nine digits. */
static bool read_time(char *text, uint64_t *ret_ns)
{
    char *dot = strchr(text, '.');
    uint64_t seconds, fraction = 0;

    if (dot) {
        size_t digits = strlen(dot + 1);
        if (digits == 0 || digits > 9 || !read_number(dot + 1, 999999999, &fraction))
            return false;
        for (; digits < 9; digits++)
            fraction *= 10;
        *dot = '\0';
    }
    if (!read_number(text, INT64_MAX / 1000000000 - 1, &seconds))
        return false;
    *ret_ns = seconds * 1000000000 + fraction;
    return true;
}

/* "xxxxxxxx-xxxx-...": the machine id is the instance's id without its dashes. */
static void take_uuid(struct config *config, const char *value)
{
    char plain[33];
    size_t n = 0;

    for (; *value; value++) {
        if (*value == '-')
            continue;
        if (n == 32)
            return;
        plain[n++] = *value;
    }
    plain[n] = '\0';
    take_machine_id(config, NULL, plain);
}

static void take_identity_word(struct config *config, const char *name, char *value)
{
    if (strcmp(name, "generation") == 0)
        read_number(value, UINT64_MAX, &config->generation);
    else if (strcmp(name, "id") == 0)
        take_uuid(config, value);
    else if (strcmp(name, "name") == 0)
        take_hostname(config, NULL, value);
    else if (strcmp(name, "time") == 0)
        read_time(value, &config->time_ns);
    else if (strcmp(name, "seed") == 0)
        take_seed(config, NULL, value);
    else if (strncmp(name, "mac", 3) == 0 && name[3] >= '0' && name[3] < '0' + CONFIG_NIC_MAX && !name[4])
        take_mac(config, &config->nics[name[3] - '0'], value);
    /* a later platform may say more: not for us */
}

int config_parse_identity(char *line, struct config *config, size_t *ret_parameters)
{
    uint64_t size = UINT64_MAX;
    char *rest;

    for (char *word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        if (!equals)
            continue;
        *equals = '\0';
        if (strcmp(word, "parameters") != 0)
            take_identity_word(config, word, equals + 1);
        else if (!read_number(equals + 1, CONFIG_TEXT_MAX - 1, &size))
            return -EINVAL;
    }
    if (size == UINT64_MAX)
        return -EINVAL;
    *ret_parameters = size;
    return 0;
}
