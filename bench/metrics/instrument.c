/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instrument's own baseline: the instantiation probe pointed at ends whose truth is known, so that a report can
 * state its error. Network: two namespaces of this process's own, joined by a veth, gone when it ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/command.h"
#include "bench/http.h"
#include "bench/metrics/instrument.h"
#include "bench/metrics/metric.h"
#include "bench/probe/netns.h"

#define FAR_ADDRESS  "198.19.255.2"
#define NEAR_ADDRESS "198.19.255.1"
#define FAR_MAC      "02:00:c6:13:ff:02"
#define NEAR_MAC     "02:00:c6:13:ff:01"

enum { QUIET_MS = 2, TIMEOUT_MS = 1000, ONSET_DELAY_MS = 2, NULL_MS = 20, SYN_PORT = 5001 };

static const char make_script[] =
    "ip netns add \"$1\"; ip netns add \"$2\"\n"
    "ip -n \"$1\" link add probe type bridge; ip -n \"$1\" link set probe address " NEAR_MAC "\n"
    "ip -n \"$1\" link add far type veth peer name eth0 address " FAR_MAC " netns \"$2\"\n"
    "ip -n \"$1\" link set far master probe; ip -n \"$1\" addr add " NEAR_ADDRESS "/30 dev probe\n"
    "ip -n \"$1\" link set far up; ip -n \"$1\" link set probe up; ip -n \"$2\" link set eth0 up\n"
    "ip -n \"$1\" neigh replace " FAR_ADDRESS " lladdr " FAR_MAC " nud permanent dev probe\n"
    "ip -n \"$2\" neigh replace " NEAR_ADDRESS " lladdr " NEAR_MAC " nud permanent dev eth0\n";

int mock_open(struct mock *mock, struct error **err)
{
    const char *arguments[3] = {mock->near, mock->far, NULL};
    int r;

    memset(mock, 0, sizeof(*mock));
    mock->listener = -1;
    snprintf(mock->near, sizeof(mock->near), "coracle-bench-near-%d", (int)getpid());
    snprintf(mock->far, sizeof(mock->far), "coracle-bench-far-%d", (int)getpid());
    snprintf(mock->far_path, sizeof(mock->far_path), "/run/netns/%s", mock->far);
    snprintf(mock->target.netns, sizeof(mock->target.netns), "/run/netns/%s", mock->near);
    inet_aton(FAR_ADDRESS, &mock->target.address);
    inet_aton(NEAR_ADDRESS, &mock->target.source);
    memcpy(mock->target.mac, (uint8_t[]){0x02, 0x00, 0xc6, 0x13, 0xff, 0x02}, 6);
    mock->target.port = SYN_PORT;
    r = command_find("ip", "iproute2", err);
    if (r == 0)
        r = command_shell(NULL, make_script, arguments, NULL, err);
    if (r < 0)
        mock_close(mock);
    return r;
}

void mock_close(struct mock *mock)
{
    const char *arguments[3] = {mock->near, mock->far, NULL};

    mock_unlisten(mock);
    if (*mock->near)
        command_shell(NULL, "ip netns del \"$1\" || :; ip netns del \"$2\" || :", arguments, NULL, NULL);
    mock->near[0] = '\0';
}

struct address_change {
    const char *address; /* "0.0.0.0" removes */
    int64_t before, after;
};

static int set_address(void *context, struct error **err)
{
    struct address_change *c = context;
    auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = {.ifr_name = "eth0"};
    struct sockaddr_in in = {.sin_family = AF_INET};

    inet_aton(c->address, &in.sin_addr);
    memcpy(&ifr.ifr_addr, &in, sizeof(in));
    c->before = realtime_ns();
    if (fd < 0 || ioctl(fd, SIOCSIFADDR, &ifr) < 0)
        return error_set_errno(err, errno, "INTERNAL", "address of the bench's own interface");
    c->after = realtime_ns();
    return 0;
}

int mock_appear(struct mock *mock, int64_t *ret_before_ns, int64_t *ret_after_ns, struct error **err)
{
    struct address_change c = {.address = FAR_ADDRESS};
    int r = netns_run(mock->far_path, set_address, &c, err);

    if (r == 0) {
        *ret_before_ns = c.before;
        *ret_after_ns = c.after;
    }
    return r;
}

/* Removing the address also drops the neighbour's route; the entry itself is permanent and stays. */
int mock_vanish(struct mock *mock, struct error **err)
{
    struct address_change c = {.address = "0.0.0.0"};

    return netns_run(mock->far_path, set_address, &c, err);
}

int mock_listen(struct mock *mock, int64_t *ret_before_ns, int64_t *ret_after_ns, struct error **err)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(SYN_PORT)};
    int r = netns_socket(mock->far_path, AF_INET, SOCK_STREAM, 0, &mock->listener, err);

    if (r < 0)
        return r;
    if (bind(mock->listener, (struct sockaddr *)&any, sizeof(any)) < 0)
        return error_set_errno(err, errno, "INTERNAL", "port %d of the bench's own namespace", SYN_PORT);
    *ret_before_ns = realtime_ns();
    if (listen(mock->listener, 16) < 0)
        return error_set_errno(err, errno, "INTERNAL", "port %d of the bench's own namespace", SYN_PORT);
    *ret_after_ns = realtime_ns();
    return 0;
}

