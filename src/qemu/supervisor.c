/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor's loop: one poll over everything that can happen, and the two clocks that find a QEMU which is alive
 * but answers nobody.
 *
 * Theory of operation. A command to QEMU (qmp_call) waits within a turn of this loop without requests: the console is
 * read and an end is noticed while it waits; other connections wait. QEMU's main loop is asked for a sign of life every
 * BEAT_MS. Nothing heard for SILENT_MS while one is open means hung, unless QEMU's threads did not get a processor in
 * that time (their wait in the run queue is counted by the kernel): on a host that is overloaded, slow is not dead.
 * After PATIENCE_MS it is dead whatever the reason.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "qemu/supervisor.h"

enum {
    BEAT_MS = 250,
    SILENT_MS = 400,
    TURN_MS = 50,
    PATIENCE_MS = 15000,
    CALM_MS = 1000,
    CALM_PART = 3,        /* a third of a processor: an emulated Linux that idles needs a twentieth */
    CALM_WAIT_MS = 45000, /* one that never rests, or is starved, is taken as it is */
    MILLISECOND = 1000000,
    DRAIN_TURNS = 64,
    LAST_WORDS_MS = 1000
};

struct polled {
    struct pollfd fds[16 + CONNECTION_MAX + INPUT_MAX + SESSION_PLACES];
    int *places[16 + CONNECTION_MAX + INPUT_MAX + SESSION_PLACES];
    unsigned n;
};

void supervisor_init(struct supervisor *s)
{
    *s = (struct supervisor){.setup = MONITOR_SETUP_FD,
                             .signals = -1,
                             .listen = -1,
                             .exit_file = -1,
                             .console = -1,
                             .virtio_console = -1,
                             .agent = -1,
                             .log_fds = {-1, -1},
                             .kvm = -1,
                             .ram = -1,
                             .snapshot = -1,
                             .agent_status = -1,
                             .sessions.port = -1};
    s->child.start = s->child.errors = s->qmp.fd = -1;
    for (unsigned i = 0; i < CONNECTION_MAX; i++)
        s->connections[i] = -1;
    for (unsigned i = 0; i < INPUT_MAX; i++)
        s->inputs[i] = -1;
    for (unsigned i = 0; i < MONITOR_DISK_MAX; i++)
        s->overlays[i] = -1;
}

static void add(void *polled, int *place, short events)
{
    struct polled *p = polled;

    if (*place < 0)
        return;
    p->fds[p->n] = (struct pollfd){.fd = *place, .events = events};
    p->places[p->n++] = place;
}

static void collect(struct supervisor *s, struct polled *p, bool requests)
{
    int *input_to = s->virtio_console >= 0 ? &s->virtio_console : &s->console;

    p->n = 0;
    add(p, &s->signals, POLLIN);
    add(p, &s->qmp.fd, POLLIN);
    add(p, &s->child.errors, POLLIN);
    add(p, &s->console, POLLIN | (s->typed && input_to == &s->console ? POLLOUT : 0));
    add(p, &s->virtio_console, POLLIN | (s->typed && input_to == &s->virtio_console ? POLLOUT : 0));
    add(p, &s->agent, POLLIN);
    sessions_collect(s, add, p);
    for (unsigned i = 0; i < INPUT_MAX && !s->typed; i++)
        add(p, &s->inputs[i], POLLIN);
    if (!requests)
        return;
    add(p, &s->setup, POLLIN);
    add(p, &s->listen, POLLIN);
    for (unsigned i = 0; i < CONNECTION_MAX; i++)
        add(p, &s->connections[i], POLLIN);
}

/* ---- what can happen ---- */

static void take_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof(info)) == sizeof(info))
        if (info.ssi_signo != SIGCHLD)
            s->stop_signal = (int)info.ssi_signo;
}

