/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One codec per message: a function that visits the fields of its struct in the order of the wire. Which way it goes
 * (encode, decode, clear) is the cursor's matter. Runs in daemon and launcher; the fuzz target decode-message enters
 * at proto_decode(). Adding a field here changes the encoding: raise PROTO_VERSION.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/codes.h"
#include "proto/codec.h"
#include "proto/proto.h"
#include "proto/wire.h"

enum {
    ERROR_DEPTH_MAX = 16,  /* causes behind one error; deeper ones are cut */
    ERROR_TEXT_MAX = 4096, /* bytes of one message or hint */
    PATH_TEXT_MAX = 4096,
};

static void visit_enum(struct wire *w, void *value, uint32_t min, uint32_t max)
{
    uint32_t v = 0;

    if (w->mode == WIRE_ENCODE)
        memcpy(&v, value, sizeof(v));
    wire_range(w, &v, min, max);
    if (w->mode == WIRE_DECODE && !w->error)
        memcpy(value, &v, sizeof(v));
}
_Static_assert(sizeof(enum plan_kind) == 4 && sizeof(enum start_mode) == 4, "visit_enum copies four bytes");

static void visit_facts(struct wire *w, struct host_facts *f)
{
    wire_bool(w, &f->cgroup_v2);
    wire_u32(w, &f->controllers);
    wire_bool(w, &f->landlock);
    wire_bool(w, &f->seccomp);
    wire_bool(w, &f->apparmor);
    wire_bool(w, &f->selinux);
    wire_bool(w, &f->user_namespaces);
    wire_bool(w, &f->idmapped_mounts);
    wire_bool(w, &f->overlay);
    wire_bool(w, &f->cap_sys_resource);
    wire_bool(w, &f->kvm_present);
    wire_bool(w, &f->kvm_linux);
    wire_bool(w, &f->vhost_net);
    wire_bool(w, &f->tun);
    wire_text(w, f->kvm_flavour, sizeof(f->kvm_flavour));
    wire_text(w, f->kvm_why_not, sizeof(f->kvm_why_not));
    wire_text(w, f->qemu, sizeof(f->qemu));
    wire_text(w, f->kernel, sizeof(f->kernel));
    wire_text(w, f->fabric_netns, sizeof(f->fabric_netns));
    wire_text(w, f->cgroup_parent, sizeof(f->cgroup_parent));
    wire_text(w, f->uplink, sizeof(f->uplink));
    wire_bool(w, &f->publish);
    wire_u32(w, &f->pool_depth);
    wire_u32(w, &f->instance_max);
    wire_u32(w, &f->cpus);
    wire_u64(w, &f->memory_bytes);
}

static void visit_hello(struct wire *w, void *message)
{
    struct message_hello *m = message;

    wire_u32(w, &m->version);
    wire_text(w, m->software, sizeof(m->software));
    visit_facts(w, &m->facts);
}

static void visit_process(struct wire *w, struct plan_process *p)
{
    size_t budget = 2 * ARGUMENT_BYTES_MAX; /* the user's and the image's together, as plan_validate() counts */

    wire_strings(w, &p->argv, 2 * ARGUMENT_MAX, &budget);
    wire_strings(w, &p->env, 2 * ARGUMENT_MAX, &budget);
    wire_string(w, &p->cwd, PATH_TEXT_MAX);
    wire_string(w, &p->user, 255);
    wire_bool(w, &p->tty);
    wire_bool(w, &p->open_stdin);
}

static void visit_limits(struct wire *w, struct limits *l)
{
    wire_u64(w, &l->cpu_milli);
    wire_text(w, l->cpuset, sizeof(l->cpuset));
    wire_u64(w, &l->memory_bytes);
    wire_u64(w, &l->pids);
    wire_u64(w, &l->io_read_bps);
    wire_u64(w, &l->io_write_bps);
    wire_u64(w, &l->io_read_iops);
    wire_u64(w, &l->io_write_iops);
    wire_u64(w, &l->storage_bytes);
    wire_u64(w, &l->cpus_max);
    wire_u64(w, &l->memory_max_bytes);
}

