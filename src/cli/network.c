/* SPDX-License-Identifier: Apache-2.0 */
/* network: the virtual links instances join. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/table.h"

enum { COLUMN_COUNT = 6 };

static void print_table(const struct cli *cli, const json_t *items)
{
    static const struct column columns[] = {{"NAME", 0},           {"IPV4", 0},   {"IPV6", 0},
                                            {"MTU", COLUMN_RIGHT}, {"UPLINK", 0}, {"INSTANCES", COLUMN_RIGHT}};
    struct table *table = table_new(cli, columns, COLUMN_COUNT, true);
    json_t *n;
    size_t i;

    json_array_foreach(items, i, n)
    {
        char *cells[COLUMN_COUNT] = {
            text_dup(text_member(n, "name")),
            text_json(json_object_get(n, "ipv4"), "-"),
            text_json(json_object_get(n, "ipv6"), "-"),
            text_json(json_object_get(n, "mtu"), "-"),
            text_dup(json_is_true(json_object_get(n, "uplink")) ? "yes" : "no"),
            text_json(json_object_get(n, "instances"), NULL),
        };

        table_row(table, cells);
    }
    table_print(table);
}

static int run_ls(struct cli *cli, const struct args *args, struct error **err)
{
    return list_items(cli, "/v1/networks", "name", print_table, err);
}

static int create_body(const struct args *args, json_t **ret, struct error **err)
{
    json_t *body = json_pack("{s:s}", "name", args->words[0]);
    uint64_t mtu;

    if (args_get(args, "ipv4"))
        json_object_set_new(body, "ipv4", json_string(args_get(args, "ipv4")));
    if (args_get(args, "ipv6"))
        json_object_set_new(body, "ipv6", json_string(args_get(args, "ipv6")));
    if (args_flag(args, "uplink"))
        json_object_set_new(body, "uplink", json_true());
    if (args_get(args, "mtu")) {
        if (text_parse_u64(args_get(args, "mtu"), "--mtu", &mtu, err) < 0) {
            json_decref(body);
            return -EINVAL;
        }
        json_object_set_new(body, "mtu", json_integer((json_int_t)mtu));
    }
    *ret = body;
    return 0;
}

static int run_create(struct cli *cli, const struct args *args, struct error **err)
{
    json_t *body, *network = NULL;
    int r = create_body(args, &body, err);

    if (r == 0) {
        r = api_call(cli, "POST", "/v1/networks", body, &network, err);
        json_decref(body);
    }
    if (r < 0 || cli->explain)
        return r;
    if (cli->json) {
        print_json(network);
    } else {
        auto_free char *six = text_json(json_object_get(network, "ipv6"), "no IPv6");
        auto_free char *sentence =
            text_printf("network %s created: %s, %s", args->words[0], text_member(network, "ipv4"), six);

        report_done(cli, args->words[0], sentence);
    }
    json_decref(network);
    return 0;
}

static int run_inspect(struct cli *cli, const struct args *args, struct error **err)
{
    auto_free char *path = text_path("/v1/networks/%s", args->words[0]);
    json_t *network = NULL, *items;
    int r = api_get(cli, path, &network, err);

    if (r < 0 || cli->explain)
        return r;
    items = json_pack("[O]", network);
    if (cli->json)
        print_json(network);
    else
        print_table(cli, items);
    json_decref(items);
    json_decref(network);
    return 0;
}

static int run_rm(struct cli *cli, const struct args *args, struct error **err)
{
    return remove_named(cli, args, "/v1/networks", "network");
}

const struct command command_network_ls = {
    .name = "network ls",
    .aliases = "networks|network list|networks ls",
    .section = "Images and networks",
    .synopsis = "",
    .summary = "List networks",
    .text = "A network is a virtual link (a bridge in the fabric's own network namespace) with its addresses.",
    .run = run_ls,
};

static const struct option_spec create_options[] = {
    {"ipv4", 0, "CIDR", "IPv4 range (default: a free one of the pool)", .alias = "subnet"},
    {"ipv6", 0, "CIDR", "IPv6 range (default: a free one of the pool)"},
    {"mtu", 0, "N", "largest packet"},
    {"uplink", 0, NULL, "joined to the host's uplink (host.conf names it)"},
    {NULL},
};

const struct command command_network_create = {
    .name = "network create",
    .section = "Images and networks",
    .synopsis = "[OPTIONS] NAME",
    .summary = "Create a network",
    .text = "Instances join it with run --network NAME.",
    .examples = "  coracle network create --ipv4 198.18.7.0/24 service",
    .options = create_options,
    .min_words = 1,
    .max_words = 1,
    .run = run_create,
};

const struct command command_network_inspect = {
    .name = "network inspect",
    .aliases = "network show",
    .section = "Images and networks",
    .synopsis = "NAME",
    .summary = "Show one network",
    .text = "Its address ranges, its largest packet and how many instances are on it.",
    .words = WORD_NETWORK,
    .min_words = 1,
    .max_words = 1,
    .run = run_inspect,
};

const struct command command_network_rm = {
    .name = "network rm",
    .aliases = "network remove|network delete",
    .section = "Images and networks",
    .synopsis = "NAME...",
    .summary = "Remove networks",
    .text = "Refused while an instance is on it.",
    .words = WORD_NETWORK,
    .min_words = 1,
    .max_words = -1,
    .run = run_rm,
};