static void take_connection(struct supervisor *s)
{
    int fd = accept4(s->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    for (unsigned i = 0; i < CONNECTION_MAX && fd >= 0; i++)
        if (s->connections[i] < 0)
            s->connections[i] = take_fd(&fd);
    close_fd(fd); /* one too many */
}

/* False: this monitor has no future. */
static bool take_setup(struct supervisor *s)
{
    static struct monitor_message m;
    auto_error struct error *err = NULL;
    bool goes_on = false;
    int r = monitor_receive(s->setup, &m, &err);

    if (r == -EAGAIN)
        return true;
    if (r < 0)
        monitor_send_failed(s->setup, MONITOR_STAGE_PROTOCOL, err);
    else if (r > 0 && m.header.type == MONITOR_PREPARE && s->phase == PHASE_EMPTY)
        goes_on = load_prepare(s, &m.prepare, m.fd_count ? &m.fds[0] : &(int){-1});
    else if (r > 0 && m.header.type == MONITOR_LOAD && s->phase == PHASE_PREPARED)
        goes_on = load_guest(s, &m);
    else if (r > 0) {
        error_set(&err, EPROTO, "PROTOCOL_ERROR", "message %s: not at this time", monitor_type_name(m.header.type));
        monitor_send_failed(s->setup, MONITOR_STAGE_PROTOCOL, err);
    }
    if (r > 0)
        monitor_message_end(&m);
    return goes_on;
}

static bool is_in(const int *place, const int *array, size_t n)
{
    return place >= array && place < array + n;
}

static void serve_connection(struct supervisor *s, int *place)
{
    const int connection = *place;

    if (request_serve(s, connection))
        return;
    sessions_forget(s, connection);
    *place = close_fd(*place);
}

/* -EPIPE: QEMU is gone or the monitor has no future. */
static int happened(struct supervisor *s, int *place, short events)
{
    int r = 0;

    if (place == &s->signals)
        take_signals(s);
    else if (place == &s->qmp.fd)
        r = qmp_read(&s->qmp);
    else if (place == &s->child.errors)
        child_read_errors(&s->child);
    else if (place == &s->agent)
        agent_read(s);
    else if (place == &s->listen)
        take_connection(s);
    else if (place == &s->setup)
        r = take_setup(s) ? 0 : -EPIPE;
    else if (is_in(place, s->inputs, INPUT_MAX))
        console_input(s, place);
    else if (is_in(place, s->connections, CONNECTION_MAX))
        serve_connection(s, place);
    else if (!sessions_happened(s, place, events)) {
        if (events & POLLOUT)
            console_flush(s);
        console_read(s, place, LOG_STREAM_OUT);
    }
    return r;
}

int supervisor_turn(struct supervisor *s, int timeout_ms, bool requests)
{
    struct polled p;
    int failed = 0;

    collect(s, &p, requests);
    int n = poll(p.fds, p.n, timeout_ms);
    for (unsigned i = 0; i < p.n && n > 0; i++)
        if (p.fds[i].revents && *p.places[i] == p.fds[i].fd) {
            int r = happened(s, p.places[i], p.fds[i].revents);
            if (r == -EPROTO) {
                s->hung = "it does not speak QMP any more";
                child_kill(&s->child);
            }
            if (r < 0)
                failed = r;
            if (p.places[i] == &s->child.errors && (p.fds[i].revents & POLLHUP) && !(p.fds[i].revents & POLLIN))
                s->child.errors = close_fd(s->child.errors);
        }
    if (!failed && s->child.pid > 0 && child_has_ended(&s->child))
        failed = -EPIPE;
    return failed;
}

static int pump(void *context, int timeout_ms)
{
    return supervisor_turn(context, timeout_ms, false);
}

void supervisor_connect(struct supervisor *s, int qmp)
{
    qmp_open(&s->qmp, qmp, end_events, pump, s);
}

/* ---- life signs ---- */

static bool starved(struct supervisor *s, uint64_t silent_ns)
{
    uint64_t waited = child_times(&s->child).starved_ns - s->starved_base;

    return waited > silent_ns / 2;
}

static void check_life(struct supervisor *s)
{
    uint64_t now = now_ns();

    if (!s->beating)
        return;
    if (!s->qmp.asked_ns) {
        if (now - s->beaten_ns < (uint64_t)BEAT_MS * MILLISECOND)
            return;
        s->beaten_ns = now;
        s->starved_base = child_times(&s->child).starved_ns;
        if (qmp_beat(&s->qmp) == 0)
            return;
    }
    const uint64_t open = now - s->qmp.asked_ns, heard = now - s->qmp.heard_ns, silent = open < heard ? open : heard;
    if (silent < (uint64_t)SILENT_MS * MILLISECOND && open < (uint64_t)PATIENCE_MS * MILLISECOND)
        return;
    if (open < (uint64_t)PATIENCE_MS * MILLISECOND && starved(s, silent))
        return;
    s->hung = "it does not answer QMP";
    child_kill(&s->child);
}

/*
 * LOAD that waits (for a snapshot to start others from) is answered when the guest has come to rest: what it still did
 * then, each of them would do again, in memory of its own. A Linux is ready when its application was begun, with half
 * of its services to follow. Busy is who runs or would run, so that a loaded host does not look like a guest at rest.
 */
static void check_calm(struct supervisor *s)
{
    const uint64_t now = now_ns();

    if (s->setup < 0 || !s->ready)
        return;
    if (s->calm_since_ns && now - s->calm_since_ns < (uint64_t)CALM_MS * MILLISECOND)
        return;
    const struct child_times t = child_times(&s->child);
    const uint64_t busy = t.ran_ns + t.starved_ns - s->calm_base;
    if ((s->calm_since_ns && busy < (now - s->calm_since_ns) / CALM_PART) ||
        now - s->ready_ns > (uint64_t)CALM_WAIT_MS * MILLISECOND)
        load_answer_ready(s);
    s->calm_base += busy;
    s->calm_since_ns = now;
}

/* A first signal asks a guest that can be asked; anything else ends it. */
static void check_stop(struct supervisor *s)
{
    int signal = s->stop_signal;

    s->stop_signal = 0;
    if (!signal)
        return;
    if (s->phase == PHASE_RUNNING && !s->stopping) {
        s->stopping = signal;
        if (end_ask_guest(s))
            return;
    }
    s->stopping = signal;
    child_kill(&s->child);
}

/* What QEMU had said before it ended is still in the sockets. */
static void drain(struct supervisor *s)
{
    for (int i = 0; i < DRAIN_TURNS && s->qmp.fd >= 0; i++)
        if (qmp_read(&s->qmp) < 0)
            qmp_close(&s->qmp);
    if (s->child.errors >= 0)
        child_read_errors(&s->child);
    for (int i = 0; i < DRAIN_TURNS && s->sessions.port >= 0; i++)
        sessions_happened(s, &s->sessions.port, POLLIN);
    sessions_close(s);
    for (int i = 0; i < DRAIN_TURNS && s->console >= 0; i++)
        console_read(s, &s->console, LOG_STREAM_OUT);
    for (int i = 0; i < DRAIN_TURNS && s->virtio_console >= 0; i++)
        console_read(s, &s->virtio_console, LOG_STREAM_OUT);
}

static int open_signals(struct supervisor *s)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < 4; i++)
        sigaddset(&set, (const int[]){SIGCHLD, SIGTERM, SIGINT, SIGHUP}[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signals < 0 ? -errno : 0;
}

/* Until the next heartbeat, or shorter while one is open. */
static int turn_ms(const struct supervisor *s)
{
    return s->qmp.asked_ns ? TURN_MS : BEAT_MS;
}

int supervisor_run(struct supervisor *s)
{
    if (open_signals(s) < 0)
        return EXIT_FAILURE;
    for (;;) {
        int r = supervisor_turn(s, s->beating ? turn_ms(s) : -1, true);
        if (r < 0 || s->moved)
            break;
        check_stop(s);
        sessions_look_at_sizes(s);
        check_life(s);
        check_calm(s);
        if (s->child.pid > 0 && child_has_ended(&s->child))
            break;
    }
    if (s->qmp.fd >= 0 && !s->hung && !s->moved)
        child_wait(&s->child, LAST_WORDS_MS); /* its socket closes a little before its end */
    child_kill(&s->child);
    drain(s);
    if (s->setup >= 0) /* it did not come to rest */
        s->ready = false;
    load_answer_ready(s);
    end_write(s);
    return EXIT_SUCCESS;
}