static void visit_root(struct wire *w, struct plan_root *r)
{
    wire_count(w, &r->layer_count, LAYER_MAX);
    for (size_t i = 0; i < r->layer_count && !w->error; i++)
        wire_text(w, r->layers[i], sizeof(r->layers[i]));
    wire_bool(w, &r->read_only);
    wire_u64(w, &r->writable_bytes);
}

static void visit_machine(struct wire *w, struct plan_machine *m)
{
    visit_enum(w, &m->monitor, PLAN_MONITOR_VMM, PLAN_MONITOR_QEMU);
    visit_enum(w, &m->boot, PLAN_BOOT_UNIKERNEL, PLAN_BOOT_MULTIBOOT);
    wire_bool(w, &m->kvm);
    wire_u64(w, &m->memory_bytes);
    wire_u32(w, &m->vcpus);
    wire_u64(w, &m->memory_max_bytes);
    wire_u32(w, &m->vcpus_max);
    wire_text(w, m->snapshot, sizeof(m->snapshot));
    wire_text(w, m->carrier, sizeof(m->carrier));
    wire_u64(w, &m->inner_memory_bytes);
    wire_u32(w, &m->inner_pids);
    wire_u32(w, &m->stop_signal);
    wire_bool(w, &m->restorable);
    wire_string(w, &m->identity, MACHINE_PARAMETERS_MAX - 1);
    wire_string(w, &m->parameters, MACHINE_PARAMETERS_MAX - 1);
}

static void visit_nic(struct wire *w, struct plan_nic *n)
{
    wire_text(w, n->link, sizeof(n->link));
    wire_bytes(w, n->mac, sizeof(n->mac));
    wire_bytes(w, &n->ipv4, sizeof(n->ipv4));
    wire_bytes(w, &n->gateway4, sizeof(n->gateway4));
    wire_u8(w, &n->prefix4);
    wire_bytes(w, &n->ipv6, sizeof(n->ipv6));
    wire_bytes(w, &n->gateway6, sizeof(n->gateway6));
    wire_u8(w, &n->prefix6);
}

static void visit_port(struct wire *w, struct spec_port *p)
{
    wire_u16(w, &p->host_port);
    wire_u16(w, &p->port);
    wire_u8(w, &p->protocol);
}

static void visit_fault(struct wire *w, struct spec_fault *f)
{
    wire_text(w, f->step, sizeof(f->step));
    wire_u32(w, &f->after_ms);
    wire_u32(w, &f->start_ms);
    wire_i32(w, &f->exit_status);
}

static void visit_plan(struct wire *w, void *message)
{
    struct launch_plan *p = message;

    wire_text(w, p->id, sizeof(p->id));
    wire_text(w, p->name, sizeof(p->name));
    wire_text(w, p->hostname, sizeof(p->hostname));
    visit_enum(w, &p->kind, PLAN_CONTAINER, PLAN_MACHINE);
    visit_enum(w, &p->start_mode, START_AUTO, START_SNAPSHOT);
    visit_process(w, &p->process);
    visit_root(w, &p->root);
    if (p->kind == PLAN_MACHINE)
        visit_machine(w, &p->machine);
    visit_limits(w, &p->limits);
    wire_u32(w, &p->capabilities);
    wire_count(w, &p->nic_count, NETWORK_PER_INSTANCE_MAX);
    for (size_t i = 0; i < p->nic_count && !w->error; i++)
        visit_nic(w, &p->nics[i]);
    wire_count(w, &p->port_count, PORT_PER_INSTANCE_MAX);
    for (size_t i = 0; i < p->port_count && !w->error; i++)
        visit_port(w, &p->ports[i]);
    wire_u64(w, &p->log_bytes_max);
    visit_fault(w, &p->fault);
}

