/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `coracle bench`. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "bench/metrics/metric.h"
#include "bench/options.h"

enum option_key {
    KEY_AGAINST = 256,
    KEY_SCALE,
    KEY_QUICK,
    KEY_LIST,
    KEY_RUN_DIR,
    KEY_SOCKET,
    KEY_IMAGE,
    KEY_ARCHIVE,
    KEY_SECONDS,
    KEY_SAMPLES,
    KEY_HTML,
    KEY_WARMUP,
    KEY_MEMORY_INSTANCES,
    KEY_VERSION
};

static const struct option long_options[] = {
    {"technology", required_argument, NULL, 't'},
    {"metric", required_argument, NULL, 'm'},
    {"runs", required_argument, NULL, 'n'},
    {"format", required_argument, NULL, 'f'},
    {"output", required_argument, NULL, 'o'},
    {"against", required_argument, NULL, KEY_AGAINST},
    {"scale", required_argument, NULL, KEY_SCALE},
    {"quick", no_argument, NULL, KEY_QUICK},
    {"list", no_argument, NULL, KEY_LIST},
    {"run-dir", required_argument, NULL, KEY_RUN_DIR},
    {"socket", required_argument, NULL, KEY_SOCKET},
    {"image", required_argument, NULL, KEY_IMAGE},
    {"archive", required_argument, NULL, KEY_ARCHIVE},
    {"seconds", required_argument, NULL, KEY_SECONDS},
    {"samples", required_argument, NULL, KEY_SAMPLES},
    {"report", required_argument, NULL, KEY_HTML},
    {"html", required_argument, NULL, KEY_HTML},
    {"warmup", required_argument, NULL, KEY_WARMUP},
    {"memory-instances", required_argument, NULL, KEY_MEMORY_INSTANCES},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, KEY_VERSION},
    {0},
};

void options_usage(void)
{
    fputs("usage: coracle bench [options]\n"
          "Measures every technology of this host and prints the five tables of the draft beside its numbers.\n"
          "  -t, --technology T[,T]   only these (default: all)\n"
          "  -m, --metric M[,M]       only these (see --list)\n"
          "  -n, --runs N             runs of every metric (default 30, or fewer where a run is long)\n"
          "      --warmup N           runs made first and dropped (default 2)\n"
          "      --quick              a first impression: 7 runs, short ones\n"
          "      --against P[,P]      also measure docker, podman, crun, runc, in turn with the rest\n"
          "      --scale N[,N]        instantiation also beside N running instances, e.g. 0,100,500\n"
          "  -f, --format F           table, json, csv, markdown, html (default table)\n"
          "  -o, --output PATH        write there instead of standard output\n"
          "      --report PATH        write the HTML report there as well\n"
          "      --samples PATH       raw samples as JSON lines (default: beside the output)\n"
          "      --image REF          image to run (default coracle/iperf)\n"
          "      --archive FILE       the same image as an archive, for peers and an empty store\n"
          "      --seconds S          length of one throughput run (default 2)\n"
          "      --memory-instances N instances of the memory line (default 40)\n"
          "      --list               metrics, peers, and what this host can measure\n"
          "      --run-dir DIR        where the daemon's socket is (default /run/coracle)\n"
          "      --socket PATH        the socket itself\n"
          "Throughput, RTT and instantiation need CAP_NET_RAW and CAP_SYS_ADMIN: run as root.\n",
          stdout);
}

static int parse_number(const char *text, const char *option, double least, double most, double *ret,
                        struct error **err)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= least && value <= most))
        return error_set(err, EINVAL, "INVALID_VALUE", "--%s %s: a number from %g to %g is needed", option, text, least,
                         most);
    *ret = value;
    return 0;
}

static int parse_unsigned(const char *text, const char *option, unsigned least, unsigned most, unsigned *ret,
                          struct error **err)
{
    double value;
    int r = parse_number(text, option, least, most, &value, err);

    if (r < 0)
        return r;
    if (value - (double)(unsigned)value > 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "--%s %s: a whole number is needed", option, text);
    *ret = (unsigned)value;
    return 0;
}

static int parse_words(const char *text, const char *option, struct word_list *list, struct error **err)
{
    char *save = NULL;

    free(list->text);
    *list = (struct word_list){.text = strdup(text)};
    if (!list->text)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for --%s", option);
    for (char *w = strtok_r(list->text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        if (list->count == LIST_MAX)
            return error_set(err, E2BIG, "INVALID_VALUE", "--%s: more than %d", option, LIST_MAX);
        list->word[list->count++] = w;
    }
    if (list->count == 0)
        return error_set(err, EINVAL, "INVALID_VALUE", "--%s needs a name", option);
    return 0;
}

static int parse_scale(const char *text, struct bench_options *o, struct error **err)
{
    struct word_list words = {0};
    int r = parse_words(text, "scale", &words, err);

    o->scale_count = 0;
    for (size_t i = 0; r == 0 && i < words.count; i++) {
        if (o->scale_count == SCALE_MAX)
            r = error_set(err, E2BIG, "INVALID_VALUE", "--scale: more than %d", SCALE_MAX);
        else
            r = parse_unsigned(words.word[i], "scale", 0, 10000, &o->scale[o->scale_count++], err);
    }
    free(words.text);
    return r;
}

static int parse_format(const char *text, enum report_format *ret, struct error **err)
{
    static const char *const names[] = {[REPORT_TABLE] = "table",
                                        [REPORT_JSON] = "json",
                                        [REPORT_CSV] = "csv",
                                        [REPORT_MARKDOWN] = "markdown",
                                        [REPORT_HTML] = "html"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum report_format)i;
            return 0;
        }
    }
    return error_set(err, EINVAL, "INVALID_VALUE", "--format %s: one of table, json, csv, markdown, html", text);
}

