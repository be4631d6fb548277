/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cloud-init reads, made from the parsed words. All of it is JSON, which is YAML too: a value cannot break out of
 * its quotes. Used by cidata_image().
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "guest/cidata.h"
#include "guest/config.h"

#define UNIT "coracle-application.service"

void cidata_meta_data(const struct config *config, const char *instance_id, struct buffer *ret)
{
    buffer_text(ret, "{\"instance-id\": ");
    buffer_json(ret, instance_id);
    if (*config->hostname) {
        buffer_text(ret, ", \"local-hostname\": ");
        buffer_json(ret, config->hostname);
    }
    buffer_text(ret, "}\n");
}

static void add_address(const struct config_address *address, bool prefix, struct buffer *ret)
{
    char text[INET6_ADDRSTRLEN];

    inet_ntop(address->family == 4 ? AF_INET : AF_INET6, address->ip, text, sizeof(text));
    buffer_printf(ret, prefix ? "\"%s/%u\"" : "\"%s\"", text, address->prefix);
}

static void add_routes(const struct config_nic *nic, struct buffer *ret)
{
    buffer_text(ret, ", \"routes\": [");
    if (nic->gateway4.family) {
        buffer_text(ret, "{\"to\": \"0.0.0.0/0\", \"via\": ");
        add_address(&nic->gateway4, false, ret);
        buffer_text(ret, nic->gateway6.family ? "}, " : "}");
    }
    if (nic->gateway6.family) {
        buffer_text(ret, "{\"to\": \"::/0\", \"via\": ");
        add_address(&nic->gateway6, false, ret);
        buffer_text(ret, "}");
    }
    buffer_text(ret, "]");
}

static void add_resolver(const struct config *config, struct buffer *ret)
{
    buffer_text(ret, ", \"nameservers\": {\"addresses\": [");
    for (unsigned i = 0; i < config->dns_count; i++) {
        buffer_text(ret, i ? ", " : "");
        add_address(&config->dns[i], false, ret);
    }
    buffer_text(ret, "]}");
}

/* The device is found by its MAC where that is known; its name is the image's own affair otherwise. */
static void add_nic(const struct config *config, unsigned number, struct buffer *ret)
{
    const struct config_nic *nic = &config->nics[number];
    const uint8_t *m = nic->mac;

    buffer_printf(ret, "\"eth%u\": {\"dhcp4\": false, \"dhcp6\": false, \"accept-ra\": false", number);
    if (nic->has_mac)
        buffer_printf(ret, ", \"match\": {\"macaddress\": \"%02x:%02x:%02x:%02x:%02x:%02x\"}, \"set-name\": \"eth%u\"",
                      m[0], m[1], m[2], m[3], m[4], m[5], number);
    if (nic->mtu)
        buffer_printf(ret, ", \"mtu\": %u", nic->mtu);
    buffer_text(ret, ", \"addresses\": [");
    for (unsigned i = 0; i < nic->address_count; i++) {
        buffer_text(ret, i ? ", " : "");
        add_address(&nic->addresses[i], true, ret);
    }
    buffer_text(ret, "]");
    if (nic->gateway4.family || nic->gateway6.family)
        add_routes(nic, ret);
    if (config->dns_count)
        add_resolver(config, ret);
    buffer_text(ret, "}");
}

void cidata_network_config(const struct config *config, struct buffer *ret)
{
    bool any = false;

    buffer_text(ret, "{\"version\": 2, \"ethernets\": {");
    for (unsigned i = 0; i < CONFIG_NIC_MAX; i++) {
        const struct config_nic *nic = &config->nics[i];
        if (!nic->address_count && !nic->has_mac && !nic->mtu)
            continue;
        buffer_text(ret, any ? ", " : "");
        add_nic(config, i, ret);
        any = true;
    }
    buffer_text(ret, "}}\n");
}

