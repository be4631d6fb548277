/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan and apply: files of descriptors compared with what is there. apply creates what is missing and reports what
 * differs; it never stops or removes anything. Each descriptor is checked by the server first (POST /v1/plan); a bad
 * one is shown as such, counts as failed, and the others go on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/apply.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/yaml.h"
#include "model/codes.h"

struct plan {
    /* [{"name", "action": "create"|"none"|"differs"|"invalid", "differences": [], "wanted": {}, "error": {} (invalid)}]
     */
    json_t *items;
    json_t *present; /* what the index is made of: {NAME: [id, spec] or null} */
    uint64_t index;
};

uint64_t json_index(const json_t *value)
{
    auto_free char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    uint64_t hash = 0xcbf29ce484222325ULL; /* FNV-1a, 64 bits */

    for (const char *p = text; p && *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3ULL;
    return hash;
}

static bool is_equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static void compare(json_t *list, const char *prefix, const json_t *wanted, const json_t *present)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)wanted, key, value)
    {
        json_t *is = json_object_get(present, key);
        auto_free char *name = text_printf("%s%s%s", prefix, *prefix ? "." : "", key);

        if (json_is_object(value) && json_is_object(is))
            compare(list, name, value, is);
        else if (!is_equal(value, is))
            json_array_append_new(list, json_pack("{s:s, s:O, s:O?}", "field", name, "wanted", value, "is", is));
    }
}

json_t *descriptor_differences(const json_t *wanted, const json_t *present)
{
    json_t *list = json_array();

    compare(list, "", wanted, present);
    return list;
}

/* Documents, and lists of descriptors in them, as one flat list. */
static int read_descriptors(const struct args *args, json_t **ret, struct error **err)
{
    json_t *all = json_array(), *documents = NULL, *document;
    const char *path;
    size_t k;

    for (size_t i = 0; (path = args_next(args, "file", &i));) {
        if (yaml_read_path(path, &documents, err) < 0) {
            json_decref(all);
            return -EINVAL;
        }
        json_array_foreach(documents, k, document)
        {
            if (json_is_array(document))
                json_array_extend(all, document);
            else if (!json_is_null(document)) /* an empty one: a file may end with its separator */
                json_array_append(all, document);
        }
        json_decref(documents);
    }
    if (json_array_size(all) == 0) {
        json_decref(all);
        return error_set(err, EINVAL, "MISSING_FIELD", "no descriptor was given: coracle apply -f FILE");
    }
    *ret = all;
    return 0;
}

/* A descriptor that cannot be applied; owns why. */
static void plan_invalid(struct plan *plan, size_t number, json_t *wanted, struct error *why)
{
    auto_free char *number_text = text_printf("descriptor number %zu", number);
    const char *name = json_is_object(wanted) ? text_member(wanted, "name") : "";

    json_array_append_new(plan->items,
                          json_pack("{s:s, s:s, s:[], s:O, s:{s:s, s:s, s:s}}", "name", *name ? name : number_text,
                                    "action", "invalid", "differences", "wanted", wanted, "error", "code", why->code,
                                    "message", why->message, "hint", why->hint ? why->hint : ""));
    error_free(why);
}

/* What is wrong with it before the server is asked: no name to find it by, or one that stands twice. */
static struct error *unusable(const struct plan *plan, const json_t *wanted)
{
    const char *name = json_is_object(wanted) ? text_member(wanted, "name") : "";
    struct error *why = NULL;

    if (!*name) {
        error_set(&why, EINVAL, "MISSING_FIELD", "it needs a name to be compared");
        error_hint(&why, "coracle-descriptor(5) shows its fields; several stand in one file with --- between them");
    } else if (json_object_get(plan->present, name)) {
        error_set(&why, EEXIST, "NAME_TAKEN", "the name stands twice in what was given");
    }
    return why;
}

/* Failures of the connection end it all; whatever is wrong with a descriptor is noted with it. */
static int plan_one(struct cli *cli, struct plan *plan, size_t number, json_t *wanted, struct error **err)
{
    const char *name = text_member(wanted, "name"), *action;
    json_t *answer = NULL, *instance, *differences;
    struct error *why = unusable(plan, wanted);
    int r = why ? -EINVAL : api_call(cli, "POST", "/v1/plan", wanted, &answer, &why);

    if (r < 0 && (!why || strcmp(why->code, "DAEMON_UNAVAILABLE") == 0)) {
        *err = why;
        return r;
    }
    if (r < 0) {
        plan_invalid(plan, number, wanted, why);
        return 0;
    }
    instance = json_incref(json_object_get(answer, "instance"));
    json_decref(answer);
    if (!json_is_object(instance)) {
        json_decref(instance);
        instance = NULL;
    }
    differences = instance ? descriptor_differences(wanted, json_object_get(instance, "spec")) : json_array();
    action = !instance ? "create" : json_array_size(differences) ? "differs" : "none";
    json_object_set_new(plan->present, name,
                        instance ? json_pack("[s,O?]", text_member(instance, "id"), json_object_get(instance, "spec"))
                                 : json_null());
    json_array_append_new(plan->items, json_pack("{s:s, s:s, s:o, s:O}", "name", name, "action", action, "differences",
                                                 differences, "wanted", wanted));
    json_decref(instance);
    return 0;
}

