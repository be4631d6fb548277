/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The schedule. Metric by metric; within one, run by run; within a run, every subject and mode in turn, beginning with
 * another one each time, so that a slow minute of the host hits all alike. Warm-up runs are made and dropped.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "bench/crowd.h"
#include "bench/http.h"
#include "bench/progress.h"
#include "bench/reference.h"
#include "bench/run.h"

struct schedule {
    const struct bench_options *options;
    struct results *results;
    FILE *raw; /* raw samples; NULL: nowhere */
};

/* One subject of one metric: set up or not, and why not. */
struct entry {
    struct measurement m;
    bool ready;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    interrupted = 1;
}

static void open_subject(struct results *results, const struct subject_ops *ops, const char *name, bool peer,
                         const struct bench_options *options)
{
    struct subject *s;
    struct error *err = NULL;
    char text[400];

    if (results->subject_count == SUBJECT_MAX)
        return;
    s = &results->subjects[results->subject_count++];
    *s = (struct subject){.ops = ops, .peer = peer};
    snprintf(s->technology, sizeof(s->technology), "%s", name);
    snprintf(s->label, sizeof(s->label), "%s", name);
    snprintf(s->accelerator, sizeof(s->accelerator), "none");
    s->available = ops->open(s, options, &err) == 0;
    s->reference = peer ? "container" : s->technology;
    if (!s->available) {
        snprintf(s->why_not, sizeof(s->why_not), "%s%s%s", error_text(err, text, sizeof(text)),
                 err && err->hint ? "; " : "", err && err->hint ? err->hint : "");
        error_free(err);
    }
}

/* All the host knows, behind those of the draft; the fake technology stands for nothing that could be measured. */
static int open_host_technologies(const struct bench_options *options, struct results *results, struct error **err)
{
    const char *const *draft = reference_technologies();
    struct http http;
    json_t *host = NULL, *technology;
    size_t i;
    int r = http_open(&http, options->socket, err);

    if (r == 0)
        r = http_call(&http, "GET", "/v1/host", NULL, &host, err);
    http_close(&http);
    for (i = 0; draft[i]; i++)
        open_subject(results, &subject_coracle, draft[i], false, options);
    if (r < 0)
        return r;
    json_array_foreach(json_object_get(host, "technologies"), i, technology)
    {
        const char *name = json_string_value(json_object_get(technology, "name"));
        bool known = !name || strcmp(name, "fake") == 0;

        for (size_t j = 0; draft[j] && !known; j++)
            known = strcmp(draft[j], name) == 0;
        if (!known)
            open_subject(results, &subject_coracle, name, false, options);
    }
    json_decref(host);
    return 0;
}

int run_open_subjects(const struct bench_options *options, struct results *results, struct error **err)
{
    int r = 0;

    snprintf(results->instrument.label, sizeof(results->instrument.label), "instrument");
    snprintf(results->instrument.technology, sizeof(results->instrument.technology), "instrument");
    snprintf(results->instrument.accelerator, sizeof(results->instrument.accelerator), "none");
    results->instrument.available = true;
    if (options->metrics.count == 1 && metric_find(options->metrics.word[0])->instrument)
        return 0;
    for (size_t i = 0; i < options->technologies.count; i++)
        open_subject(results, &subject_coracle, options->technologies.word[i], false, options);
    if (options->technologies.count == 0)
        r = open_host_technologies(options, results, options->against.count ? NULL : err);
    if (r < 0 && options->against.count == 0)
        return r; /* with a peer there is still something to measure: each table says why Coracle is not in it */
    for (size_t i = 0; i < options->against.count; i++)
        open_subject(results, subject_peer_find(options->against.word[i]), options->against.word[i], true, options);
    return 0;
}

static void write_raw(struct schedule *s, const struct cell *cell, long run, const struct outcome *o)
{
    char reason[REASON_SIZE];
    auto_free char *line = NULL;
    json_t *object, *detail;
    auto_free char *detail_text = NULL;

    if (!s->raw)
        return;
    snprintf(reason, sizeof(reason), "%s", o->reason);
    object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:I}", "kind", "sample", "technology",
                       cell->subject->technology, "metric", cell->metric->name, "variant", cell->variant, "unit",
                       cell->metric->unit, "run", (json_int_t)run, "warmup", run < 0, "ok", o->kind == OUTCOME_MEASURED,
                       "at_ns", (json_int_t)realtime_ns());
    json_object_set_new(object, "value", o->kind == OUTCOME_MEASURED ? json_real(o->value) : json_null());
    if (o->kind != OUTCOME_MEASURED)
        json_object_set_new(object, "reason", json_string(reason));
    if (*o->detail && asprintf(&detail_text, "{%s}", o->detail) > 0) {
        detail = json_loads(detail_text, 0, NULL);
        json_object_update(object, detail);
        json_decref(detail);
    }
    line = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (line)
        fprintf(s->raw, "%s\n", line);
}