void mock_unlisten(struct mock *mock)
{
    mock->listener = close_fd(mock->listener);
}

struct baseline {
    struct mock mock;
    struct http http;
    struct http_request request;
    bool has_api;
};

static int setup(struct measurement *m, struct error **err)
{
    struct baseline *b = calloc(1, sizeof(*b));
    int r;

    if (!b)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the baseline");
    m->state = b;
    b->http.fd = -1;
    r = mock_open(&b->mock, err);
    if (r < 0)
        return r;
    b->has_api = http_open(&b->http, m->options->socket, NULL) == 0 &&
                 http_request_make("GET", "/v1/version", NULL, NULL, 0, &b->request, NULL) == 0;
    return 0;
}

static void teardown(struct measurement *m)
{
    struct baseline *b = m->state;

    if (!b)
        return;
    mock_close(&b->mock);
    http_close(&b->http);
    http_request_clear(&b->request);
    free(b);
    m->state = NULL;
}

/* The far end's address appears while the flood runs: how much later than the truth is the first RST? */
static int measure_onset(struct baseline *b, struct outcome *onset, struct outcome *interval, struct error **err)
{
    struct flood_result result;
    struct flood *flood;
    int64_t before, after;
    int r = flood_start(&b->mock.target, QUIET_MS, &flood, err);

    if (r < 0)
        return r;
    poll(NULL, 0, ONSET_DELAY_MS);
    r = mock_appear(&b->mock, &before, &after, err);
    if (r < 0) {
        flood_cancel(flood);
        return r;
    }
    flood_finish(flood, false, TIMEOUT_MS, &result);
    if (!result.has_rst)
        outcome_fail(onset, OUTCOME_FAILED, "no RST within %d ms of an address that was there", TIMEOUT_MS);
    else if (result.rst_ns < before)
        outcome_fail(onset, OUTCOME_FAILED, "a RST before the address was there");
    else
        outcome_set(onset, (double)(result.rst_ns - before) / 1e6);
    outcome_set(interval, result.interval_median_us / 1e3);
    return 0;
}

/* The far end answers all along; from an arbitrary instant on, how long until the next reply is stamped? */
static int measure_answering(struct baseline *b, struct outcome *answering, struct error **err)
{
    struct flood_result result;
    struct flood *flood;
    int64_t t0;
    int r = flood_start(&b->mock.target, 0, &flood, err);

    if (r < 0)
        return r;
    poll(NULL, 0, ONSET_DELAY_MS);
    t0 = flood_rearm(flood);
    flood_finish(flood, false, TIMEOUT_MS, &result);
    if (!result.has_rst)
        outcome_fail(answering, OUTCOME_FAILED, "no RST from an address that answers");
    else
        outcome_set(answering, (double)(result.rst_ns - t0) / 1e6);
    return 0;
}

/* Nobody is there: no reply may be seen; meanwhile the smallest call of the API is timed. */
static int measure_null(struct baseline *b, struct outcome *null, struct error **err)
{
    struct target nobody = b->mock.target;
    struct flood_result result;
    struct flood *flood;
    json_t *body = NULL;
    int64_t t0, t1 = 0;
    int status, r;

    nobody.mac[5] = 0xfe;
    r = flood_start(&nobody, QUIET_MS, &flood, err);
    if (r < 0)
        return r;
    if (b->has_api) {
        r = http_send(&b->http, &b->request, &t0, err);
        if (r == 0)
            r = http_receive(&b->http, &status, &body, err);
        t1 = realtime_ns();
        json_decref(body);
    }
    if (r < 0) {
        flood_cancel(flood);
        return r;
    }
    flood_finish(flood, false, NULL_MS, &result);
    if (result.has_rst || result.has_syn_ack)
        outcome_fail(null, OUTCOME_FAILED, "a reply from an address where nobody is");
    else if (!b->has_api)
        outcome_fail(null, OUTCOME_ABSENT, "no Coracle daemon to call");
    else
        outcome_set(null, (double)(t1 - t0) / 1e6);
    return 0;
}

static void sample(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    struct baseline *b = m->state;
    struct error *err = NULL;
    int r = mock_vanish(&b->mock, &err);

    if (r == 0)
        r = measure_onset(b, &outcomes[0], &outcomes[2], &err);
    if (r == 0)
        r = measure_answering(b, &outcomes[1], &err);
    if (r == 0)
        r = measure_null(b, &outcomes[3], &err);
    if (r < 0)
        metric_fail(&metric_instrument, outcomes, err);
}

static const char *const outputs[] = {"onset", "answering", "interval", "null", NULL};

const struct metric metric_instrument = {
    .name = "instrument",
    .unit = "ms",
    .title = "The instrument itself",
    .method =
        "The instantiation probe against ends of the bench's own. onset: an address appears at a known instant; how "
        "much later the probe dates it (its bias: never early). answering: an end that answers all along; time to the "
        "next reply. interval: time between two SYNs to one port, as sent. null: the probe against nothing, where any "
        "reply is a failed run, while the smallest API call (GET /v1/version) is timed.",
    .outputs = outputs,
    .instrument = true,
    .setup = setup,
    .teardown = teardown,
    .sample = sample,
};