static void plan_clear(struct plan *plan)
{
    json_decref(plan->items);
    json_decref(plan->present);
}

static int make_plan(struct cli *cli, const struct args *args, struct plan *plan, struct error **err)
{
    json_t *wanted = NULL, *descriptor;
    size_t i;
    int r = read_descriptors(args, &wanted, err);

    plan->items = json_array();
    plan->present = json_object();
    json_array_foreach(wanted, i, descriptor) if (r == 0) r = plan_one(cli, plan, i + 1, descriptor, err);
    json_decref(wanted);
    plan->index = json_index(plan->present);
    return r;
}

static size_t count_action(const struct plan *plan, const char *action)
{
    json_t *item;
    size_t i, n = 0;

    json_array_foreach(plan->items, i, item) n += !strcmp(text_member(item, "action"), action);
    return n;
}

static void print_plan(const struct cli *cli, const struct plan *plan)
{
    static const char *const marks[][3] = {
        {"create", "+", "green"}, {"differs", "~", "yellow"}, {"invalid", "!", "red"}, {"none", "=", NULL}};
    json_t *item, *difference, *wrong;
    size_t i, k;

    json_array_foreach(plan->items, i, item)
    {
        for (k = 0; strcmp(marks[k][0], text_member(item, "action")) != 0; k++)
            ;
        printf("%s%s%s %s\n", term_paint(cli, marks[k][2]), marks[k][1], marks[k][2] ? term_plain(cli) : "",
               text_member(item, "name"));
        json_array_foreach(json_object_get(item, "differences"), k, difference)
        {
            auto_free char *is = text_json(json_object_get(difference, "is"), "not given");
            auto_free char *wanted = text_json(json_object_get(difference, "wanted"), "not given");

            printf("    %s: %s -> %s\n", text_member(difference, "field"), is, wanted);
        }
        if ((wrong = json_object_get(item, "error")))
            printf("    %s: %s\n", text_member(wrong, "code"), text_member(wrong, "message"));
    }
    printf("%zu to create, %zu as wanted, %zu different", count_action(plan, "create"), count_action(plan, "none"),
           count_action(plan, "differs"));
    if (count_action(plan, "invalid"))
        printf(", %zu invalid", count_action(plan, "invalid"));
    printf("\n");
}

/* The first invalid one decides the exit status. All were shown where they stand. */
static int fail_invalid(const struct plan *plan, struct error **err)
{
    json_t *item, *wrong;
    size_t i;

    json_array_foreach(plan->items, i, item)
    {
        if (!(wrong = json_object_get(item, "error")))
            continue;
        error_set(err, EINVAL, error_code_intern(text_member(wrong, "code")), "%s: %s", text_member(item, "name"),
                  text_member(wrong, "message"));
        if (*text_member(wrong, "hint"))
            error_hint(err, "%s", text_member(wrong, "hint"));
        return -EINVAL;
    }
    return 0;
}

static void print_plan_json(const struct plan *plan, bool applied)
{
    auto_free char *index = text_printf("%016" PRIx64, plan->index);
    json_t *all = json_pack("{s:s, s:b, s:O}", "index", index, "applied", applied, "items", plan->items);

    print_json(all);
    json_decref(all);
}

static int run_plan(struct cli *cli, const struct args *args, struct error **err)
{
    struct plan plan = {0};
    int r = make_plan(cli, args, &plan, err);

    if (r == 0 && !cli->explain) {
        if (cli->json) {
            print_plan_json(&plan, false);
        } else {
            print_plan(cli, &plan);
            printf("index %016" PRIx64 ": coracle apply --check-index %016" PRIx64 " does this and nothing else\n",
                   plan.index, plan.index);
        }
        r = fail_invalid(&plan, err);
    }
    plan_clear(&plan);
    return r;
}

static int check_index(const struct args *args, const struct plan *plan, struct error **err)
{
    const char *given = args_get(args, "check-index");
    char *end;
    uint64_t index;

    if (!given)
        return 0;
    index = strtoull(given, &end, 16);
    if (*end || !*given)
        return error_set(err, EINVAL, "INVALID_VALUE", "--check-index: \"%s\" is no index that plan printed", given);
    if (index == plan->index)
        return 0;
    error_set(err, ESTALE, "PRECONDITION_FAILED", "things changed since that plan: the index is %016" PRIx64 " now",
              plan->index);
    error_hint(err, "look again: coracle plan -f FILE");
    return -ESTALE;
}

