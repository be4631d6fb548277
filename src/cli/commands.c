/* SPDX-License-Identifier: Apache-2.0 */
/* The list of all commands and of the options every command takes; the only place that names them all. */
#include <stdio.h>
#include <string.h>

#include "base/suggest.h"
#include "cli/cli.h"
#include "cli/commands.h"

const struct option_spec global_options[] = {
    {"host", 'H', "ADDRESS",
     "daemon to talk to: unix:///path or https://host:port (default unix:///run/coracle/api.sock)"},
    {"cert", 0, "FILE", "client certificate (PEM) for https", WORD_FILE},
    {"key", 0, "FILE", "key of the client certificate (PEM)", WORD_FILE},
    {"cacert", 0, "FILE", "authority that signed the daemon's certificate (PEM)", WORD_FILE},
    {"token", 0, "TOKEN", "bearer token; CORACLE_TOKEN keeps it out of sight of other users"},
    {"json", 0, NULL, "print the interface's JSON, errors too"},
    {"explain", 0, NULL, "print the requests that would be sent, send none that changes anything"},
    {"quiet", 'q', NULL, "print names or ids only, no sentences"},
    {"color", 0, "WHEN", "colours", WORD_LIST, "auto|never|always"},
    {"help", 'h', NULL, "explain this command"},
    {"version", 0, NULL, "print the version of this program"},
    {NULL},
};

const struct command *const all_commands[] = {
    &command_run_,
    &command_create,
    &command_start,
    &command_stop,
    &command_restart,
    &command_pause,
    &command_resume,
    &command_update,
    &command_kill,
    &command_rm,
    &command_wait,
    &command_ps,
    &command_inspect,
    &command_logs,
    &command_exec,
    &command_attach,
    &command_top,
    &command_stats,
    &command_events,
    &command_operation_ls,
    &command_operation_inspect,
    &command_operation_cancel,
    &command_image_ls,
    &command_image_import,
    &command_image_pull,
    &command_image_inspect,
    &command_image_rm,
    &command_build,
    &command_pack,
    &command_snapshot_ls,
    &command_snapshot_create,
    &command_snapshot_restore,
    &command_snapshot_rm,
    &command_network_ls,
    &command_network_create,
    &command_network_inspect,
    &command_network_rm,
    &command_plan,
    &command_apply,
    &command_doctor,
    &command_up,
    &command_down,
    &command_bench,
    &command_version,
    &command_completion,
    &command_help,
    NULL,
};

static bool alias_is(const char *aliases, const char *words)
{
    size_t n = strlen(words);

    for (const char *p = aliases; p && *p; p += strcspn(p, "|"), p += *p == '|')
        if (strcspn(p, "|") == n && !strncmp(p, words, n))
            return true;
    return false;
}

static const struct command *find_exact(const char *words)
{
    for (size_t i = 0; all_commands[i]; i++)
        if (!strcmp(all_commands[i]->name, words) || alias_is(all_commands[i]->aliases, words))
            return all_commands[i];
    return NULL;
}

const struct command *command_find(char *const *argv, int argc, int *ret_used)
{
    const struct command *found;
    char two[128];

    if (argc > 1) {
        snprintf(two, sizeof(two), "%s %s", argv[0], argv[1]);
        found = find_exact(two);
        if (found) {
            *ret_used = 2;
            return found;
        }
    }
    *ret_used = 1;
    return argc > 0 ? find_exact(argv[0]) : NULL;
}

const char *command_suggest(const char *word)
{
    const char *best = NULL, *longer = NULL;

    for (size_t i = 0; all_commands[i]; i++) {
        const struct command *c = all_commands[i];

        suggest_offer(word, c->name, &best);
        if (!longer && strlen(word) >= 3 && !strncmp(c->name, word, strlen(word)))
            longer = c->name;
        for (const char *p = c->aliases; p && *p; p += strcspn(p, "|"), p += *p == '|') {
            const char *near = best;
            char alias[64];

            snprintf(alias, sizeof(alias), "%.*s", (int)strcspn(p, "|"), p);
            suggest_offer(word, alias, &near);
            /* An alias is named by the command it stands for: that string outlives this loop. */
            if (near == alias)
                best = c->name;
        }
    }
    return best ? best : longer;
}