static void visit_started(struct wire *w, void *message)
{
    struct message_started *m = message;
    size_t count = m->steps.count;

    wire_i32(w, &m->pid);
    wire_u32(w, &m->uid_base);
    visit_enum(w, &m->origin, ORIGIN_COLD, ORIGIN_SNAPSHOT);
    wire_count(w, &count, STEP_MAX);
    if (w->mode == WIRE_DECODE)
        m->steps.count = (uint32_t)count;
    for (size_t i = 0; i < count && i < STEP_MAX && !w->error; i++) {
        wire_text(w, m->steps.list[i].name, sizeof(m->steps.list[i].name));
        wire_u64(w, &m->steps.list[i].start_ns);
        wire_u64(w, &m->steps.list[i].duration_ns);
    }
}

static void visit_signal(struct wire *w, void *message)
{
    struct message_signal *m = message;

    wire_text(w, m->id, sizeof(m->id));
    wire_i32(w, &m->signal);
}

static void visit_id(struct wire *w, void *message)
{
    struct message_id *m = message;

    wire_text(w, m->id, sizeof(m->id));
}

static void visit_update(struct wire *w, void *message)
{
    struct message_update *m = message;

    wire_text(w, m->id, sizeof(m->id));
    visit_limits(w, &m->limits);
    wire_u32(w, &m->vcpus);
    wire_u64(w, &m->machine_bytes);
}

static void visit_stats(struct wire *w, void *message)
{
    struct instance_stats *s = message;

    wire_u32(w, &s->known);
    wire_u64(w, &s->cpu_ns);
    wire_u64(w, &s->memory_bytes);
    wire_u64(w, &s->memory_peak_bytes);
    wire_u64(w, &s->pids);
    wire_u64(w, &s->oom_kills);
    wire_u64(w, &s->throttled_ns);
    wire_u64(w, &s->io_read_bytes);
    wire_u64(w, &s->io_write_bytes);
    wire_u64(w, &s->rx_packets);
    wire_u64(w, &s->rx_bytes);
    wire_u64(w, &s->rx_dropped);
    wire_u64(w, &s->tx_packets);
    wire_u64(w, &s->tx_bytes);
    wire_u64(w, &s->tx_dropped);
}

static void visit_instance(struct wire *w, void *message)
{
    struct message_instance *m = message;

    wire_text(w, m->id, sizeof(m->id));
    wire_text(w, m->name, sizeof(m->name));
    wire_i32(w, &m->pid);
    wire_u32(w, &m->uid_base);
    wire_bool(w, &m->running);
    wire_bool(w, &m->paused);
    wire_i32(w, &m->wait_status);
    wire_bool(w, &m->oom);
    wire_bool(w, &m->status_known);
    wire_u64(w, &m->exited_at_ns);
}

static void visit_exited(struct wire *w, void *message)
{
    struct message_exited *m = message;

    wire_text(w, m->id, sizeof(m->id));
    wire_i32(w, &m->wait_status);
    wire_bool(w, &m->oom);
    wire_bool(w, &m->status_known);
    wire_u64(w, &m->exited_at_ns);
}

static void visit_exec(struct wire *w, void *message)
{
    struct message_exec *m = message;

    wire_text(w, m->id, sizeof(m->id));
    visit_process(w, &m->process);
}

static void visit_exec_started(struct wire *w, void *message)
{
    struct message_exec_started *m = message;

    wire_u32(w, &m->exec);
}

static void visit_exec_signal(struct wire *w, void *message)
{
    struct message_exec_signal *m = message;

    wire_text(w, m->id, sizeof(m->id));
    wire_u32(w, &m->exec);
    wire_i32(w, &m->signal);
}

static void visit_exec_exited(struct wire *w, void *message)
{
    struct message_exec_exited *m = message;

    wire_text(w, m->id, sizeof(m->id));
    wire_u32(w, &m->exec);
    wire_i32(w, &m->wait_status);
}