/* Creates and starts one; its operation is waited for, so that the next may need it. */
static int create_one(struct cli *cli, const json_t *item, struct error **err)
{
    json_t *answer = NULL, *operation, *done = NULL;
    int r = api_call(cli, "POST", "/v1/instances?start=true", json_object_get(item, "wanted"), &answer, err);

    if (r < 0)
        return r;
    operation = json_object_get(answer, "operation");
    r = operation_wait(cli, operation, &done, err);
    if (r == 0 && !cli->explain) {
        auto_free char *sentence = started_sentence(json_object_get(answer, "instance"), done);

        term_note(cli, "%s", sentence);
    }
    json_decref(answer);
    json_decref(done);
    return r;
}

static int apply_plan(struct cli *cli, const struct plan *plan, struct error **err)
{
    struct error *one = NULL;
    json_t *item;
    size_t i, differs;
    size_t created = 0, failed = 0;
    int status = 0;

    json_array_foreach(plan->items, i, item)
    {
        if (json_object_get(item, "error")) {
            json_object_set(item, "result", json_object_get(json_object_get(item, "error"), "code"));
            failed++;
        }
        if (strcmp(text_member(item, "action"), "create") != 0)
            continue;
        if (create_one(cli, item, &one) == 0) {
            json_object_set_new(item, "result", json_string("created"));
            created++;
        } else {
            failed++;
            int s = report_error(cli, one);

            status = status ? status : s;
            json_object_set_new(item, "result", json_string(one->code));
            error_free(one);
            one = NULL;
        }
    }
    differs = count_action(plan, "differs");
    if (!cli->json && !cli->explain)
        printf("%zu created, %zu as wanted, %zu different, %zu failed\n", created, count_action(plan, "none"), differs,
               failed);
    if (status == 0 && !cli->explain)
        status = fail_invalid(plan, err);
    if (status || !differs || cli->explain)
        return status;
    error_set(err, EEXIST, "CONFLICTING_STATE",
              "%zu of %zu exist and differ from their descriptors; they were left alone", differs,
              json_array_size(plan->items));
    error_hint(err,
               "coracle update changes limits and labels as they run; for anything else: coracle rm -f NAME, apply");
    return -EEXIST;
}

static int run_apply(struct cli *cli, const struct args *args, struct error **err)
{
    struct plan plan = {0};
    int r = make_plan(cli, args, &plan, err);

    /* Without asking the daemon nothing is known to exist: everything is shown as it would be created. */
    if (r == 0 && !cli->explain)
        r = check_index(args, &plan, err);
    if (r == 0) {
        if (!cli->json && !cli->explain)
            print_plan(cli, &plan);
        r = apply_plan(cli, &plan, err);
        /* What became of each is known only now. */
        if (cli->json && !cli->explain)
            print_plan_json(&plan, r == 0);
    }
    plan_clear(&plan);
    return r;
}

static const struct option_spec plan_options[] = {
    {"file", 'f', "FILE", "descriptors (YAML or JSON, - is standard input), may repeat", WORD_FILE},
    {NULL},
};

static const struct option_spec apply_options[] = {
    {"file", 'f', "FILE", "descriptors (YAML or JSON, - is standard input), may repeat", WORD_FILE},
    {"check-index", 0, "INDEX", "refuse when anything changed since plan printed this"},
    {NULL},
};

const struct command command_plan = {
    .name = "plan",
    .aliases = "diff",
    .section = "Descriptors",
    .synopsis = "-f FILE",
    .summary = "Show what apply would do",
    .text =
        "Has the server check each descriptor as its creation would, and compares every field it gives with what is "
        "there; nothing is changed. The exit status is that of the first one that would be refused. A file holds one "
        "descriptor, several with --- "
        "between them, or a list. Prints an index that stands for what was found; apply --check-index refuses when "
        "it is another by then.",
    .options = plan_options,
    .run = run_plan,
};

const struct command command_apply = {
    .name = "apply",
    .section = "Descriptors",
    .synopsis = "[OPTIONS] -f FILE",
    .summary = "Create what descriptors ask for and is missing",
    .text =
        "What exists and differs is shown and left alone, and the exit status is 4. A descriptor that is refused or "
        "does not start is told and the others go on; the exit status is then that of the first such. Nothing is "
        "stopped or removed.",
    .examples = "  coracle plan -f edge.yaml\n  coracle apply -f edge.yaml --check-index 1f0c9a52b7d3e846",
    .options = apply_options,
    .run = run_apply,
};
