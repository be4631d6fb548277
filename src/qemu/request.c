/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to a running machine: one message, one answer. A peer that does not keep to the protocol loses its
 * connection. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "qemu/supervisor.h"

static int ask(struct supervisor *s, const char *command, struct error **err)
{
    return qmp_call(&s->qmp, command, NULL, -1, QMP_TIMEOUT_MS, NULL, err);
}

static uint64_t balloon_bytes(struct supervisor *s)
{
    json_t *answer = NULL;
    uint64_t actual = s->machine.memory_bytes;

    if (!(s->machine.flags & MONITOR_LOAD_BALLOON) ||
        qmp_call(&s->qmp, "query-balloon", NULL, -1, QMP_TIMEOUT_MS, &answer, NULL) < 0)
        return 0;
    json_t *value = json_object_get(answer, "actual");
    if (json_is_integer(value) && json_integer_value(value) > 0)
        actual = (uint64_t)json_integer_value(value);
    json_decref(answer);
    return actual < s->machine.memory_bytes ? s->machine.memory_bytes - actual : 0;
}

static void send_status(struct supervisor *s, int connection)
{
    struct monitor_status status = {
        .header.type = MONITOR_STATUS_REPLY,
        .accelerator = s->machine.kvm ? MONITOR_ACCELERATOR_KVM : MONITOR_ACCELERATOR_TCG,
        .ready = s->ready,
        .paused = s->paused,
        .generation = s->generation,
        .memory_bytes = s->machine.memory_bytes + s->plugged_bytes,
        .balloon_bytes = balloon_bytes(s),
        .boot_ns = s->ready ? s->ready_ns - s->times[0] : 0,
    };

    monitor_send(connection, &status.header, sizeof(status), NULL, 0, NULL);
}

static int set_memory(struct supervisor *s, const struct monitor_memory *m, struct error **err)
{
    uint64_t all = s->machine.memory_bytes;

    if (!(s->machine.flags & MONITOR_LOAD_BALLOON))
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "memory: the machine has no balloon");
    if (m->balloon_bytes >= all)
        return error_set(err, EINVAL, "INVALID_VALUE", "memory: the guest cannot give up all it has");
    return qmp_call(&s->qmp, "balloon", json_pack("{s:I}", "value", (json_int_t)(all - m->balloon_bytes)), -1,
                    QMP_TIMEOUT_MS, NULL, err);
}

static int power(struct supervisor *s, struct error **err)
{
    if (end_ask_guest(s))
        return 0;
    error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "the guest has neither a power button nor an agent");
    error_hint(err, "docs/formats/guest-agent.md says what an agent is; or stop it at once");
    return -ENOTSUP;
}

/* ret_fd: goes along with DONE. Returns 0 or -errno with *err and *ret_stage. */
static int serve(struct supervisor *s, int connection, struct monitor_message *m, int *ret_fd,
                 enum monitor_stage *stage, struct error **err)
{
    switch (m->header.type) {
    case MONITOR_PAUSE:
        return s->paused ? 0 : ask(s, "stop", err);
    case MONITOR_RESUME:
        return s->paused ? ask(s, "cont", err) : 0;
    case MONITOR_SNAPSHOT:
        *stage = MONITOR_STAGE_SNAPSHOT;
        return save_snapshot(s, m->fds[0], err);
    case MONITOR_MIGRATE:
        *stage = MONITOR_STAGE_SNAPSHOT;
        return migrate_out(s, m->fds[0], err);
    case MONITOR_MEMORY:
        *stage = MONITOR_STAGE_MEMORY;
        return set_memory(s, &m->memory, err);
    case MONITOR_RESIZE:
        *stage = MONITOR_STAGE_MEMORY;
        return resize_machine(s, m->resize.vcpus, m->resize.memory_bytes, err);
    case MONITOR_CONSOLE:
        *ret_fd = console_open_input(s, err);
        return *ret_fd < 0 ? *ret_fd : 0;
    case MONITOR_POWER:
        return power(s, err);
    case MONITOR_NET:
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "vhost-user: QEMU keeps its back ends itself");
    case MONITOR_EXEC:
        *stage = MONITOR_STAGE_EXEC;
        return sessions_exec(s, connection, m, err);
    case MONITOR_SIGNAL:
        *stage = MONITOR_STAGE_EXEC;
        return sessions_signal(s, connection, m->signal.signal, err);
    case MONITOR_VSOCK:
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "vsock: this machine has none");
    default:
        *stage = MONITOR_STAGE_PROTOCOL;
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "message %s: not on this socket",
                         monitor_type_name(m->header.type));
    }
}

bool request_serve(struct supervisor *s, int connection)
{
    static struct monitor_message m;
    auto_error struct error *err = NULL;
    enum monitor_stage stage = MONITOR_STAGE_EMULATOR;
    auto_fd int fd = -1;
    int r = monitor_receive(connection, &m, &err);

    if (r == -EAGAIN)
        return true;
    if (r <= 0) {
        if (r < 0)
            monitor_send_failed(connection, MONITOR_STAGE_PROTOCOL, err);
        return false;
    }
    if (sessions_own(s, connection)) { /* a command's: nothing but signals, and no answer between its two */
        if (m.header.type == MONITOR_SIGNAL)
            sessions_signal(s, connection, m.signal.signal, NULL);
    } else if (m.header.type == MONITOR_STATUS) {
        send_status(s, connection);
    } else if ((r = serve(s, connection, &m, &fd, &stage, &err)) < 0) {
        monitor_send_failed(connection, r == -ENOTSUP ? MONITOR_STAGE_SUPPORT : stage, err);
    } else if (m.header.type != MONITOR_EXEC) { /* that one is answered by the guest */
        monitor_send_done(connection, NULL, fd);
    }
    monitor_message_end(&m);
    return true;
}
