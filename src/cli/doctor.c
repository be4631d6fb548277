/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: what this host can run, under which accelerator, and what would help where it cannot. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/doctor.h"

static const char *const result_words[] = {"ok", "warn", "fail"};

void finding_add(struct findings *findings, const char *check, enum finding_result result, const char *remedy,
                 const char *detail, ...)
{
    auto_free char *text = NULL;
    va_list ap;

    va_start(ap, detail);
    if (vasprintf(&text, detail, ap) < 0)
        text = text_dup("");
    va_end(ap);
    findings->failed |= result == FINDING_FAIL;
    json_array_append_new(findings->list, json_pack("{s:s, s:s, s:s, s:s?}", "check", check, "result",
                                                    result_words[result], "detail", text, "try", remedy));
}

static void add_technologies(struct findings *f, const json_t *host)
{
    size_t i, available = 0;
    json_t *t;

    json_array_foreach(json_object_get(host, "technologies"), i, t)
    {
        const char *name = text_member(t, "name"), *help = text_member(t, "what_would_help");

        if (json_is_true(json_object_get(t, "available"))) {
            finding_add(f, name, FINDING_OK, NULL, "runs here, accelerator %s (driver %s)",
                        text_member(t, "accelerator"), text_member(t, "driver"));
            available += strcmp(text_member(t, "driver"), "fake") != 0;
        } else {
            finding_add(f, name, FINDING_WARN, *help ? help : NULL, "cannot run here: %s", text_member(t, "why_not"));
        }
    }
    /* Without the launcher nobody knows yet, and that is said already. */
    if (!available && json_is_true(json_object_get(json_object_get(host, "launcher"), "connected")))
        finding_add(f, "technologies", FINDING_FAIL, "see the lines above",
                    "this host can run none but the simulated one");
}

static void add_host(struct findings *f, const json_t *host)
{
    const json_t *launcher = json_object_get(host, "launcher"), *pool = json_object_get(host, "pool");
    auto_free char *depth = text_json(json_object_get(pool, "depth"), NULL);
    auto_free char *ready = text_json(json_object_get(pool, "ready"), NULL);

    finding_add(f, "daemon", FINDING_OK, NULL, "running on %s, version %s", text_member(host, "hostname"),
                text_member(host, "version"));
    if (json_is_true(json_object_get(launcher, "connected")))
        finding_add(f, "launcher", FINDING_OK, NULL, "running; warm shells ready: %s, depth %s", ready, depth);
    else
        finding_add(f, "launcher", FINDING_FAIL, "sudo coracle up, or: systemctl start coracle-launcher",
                    "not running: nothing can be started or stopped, what runs goes on");
    add_technologies(f, host);
}

static void print_findings(const struct cli *cli, const struct findings *f)
{
    json_t *finding;
    size_t i;

    json_array_foreach(f->list, i, finding)
    {
        const char *result = text_member(finding, "result"), *remedy = text_member(finding, "try");

        printf("%s[%s]%s%*s %s: %s\n", term_paint(cli, term_state_color(result)), result, term_plain(cli),
               4 - (int)strlen(result), "", text_member(finding, "check"), text_member(finding, "detail"));
        if (*remedy)
            printf("       try: %s\n", remedy);
    }
}

static int run_doctor(struct cli *cli, const struct args *args, struct error **err)
{
    struct findings f = {.list = json_array()};
    struct error *why = NULL;
    json_t *host = NULL;
    int r = api_get(cli, "/v1/host", &host, &why);
    char text[512];

    if (cli->explain) {
        json_decref(f.list);
        return r;
    }
    if (r == 0)
        add_host(&f, host);
    else
        finding_add(&f, "daemon", FINDING_FAIL, why->hint, "%s", error_text(why, text, sizeof(text)));
    /* Another machine's kernel is not seen from here. */
    if (!strncmp(cli->connection.host, "unix://", 7))
        checks_of_host(&f);
    if (cli->json) {
        json_t *all = json_pack("{s:b, s:O, s:O?}", "ok", !f.failed, "checks", f.list, "host", host);

        print_json(all);
        json_decref(all);
    } else {
        print_findings(cli, &f);
    }
    error_free(why);
    json_decref(host);
    json_decref(f.list);
    return f.failed ? STATUS_FAILED : STATUS_OK;
}

const struct command command_doctor = {
    .name = "doctor",
    .aliases = "check",
    .section = "This host",
    .synopsis = "",
    .summary = "Say what this host can run, and what would help where it cannot",
    .text =
        "Asks the daemon which technologies it can run and under which accelerator, and looks at the host itself, "
        "also when no daemon runs. Every [warn] and [fail] comes with a remedy. Ends with 1 when there is a [fail].",
    .run = run_doctor,
};
