/* SPDX-License-Identifier: Apache-2.0 */
/* Guest metadata from three sources: the first byte says which. What was taken must be whole: strings end inside the
 * text, counts are within their arrays, nothing has a control character where a file would break. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "guest/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct config *c)
{
    volatile size_t sum = strlen(c->hostname) + strlen(c->ssh_user) + strlen(c->machine_id);

    if (c->argument_count > CONFIG_ARGUMENT_MAX || c->env_count > CONFIG_ENV_MAX || c->key_count > CONFIG_KEY_MAX ||
        c->dns_count > CONFIG_DNS_MAX || c->seed_size > CONFIG_SEED_MAX || strpbrk(c->hostname, "\n/ ") ||
        strpbrk(c->ssh_user, "\n:/ "))
        abort();
    for (unsigned i = 0; i < c->argument_count; i++)
        sum += strlen(c->arguments[i]);
    for (unsigned i = 0; i < c->env_count; i++)
        sum += strlen(c->env[i]);
    for (unsigned i = 0; i < c->key_count; i++) {
        sum += strlen(c->keys[i]);
        if (strchr(c->keys[i], '\n'))
            abort();
    }
    for (unsigned i = 0; i < CONFIG_NIC_MAX; i++) {
        if (c->nics[i].address_count > CONFIG_ADDRESS_MAX || (c->nics[i].mac[0] & 1))
            abort();
    }
    (void)sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config = {0};
    size_t parameters = 0;
    char *text;

    if (size == 0 || size > CONFIG_TEXT_MAX)
        return 0;
    text = malloc(size);
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    if (data[0] % 3 < 2)
        config_parse(text, data[0] % 3 ? CONFIG_OURS : CONFIG_COMMAND_LINE, &config, NULL, NULL);
    else if (config_parse_identity(text, &config, &parameters) == 0 && parameters >= CONFIG_TEXT_MAX)
        abort();
    check(&config);
    free(text);
    return 0;
}