static void note_not_measured(struct schedule *s, const struct metric *metric, const struct subject *subject,
                              const char *mode, unsigned scale, const char *why)
{
    for (size_t i = 0; metric->outputs[i]; i++) {
        struct cell *c = results_cell(s->results, metric, subject, mode, metric->outputs[i], scale);
        if (c)
            snprintf(c->why_not, sizeof(c->why_not), "%.300s", why);
    }
}

static void run_one(struct schedule *s, const struct metric *metric, struct measurement *m, const char *mode,
                    unsigned scale, long run)
{
    struct outcome outcomes[METRIC_OUTPUT_MAX] = {0};

    metric->sample(m, mode, outcomes);
    for (size_t i = 0; metric->outputs[i]; i++) {
        struct cell *c = results_cell(s->results, metric, m->subject, mode, metric->outputs[i], scale);
        if (!c)
            continue;
        write_raw(s, c, run, &outcomes[i]);
        if (run >= 0)
            cell_add(c, (unsigned)run, &outcomes[i]);
    }
}

static const char *const one_mode[] = {"", NULL};

/* Modes of one subject in one run. A mode "" has no name in the variant. */
static void run_modes(struct schedule *s, const struct metric *metric, struct entry *e, unsigned scale, long run)
{
    const char *const *modes = metric->modes ? metric->modes : one_mode;

    for (size_t i = 0; modes[i] && !interrupted; i++) {
        const char *mode = *modes[i] ? modes[i] : NULL, *why = NULL;

        if (metric->supports && !metric->supports(e->m.subject, mode, &why)) {
            note_not_measured(s, metric, e->m.subject, mode, scale, why);
            continue;
        }
        run_one(s, metric, &e->m, mode, scale, run);
    }
}

static unsigned bounded(unsigned runs, unsigned bound)
{
    return bound && bound < runs ? bound : runs;
}

static unsigned runs_of(const struct bench_options *o, const struct metric *metric)
{
    if (o->runs)
        return o->runs;
    return bounded(bounded(o->default_runs, metric->default_runs_max), o->quick ? metric->quick_runs_max : 0);
}

static void refuse(struct schedule *s, const struct metric *metric, const struct subject *subject, unsigned scale,
                   const char *why)
{
    const char *const *modes = metric->modes ? metric->modes : one_mode;

    for (size_t i = 0; modes[i]; i++)
        note_not_measured(s, metric, subject, *modes[i] ? modes[i] : NULL, scale, why);
}

static bool set_up(struct schedule *s, const struct metric *metric, struct entry *e, unsigned scale)
{
    struct error *err = NULL;
    char text[300], why[400];

    if (!e->m.subject->available) {
        refuse(s, metric, e->m.subject, scale, e->m.subject->why_not);
        return false;
    }
    if (!metric->setup || metric->setup(&e->m, &err) == 0)
        return true;
    snprintf(why, sizeof(why), "%s%s%s", error_text(err, text, sizeof(text)), err && err->hint ? "; " : "",
             err && err->hint ? err->hint : "");
    refuse(s, metric, e->m.subject, scale, why);
    error_free(err);
    if (metric->teardown)
        metric->teardown(&e->m);
    return false;
}

static void run_metric(struct schedule *s, const struct metric *metric, struct entry *entries, size_t count,
                       unsigned scale)
{
    unsigned runs = runs_of(s->options, metric), warmup = metric->default_runs_max == 1 ? 0 : s->options->warmup;
    size_t ready = 0;

    for (size_t i = 0; i < count; i++) {
        entries[i].ready = set_up(s, metric, &entries[i], scale);
        ready += entries[i].ready;
    }
    if (ready)
        progress_phase(metric->title, ready * (runs + warmup));
    for (long run = -(long)warmup; ready && run < (long)runs && !interrupted; run++) {
        for (size_t i = 0; i < count && !interrupted; i++) {
            struct entry *e = &entries[(i + (size_t)(run + (long)warmup)) % count];
            if (!e->ready)
                continue;
            progress_step(e->m.subject->label);
            run_modes(s, metric, e, scale, run);
        }
    }
    for (size_t i = 0; i < count; i++)
        if (entries[i].ready && metric->teardown)
            metric->teardown(&entries[i].m);
}

/* Subjects that stand for what is on this host; with scale, only those that can be asked for hundreds of instances. */
static size_t list_entries(struct schedule *s, const struct metric *metric, bool peers, struct entry *entries)
{
    size_t n = 0;

    if (metric->instrument) {
        entries[n++] = (struct entry){.m = {.subject = &s->results->instrument, .options = s->options}};
        return n;
    }
    for (size_t i = 0; i < s->results->subject_count; i++)
        if (peers || !s->results->subjects[i].peer)
            entries[n++] = (struct entry){.m = {.subject = &s->results->subjects[i], .options = s->options}};
    return n;
}

