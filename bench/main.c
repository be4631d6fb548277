/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-bench: the five tables of the draft on the user's own host. Run by `coracle bench`, which passes its
 * arguments on. Exit status: 0, 64 for a wrong command line, 1 when nothing could be measured or the report could not
 * be written.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/progress.h"
#include "bench/report/report.h"
#include "bench/run.h"
#include "model/codes.h"

#define ARCHIVE "coracle-iperf.oci.tar"

/* Where the measured application's image is: installed, then relative to this program (its prefix, its build tree). */
static const char *const archives[] = {
    CORACLE_DATADIR "/images/" ARCHIVE,
    "../../share/coracle/images/" ARCHIVE,
    "../images/container/" ARCHIVE,
};

static int complain(struct error *err)
{
    char text[1024];
    int status = err ? error_code_exit_status(err->code) : 1;

    fprintf(stderr, "coracle-bench: %s\n", error_text(err, text, sizeof(text)));
    if (err && err->hint)
        fprintf(stderr, "try: %s\n", err->hint);
    error_free(err);
    return status;
}

static void list_subject(const struct subject *s)
{
    if (s->available)
        printf("  %-22s %s, accelerator %s\n", s->label, s->version, s->accelerator);
    else
        printf("  %-22s cannot be measured here: %s\n", s->label, s->why_not);
}

static int list(struct bench_options *options, struct results *results)
{
    struct error *err = NULL;

    printf("Metrics:\n");
    for (size_t i = 0; metric_list()[i]; i++)
        printf("  %-16s %-7s %s\n", metric_list()[i]->name, metric_list()[i]->unit, metric_list()[i]->title);
    printf("Peers (--against): %s\nHere:\n", subject_peer_names());
    if (run_open_subjects(options, results, &err) < 0)
        return complain(err);
    for (size_t i = 0; i < results->subject_count; i++)
        list_subject(&results->subjects[i]);
    return 0;
}

static void find_archive(struct bench_options *options)
{
    static char found[PATH_MAX * 2];
    char own[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);

    own[n > 0 ? n : 0] = '\0';
    for (size_t i = 0; !options->archive && i < sizeof(archives) / sizeof(archives[0]); i++) {
        snprintf(found, sizeof(found), "%s", archives[i]);
        if (archives[i][0] != '/' && n > 0)
            snprintf(found, sizeof(found), "%.*s/%s", (int)(strrchr(own, '/') - own), own, archives[i]);
        if (access(found, R_OK) == 0)
            options->archive = found;
    }
}

/* Beside the output, else in the user's state folder (XDG base directory specification). */
static void choose_samples_path(const struct bench_options *options, struct results *results)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    const char *beside = options->output ? options->output : options->html;
    char folder[400], stamp[32];
    time_t now = time(NULL);
    struct tm utc;

    if (options->samples || beside) {
        snprintf(results->samples_path, sizeof(results->samples_path), "%.480s%s",
                 options->samples ? options->samples : beside, options->samples ? "" : ".samples.jsonl");
        return;
    }
    if (!(state && *state) && !(home && *home))
        return;
    snprintf(folder, sizeof(folder), "%.300s%s", state && *state ? state : home, state && *state ? "" : "/.local");
    mkdir(folder, 0700);
    snprintf(folder, sizeof(folder), "%.300s%s/coracle", state && *state ? state : home,
             state && *state ? "" : "/.local/state");
    char *parent = strdup(folder);
    if (parent)
        mkdir(dirname(parent), 0700);
    free(parent);
    mkdir(folder, 0700);
    gmtime_r(&now, &utc);
    strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &utc);
    snprintf(results->samples_path, sizeof(results->samples_path), "%s/bench-%s.jsonl", folder, stamp);
}

static int write_report(const struct results *results, enum report_format format, const char *path, struct error **err)
{
    static int (*const writers[])(FILE *, const struct results *,
                                  struct error **) = {[REPORT_TABLE] = report_terminal,
                                                      [REPORT_JSON] = report_json,
                                                      [REPORT_CSV] = report_csv,
                                                      [REPORT_MARKDOWN] = report_markdown,
                                                      [REPORT_HTML] = report_html};
    auto_file FILE *file = path ? fopen(path, "we") : NULL;
    FILE *out = path ? file : stdout;
    int r;

    if (!out)
        return error_set_errno(err, errno, "NO_SPACE", "report %s", path);
    r = writers[format](out, results, err);
    if (r == 0 && (fflush(out) != 0 || ferror(out)))
        r = error_set_errno(err, errno ? errno : EIO, "NO_SPACE", "report %s", path ? path : "to standard output");
    return r;
}

static bool anything_measured(const struct results *results)
{
    for (size_t i = 0; i < results->cell_count; i++)
        if (results->cells[i].summary.n && results->cells[i].subject != &results->instrument)
            return true;
    return results->cell_count && results->cells[0].subject == &results->instrument && results->subject_count == 0;
}

static int measure(struct bench_options *options, struct results *results)
{
    struct error *err = NULL;
    int r;

    find_archive(options);
    r = run_open_subjects(options, results, &err);
    if (r < 0)
        return complain(err);
    choose_samples_path(options, results);
    r = run_all(options, results, &err);
    if (r == 0)
        r = write_report(results, options->format, options->output, &err);
    if (r == 0 && options->html)
        r = write_report(results, REPORT_HTML, options->html, &err);
    if (r < 0)
        return complain(err);
    if (!anything_measured(results)) {
        progress_note("nothing was measured; the reasons are in the report");
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct bench_options options;
    struct results *results;
    struct error *err = NULL;
    int status;

    setlocale(LC_CTYPE, ""); /* numbers stay in the C locale: reports are read by programs */
    signal(SIGPIPE, SIG_IGN);
    if (options_parse(argc, argv, &options, &err) < 0) {
        complain(err);
        return 64;
    }
    results = calloc(1, sizeof(*results));
    if (options.help)
        options_usage();
    else if (options.version)
        puts("coracle-bench " CORACLE_VERSION);
    status = options.help || options.version ? 0
             : !results                      ? 1
             : options.list                  ? list(&options, results)
                                             : measure(&options, results);
    if (results)
        results_clear(results);
    free(results);
    options_clear(&options);
    return status;
}