static void visit_link(struct wire *w, void *message)
{
    struct link *l = message;

    wire_text(w, l->name, sizeof(l->name));
    wire_bytes(w, &l->gateway4, sizeof(l->gateway4));
    wire_u8(w, &l->prefix4);
    wire_bytes(w, &l->gateway6, sizeof(l->gateway6));
    wire_u8(w, &l->prefix6);
    wire_u16(w, &l->mtu);
    wire_bool(w, &l->uplink);
}

static void visit_link_remove(struct wire *w, void *message)
{
    struct message_link_remove *m = message;

    wire_text(w, m->name, sizeof(m->name));
}

static void visit_unpack(struct wire *w, void *message)
{
    struct message_unpack *m = message;

    wire_text(w, m->archive_name, sizeof(m->archive_name));
    wire_u64(w, &m->bytes_max);
    wire_u64(w, &m->files_max);
}

static void visit_layer_remove(struct wire *w, void *message)
{
    struct message_layer_remove *m = message;

    wire_text(w, m->digest, sizeof(m->digest));
}

static void visit_pool_reply(struct wire *w, void *message)
{
    struct message_pool_reply *m = message;

    wire_u32(w, &m->depth);
    wire_u32(w, &m->ready);
    wire_u32(w, &m->snapshots);
    wire_u64(w, &m->taken);
    wire_u64(w, &m->missed);
}

static void visit_snapshot(struct wire *w, void *message)
{
    struct message_snapshot *m = message;

    wire_text(w, m->id, sizeof(m->id));
    wire_text(w, m->snapshot, sizeof(m->snapshot));
}

static void visit_snapshot_remove(struct wire *w, void *message)
{
    struct message_snapshot_remove *m = message;

    wire_text(w, m->snapshot, sizeof(m->snapshot));
}

static void visit_cancel(struct wire *w, void *message)
{
    struct message_cancel *m = message;

    wire_u32(w, &m->request);
}

/* The fields of one error without its cause. code becomes one of our own static strings when it comes off the wire. */
static void visit_one_error(struct wire *w, struct error *e)
{
    char code[64] = "";
    int32_t errnum = e->errnum;

    if (w->mode == WIRE_ENCODE && e->code)
        strncpy(code, e->code, sizeof(code) - 1);
    wire_text(w, code, sizeof(code));
    wire_string(w, &e->message, ERROR_TEXT_MAX);
    wire_string(w, &e->hint, ERROR_TEXT_MAX);
    wire_i32(w, &errnum);
    if (w->mode != WIRE_DECODE || w->error)
        return;
    e->code = error_code_intern(code);
    e->errnum = errnum;
    if (errnum < 0)
        wire_fail(w, EBADMSG, "an error number is negative");
    if (!e->message)
        wire_fail(w, EBADMSG, "an error has no message");
}

/* An error whose texts fit the wire: longer ones are cut, since a failure must not vanish for being verbose. */
static void put_error(struct wire *w, const struct error *e)
{
    char message[ERROR_TEXT_MAX + 1] = "", hint[ERROR_TEXT_MAX + 1] = "";
    struct error copy = {.code = e->code, .message = message, .errnum = e->errnum};

    strncpy(message, e->message ? e->message : "", ERROR_TEXT_MAX);
    if (e->hint) {
        strncpy(hint, e->hint, ERROR_TEXT_MAX);
        copy.hint = hint;
    }
    visit_one_error(w, &copy);
}

static void put_errors(struct wire *w, const struct error *e)
{
    for (int depth = 0; e && !w->error; e = e->cause, depth++) {
        bool more = e->cause && depth + 1 < ERROR_DEPTH_MAX;
        put_error(w, e);
        wire_bool(w, &more);
        if (!more)
            break;
    }
}

static void take_errors(struct wire *w, struct error *e)
{
    for (int depth = 0; !w->error; depth++) {
        bool more = false;
        visit_one_error(w, e);
        wire_bool(w, &more);
        if (!more || w->error)
            break;
        if (depth + 1 >= ERROR_DEPTH_MAX) {
            wire_fail(w, EBADMSG, "an error has too many causes");
            break;
        }
        e->cause = calloc(1, sizeof(*e));
        if (!e->cause)
            wire_fail(w, ENOMEM, "out of memory");
        e = e->cause;
    }
}