/* Instantiation beside n running instances: one technology after the other, since n of each would not be comparable. */
/* Instances that only exist are no company: each must take a connection. */
static int see_all_answer(const struct crowd *crowd, struct error **err)
{
    size_t answered;
    int r = crowd_knock(crowd, &answered, err);

    progress_note("%zu of %zu instances of %s take a connection", answered, crowd->count, crowd->subject->label);
    return r < 0 ? error_wrap(err, "TIMEOUT", "%zu of %zu instances answered", answered, crowd->count) : 0;
}

static void run_scaled(struct schedule *s, const struct metric *metric, unsigned n)
{
    struct entry entries[SUBJECT_MAX];
    size_t count = list_entries(s, metric, false, entries);

    for (size_t i = 0; i < count && !interrupted; i++) {
        struct crowd crowd = {.subject = entries[i].m.subject};
        struct error *err = NULL;
        char text[300];

        if (!entries[i].m.subject->available)
            continue;
        progress_note("starting %u instances of %s to measure beside them", n, entries[i].m.subject->label);
        if (crowd_grow(&crowd, n, &err) < 0 || see_all_answer(&crowd, &err) < 0)
            refuse(s, metric, entries[i].m.subject, n, error_text(err, text, sizeof(text)));
        else
            run_metric(s, metric, &entries[i], 1, n);
        error_free(err);
        crowd_clear(&crowd, NULL);
    }
}

static void open_raw(struct schedule *s)
{
    json_t *host = fingerprint_json(&s->results->host);
    auto_free char *text = host ? json_dumps(host, JSON_COMPACT) : NULL;

    json_decref(host);
    s->raw = *s->results->samples_path ? fopen(s->results->samples_path, "we") : NULL;
    if (!s->raw && *s->results->samples_path) {
        progress_note("raw samples cannot be written to %s: %s", s->results->samples_path, strerror(errno));
        s->results->samples_path[0] = '\0';
        return;
    }
    if (!s->raw || !text)
        return;
    setlinebuf(s->raw);
    fprintf(s->raw, "{\"kind\":\"host\",\"bench\":\"%s\",\"runs\":%u,\"warmup\":%u,\"host\":%s}\n", CORACLE_VERSION,
            s->options->runs ? s->options->runs : s->options->default_runs, s->options->warmup, text);
    for (size_t i = 0; i < s->results->subject_count; i++) {
        const struct subject *subject = &s->results->subjects[i];
        json_t *o =
            json_pack("{s:s, s:s, s:s, s:s, s:b}", "kind", "subject", "technology", subject->technology, "accelerator",
                      subject->accelerator, "version", subject->version, "available", subject->available);
        auto_free char *line = o ? json_dumps(o, JSON_COMPACT) : NULL;
        if (line)
            fprintf(s->raw, "%s\n", line);
        json_decref(o);
    }
}

static void close_raw(struct schedule *s)
{
    const double *load = s->results->host.load_after;

    if (!s->raw)
        return;
    fprintf(s->raw, "{\"kind\":\"end\",\"load_after\":[%.2f,%.2f,%.2f],\"seconds\":%.1f,\"interrupted\":%s}\n", load[0],
            load[1], load[2], s->results->seconds, interrupted ? "true" : "false");
    fclose(s->raw);
}

int run_all(const struct bench_options *options, struct results *results, struct error **err)
{
    struct schedule s = {.options = options, .results = results};
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND}, old;
    int64_t since = monotonic_ns();

    sigaction(SIGINT, &action,
              &old); /* the first Ctrl-C ends after the run under way and cleans up; the second at once */
    fingerprint_read(&results->host);
    open_raw(&s);
    for (size_t i = 0; metric_list()[i] && !interrupted; i++) {
        const struct metric *metric = metric_list()[i];
        struct entry entries[SUBJECT_MAX];
        size_t count = list_entries(&s, metric, true, entries);

        if (!options_want_metric(options, metric->name))
            continue;
        run_metric(&s, metric, entries, count, 0);
        for (size_t k = 0; metric == &metric_instantiation && k < options->scale_count && !interrupted; k++)
            if (options->scale[k])
                run_scaled(&s, metric, options->scale[k]);
    }
    progress_end();
    fingerprint_end(&results->host);
    results->seconds = (double)(monotonic_ns() - since) / 1e9;
    close_raw(&s);
    sigaction(SIGINT, &old, NULL);
    if (results_summarize(results) < 0)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the summary");
    return 0;
}