static int check_names(const struct bench_options *o, struct error **err)
{
    for (size_t i = 0; i < o->metrics.count; i++) {
        if (!metric_find(o->metrics.word[i])) {
            error_set(err, EINVAL, "INVALID_VALUE", "there is no metric %s", o->metrics.word[i]);
            error_hint(err, "`coracle bench --list` names them");
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < o->against.count; i++)
        if (!subject_peer_find(o->against.word[i]))
            return error_set(err, EINVAL, "INVALID_VALUE", "--against %s: one of %s", o->against.word[i],
                             subject_peer_names());
    return 0;
}

static int parse_lists(int key, const char *value, struct bench_options *o, struct error **err)
{
    switch (key) {
    case 't':
        return parse_words(value, "technology", &o->technologies, err);
    case 'm':
        return parse_words(value, "metric", &o->metrics, err);
    case 'f':
        return parse_format(value, &o->format, err);
    case KEY_AGAINST:
        return parse_words(value, "against", &o->against, err);
    case KEY_SCALE:
        return parse_scale(value, o, err);
    case 'n':
        return parse_unsigned(value, "runs", 1, 100000, &o->runs, err);
    case KEY_WARMUP:
        return parse_unsigned(value, "warmup", 0, 1000, &o->warmup, err);
    case KEY_MEMORY_INSTANCES:
        return parse_unsigned(value, "memory-instances", 4, 4000, &o->memory_instances, err);
    case KEY_SECONDS:
        return parse_number(value, "seconds", 0.1, 3600, &o->seconds, err);
    default:
        return error_set(err, EINVAL, "INVALID_VALUE", "unknown option; see --help");
    }
}

static int parse_one(int key, const char *value, struct bench_options *o, struct error **err)
{
    switch (key) {
    case 'o':
        o->output = value;
        break;
    case 'h':
        o->help = true;
        break;
    case KEY_VERSION:
        o->version = true;
        break;
    case KEY_QUICK:
        o->quick = true;
        break;
    case KEY_LIST:
        o->list = true;
        break;
    case KEY_RUN_DIR:
        o->run_dir = value;
        break;
    case KEY_SOCKET:
        o->socket = value;
        break;
    case KEY_IMAGE:
        o->image = value;
        break;
    case KEY_ARCHIVE:
        o->archive = value;
        break;
    case KEY_SAMPLES:
        o->samples = value;
        break;
    case KEY_HTML:
        o->html = value;
        break;
    default:
        return parse_lists(key, value, o, err);
    }
    return 0;
}

/* CORACLE_HOST is how the CLI says which daemon was meant; only one on this host can be measured from here. */
static int choose_socket(struct bench_options *o, struct error **err)
{
    const char *host = getenv("CORACLE_HOST");
    static char socket_path[256];

    if (o->socket)
        return 0;
    if (!o->run_dir && host && *host) {
        if (strncmp(host, "unix://", 7) != 0)
            return error_set(err, EINVAL, "INVALID_VALUE", "%s: a benchmark runs on the host it measures", host);
        o->socket = host + 7;
        return 0;
    }
    snprintf(socket_path, sizeof(socket_path), "%s/api.sock", o->run_dir ? o->run_dir : "/run/coracle");
    o->socket = socket_path;
    return 0;
}

static int apply_defaults(struct bench_options *o, struct error **err)
{
    o->default_runs = o->quick ? 7 : 30;
    if (o->warmup == UINT32_MAX)
        o->warmup = o->quick ? 1 : 2;
    if (o->seconds <= 0)
        o->seconds = o->quick ? 1 : 2;
    if (!o->memory_instances)
        o->memory_instances = o->quick ? 20 : 40;
    return choose_socket(o, err);
}

int options_parse(int argc, char **argv, struct bench_options *ret_options, struct error **err)
{
    struct bench_options o = {.image = "coracle/iperf", .warmup = UINT32_MAX};
    int key, r = 0;

    optind = 1;
    while (r == 0 && (key = getopt_long(argc, argv, "t:m:n:f:o:h", long_options, NULL)) != -1)
        r = parse_one(key, optarg, &o, err);
    if (r == 0 && optind < argc)
        r = error_set(err, EINVAL, "INVALID_VALUE", "%s: no such argument; see --help", argv[optind]);
    if (r == 0)
        r = check_names(&o, err);
    if (r == 0)
        r = apply_defaults(&o, err);
    if (r < 0) {
        options_clear(&o);
        return r;
    }
    *ret_options = o;
    return 0;
}

void options_clear(struct bench_options *options)
{
    free(options->technologies.text);
    free(options->metrics.text);
    free(options->against.text);
}

bool options_want_metric(const struct bench_options *options, const char *metric)
{
    for (size_t i = 0; i < options->metrics.count; i++)
        if (strcmp(options->metrics.word[i], metric) == 0)
            return true;
    return options->metrics.count == 0;
}