static void visit_failed(struct wire *w, void *message)
{
    struct error *e = message;

    if (w->mode == WIRE_ENCODE) {
        put_errors(w, e);
    } else if (w->mode == WIRE_DECODE) {
        take_errors(w, e);
    } else {
        free(e->message);
        free(e->hint);
        error_free(e->cause);
        memset(e, 0, sizeof(*e));
    }
}

/* visit NULL and size 0: the message is its type alone. */
static const struct codec {
    const char *name;
    size_t size;
    void (*visit)(struct wire *w, void *message);
    uint8_t fd_min, fd_max; /* descriptors that may stand beside it */
} codecs[MESSAGE_TYPE_COUNT] = {
    [MESSAGE_HELLO] = {"HELLO", sizeof(struct message_hello), visit_hello},
    [MESSAGE_START] = {"START", sizeof(struct launch_plan), visit_plan},
    [MESSAGE_STARTED] = {"STARTED", sizeof(struct message_started), visit_started},
    [MESSAGE_SIGNAL] = {"SIGNAL", sizeof(struct message_signal), visit_signal},
    [MESSAGE_PAUSE] = {"PAUSE", sizeof(struct message_id), visit_id},
    [MESSAGE_RESUME] = {"RESUME", sizeof(struct message_id), visit_id},
    [MESSAGE_UPDATE] = {"UPDATE", sizeof(struct message_update), visit_update},
    [MESSAGE_STATS] = {"STATS", sizeof(struct message_id), visit_id},
    [MESSAGE_STATS_REPLY] = {"STATS_REPLY", sizeof(struct instance_stats), visit_stats},
    [MESSAGE_RELEASE] = {"RELEASE", sizeof(struct message_id), visit_id},
    [MESSAGE_LIST] = {"LIST", 0, NULL},
    [MESSAGE_INSTANCE] = {"INSTANCE", sizeof(struct message_instance), visit_instance},
    [MESSAGE_EXITED] = {"EXITED", sizeof(struct message_exited), visit_exited},
    [MESSAGE_EXEC] = {"EXEC", sizeof(struct message_exec), visit_exec, 0, 3},
    [MESSAGE_EXEC_STARTED] = {"EXEC_STARTED", sizeof(struct message_exec_started), visit_exec_started, 0, 1},
    [MESSAGE_EXEC_SIGNAL] = {"EXEC_SIGNAL", sizeof(struct message_exec_signal), visit_exec_signal},
    [MESSAGE_EXEC_EXITED] = {"EXEC_EXITED", sizeof(struct message_exec_exited), visit_exec_exited},
    [MESSAGE_LOGS] = {"LOGS", sizeof(struct message_id), visit_id},
    [MESSAGE_LOGS_REPLY] = {"LOGS_REPLY", 0, NULL, 2, 2},
    [MESSAGE_CONSOLE] = {"CONSOLE", sizeof(struct message_id), visit_id},
    [MESSAGE_CONSOLE_REPLY] = {"CONSOLE_REPLY", 0, NULL, 1, 1},
    [MESSAGE_LINK_ADD] = {"LINK_ADD", sizeof(struct link), visit_link},
    [MESSAGE_LINK_REMOVE] = {"LINK_REMOVE", sizeof(struct message_link_remove), visit_link_remove},
    [MESSAGE_UNPACK] = {"UNPACK", sizeof(struct message_unpack), visit_unpack, 2, 2},
    [MESSAGE_LAYER_REMOVE] = {"LAYER_REMOVE", sizeof(struct message_layer_remove), visit_layer_remove},
    [MESSAGE_POOL] = {"POOL", 0, NULL},
    [MESSAGE_POOL_REPLY] = {"POOL_REPLY", sizeof(struct message_pool_reply), visit_pool_reply},
    [MESSAGE_SNAPSHOT] = {"SNAPSHOT", sizeof(struct message_snapshot), visit_snapshot},
    [MESSAGE_SNAPSHOT_REMOVE] = {"SNAPSHOT_REMOVE", sizeof(struct message_snapshot_remove), visit_snapshot_remove},
    [MESSAGE_CANCEL] = {"CANCEL", sizeof(struct message_cancel), visit_cancel},
    [MESSAGE_DONE] = {"DONE", 0, NULL},
    [MESSAGE_FAILED] = {"FAILED", sizeof(struct error), visit_failed},
};