/* One word of a systemd unit: quoted, and what has a meaning there is made plain; '$' has one in command lines only. */
static void add_unit_word(const char *word, bool command, struct buffer *unit)
{
    buffer_char(unit, '"');
    for (; *word; word++) {
        if (*word == '"' || *word == '\\')
            buffer_char(unit, '\\');
        if (*word == '%' || (command && *word == '$'))
            buffer_char(unit, *word);
        if ((unsigned char)*word < ' ')
            buffer_printf(unit, "\\x%02x", (unsigned)(unsigned char)*word);
        else
            buffer_char(unit, *word);
    }
    buffer_char(unit, '"');
}

static void make_unit(const struct config *config, struct buffer *unit)
{
    buffer_text(unit, "[Unit]\nDescription=The application of this instance\nAfter=network-online.target\n"
                      "Wants=network-online.target\n[Service]\nStandardOutput=journal+console\n"
                      "StandardError=journal+console\nRestart=no\n");
    if (config->has_user)
        buffer_printf(unit, "User=%u\nGroup=%u\n", config->uid, config->gid);
    if (config->directory) {
        buffer_text(unit, "WorkingDirectory=");
        for (const char *c = config->directory; *c; c++) {
            if (*c == '%')
                buffer_char(unit, '%');
            buffer_char(unit, (unsigned char)*c < ' ' ? '?' : *c);
        }
        buffer_char(unit, '\n');
    }
    for (unsigned i = 0; i < config->env_count; i++) {
        buffer_text(unit, "Environment=");
        add_unit_word(config->env[i], false, unit);
        buffer_char(unit, '\n');
    }
    buffer_text(unit, "ExecStart=");
    for (unsigned i = 0; i < config->argument_count; i++) {
        buffer_text(unit, i ? " " : "");
        add_unit_word(config->arguments[i], true, unit);
    }
    buffer_text(unit, "\n[Install]\nWantedBy=multi-user.target\n");
}

static void add_keys(const struct config *config, struct buffer *ret)
{
    buffer_text(ret, "[");
    for (unsigned i = 0; i < config->key_count; i++) {
        buffer_text(ret, i ? ", " : "");
        buffer_json(ret, config->keys[i]);
    }
    buffer_text(ret, "]");
}

/* Without a user of our own the keys are the image's default user's; "root" is let in where cloud-init would not. */
static void add_users(const struct config *config, struct buffer *ret)
{
    bool root = strcmp(config->ssh_user, "root") == 0;

    buffer_text(ret, ", \"ssh_authorized_keys\": ");
    add_keys(config, ret);
    if (root)
        buffer_text(ret, ", \"disable_root\": false");
    if (!*config->ssh_user)
        return;
    buffer_text(ret, ", \"users\": [\"default\", {\"name\": ");
    buffer_json(ret, config->ssh_user);
    if (!root)
        buffer_text(ret, ", \"shell\": \"/bin/bash\", \"sudo\": \"ALL=(ALL) NOPASSWD:ALL\"");
    buffer_text(ret, ", \"ssh_authorized_keys\": ");
    add_keys(config, ret);
    buffer_text(ret, "}]");
}

static void add_application(const struct config *config, struct buffer *ret)
{
    auto_buffer struct buffer unit = {0};

    make_unit(config, &unit);
    if (unit.failed) {
        ret->failed = true;
        return;
    }
    buffer_text(ret, ", \"write_files\": [{\"path\": \"/etc/systemd/system/" UNIT "\", \"content\": ");
    buffer_json(ret, unit.data);
    buffer_text(ret,
                "}], \"runcmd\": [[\"systemctl\", \"daemon-reload\"], [\"systemctl\", \"enable\", \"--now\", \"" UNIT
                "\"]]");
}

void cidata_user_data(const struct config *config, struct buffer *ret)
{
    buffer_text(ret, "#cloud-config\n{\"ssh_pwauth\": false, \"ssh_deletekeys\": true");
    if (config->key_count)
        add_users(config, ret);
    if (config->argument_count)
        add_application(config, ret);
    buffer_text(ret, "}\n");
}