static const struct codec *codec_of(uint32_t type)
{
    return type < MESSAGE_TYPE_COUNT && codecs[type].name ? &codecs[type] : NULL;
}

const char *proto_type_name(enum message_type type)
{
    const struct codec *c = codec_of(type);

    return c ? c->name : "UNKNOWN";
}

size_t proto_body_size(enum message_type type)
{
    const struct codec *c = codec_of(type);

    return c ? c->size : 0;
}

bool proto_fds_allowed(enum message_type type, size_t fd_count)
{
    const struct codec *c = codec_of(type);

    return c && fd_count >= c->fd_min && fd_count <= c->fd_max;
}

void proto_message_clear(enum message_type type, void *message)
{
    const struct codec *c = codec_of(type);
    struct wire w = {.mode = WIRE_CLEAR};

    if (c && c->visit && message)
        c->visit(&w, message);
}

static void visit_message(struct wire *w, const struct codec *c, uint32_t request, uint32_t type, const void *message)
{
    wire_u32(w, &request);
    wire_u32(w, &type);
    if (c->visit)
        c->visit(w, (void *)message); /* WIRE_ENCODE writes nothing to it */
}

int proto_encode(enum message_type type, uint32_t request, const void *message, uint8_t **ret_data, size_t *ret_size,
                 struct error **err)
{
    const struct codec *c = codec_of(type);
    struct wire count = {.mode = WIRE_ENCODE, .size = PROTO_MESSAGE_MAX};
    auto_free uint8_t *data = NULL;

    if (!c || (c->visit && !message))
        return error_set(err, EINVAL, "INTERNAL", "message %u cannot be encoded", (unsigned)type);
    visit_message(&count, c, request, type, message);
    if (count.error)
        return error_set(err, count.error, "INVALID_VALUE", "message %s cannot be sent: %s", c->name, count.what);
    data = malloc(count.at);
    if (!data)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a message of %zu bytes", count.at);
    struct wire w = {.mode = WIRE_ENCODE, .data = data, .size = count.at};
    visit_message(&w, c, request, type, message);
    *ret_data = take_ptr(data);
    *ret_size = w.at;
    return 0;
}

int proto_decode(const uint8_t *data, size_t size, struct proto_message *ret, struct error **err)
{
    struct wire w = {.mode = WIRE_DECODE, .data = (uint8_t *)data, .size = size}; /* WIRE_DECODE only reads data */
    uint32_t request = 0, type = 0;
    const struct codec *c;
    void *body = NULL;

    wire_u32(&w, &request);
    wire_u32(&w, &type);
    c = w.error ? NULL : codec_of(type);
    if (!c || size > PROTO_MESSAGE_MAX)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "a packet of %zu bytes is no message (type %u)", size, type);
    if (c->size) {
        body = calloc(1, c->size);
        if (!body)
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a message of %zu bytes", c->size);
        c->visit(&w, body);
    }
    if (!w.error && w.at != size)
        wire_fail(&w, EBADMSG, "bytes are left behind its end");
    if (w.error) {
        proto_message_clear(type, body);
        free(body);
        return error_set(err, w.error == ENOMEM ? ENOMEM : EPROTO, w.error == ENOMEM ? "NO_MEMORY" : "PROTOCOL_ERROR",
                         "message %s does not decode at byte %zu: %s", c->name, w.at, w.what);
    }
    *ret = (struct proto_message){.type = type, .request = request, .body = body, .fds = {-1, -1, -1, -1}};
    return 0;
}
