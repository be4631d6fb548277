/* SPDX-License-Identifier: Apache-2.0 */
/* What is a container's own in a start (start.h): a shell with its root, veth pairs, the application's exec. */
#include <errno.h>

#include "base/cleanup.h"
#include "launcher/start.h"

static bool take_prepared(struct start *s)
{
    struct instance *i = s->i;

    if (s->plan->start_mode == START_SNAPSHOT || !pool_take(s->l, s->plan, &s->shell))
        return false;
    i->uid_slot = s->shell.uid_slot;
    i->ports = s->shell.ports;
    i->has_uid = i->has_number = true;
    return true;
}

/* The root is built by another thread while this one makes namespaces and interfaces: none needs the other. As soon as
 * it is there the init gets it, to mount the rest on another processor; where there is none to be had, the network does
 * not wait for it. */
static int give_root(struct start *s, bool wait, struct error **err)
{
    if (!s->root || (!wait && !root_ready(s->root)))
        return 0;
    return shell_take_root(s->shell.shell, take_ptr(s->root), &s->steps, err);
}

static int make_shell(struct start *s, struct error **err)
{
    uint32_t uid_base = UID_FIRST + s->i->uid_slot * RUNTIME_ID_COUNT;
    int r;

    s->root = root_begin(s->l->runtime, uid_base, &s->plan->root, s->dir);
    if (!s->root)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a root");
    r = shell_create(s->l->runtime, s->i->id, uid_base, &s->shell.shell, &s->steps, err);
    start_begin_files(s);
    if (r == 0)
        r = start_check_cancelled(s, err);
    return r < 0 ? r : give_root(s, false, err);
}

static int make_cold(struct start *s, struct error **err)
{
    struct instance *i = s->i;
    int r = make_shell(s, err);

    if (r < 0)
        return r;
    uint64_t begin = monotonic_ns();
    i->ports.count = (uint32_t)s->plan->nic_count;
    r = fabric_wire(s->l->fabric, &i->ports, shell_netns_fd(s->shell.shell), s->plan->nics, &s->shell.netns_socket,
                    err);
    if (r < 0)
        i->ports.count = 0; /* nothing is attached */
    steps_add(&s->steps, "veth", begin, monotonic_ns());
    if (r == 0)
        r = give_root(s, false, err);
    return r < 0 ? r : start_check_cancelled(s, err);
}

static int give_addresses(struct start *s, struct error **err)
{
    int r = s->prepared ? fabric_set_macs(&s->i->ports, s->shell.netns_socket, s->plan->nics, err) : 0;

    if (r == 0)
        r = fabric_address(s->l->fabric, &s->i->ports, s->shell.netns_socket, s->plan->nics, err);
    s->shell.netns_socket = close_fd(s->shell.netns_socket);
    return r;
}

static int run(struct start *s, struct error **err)
{
    struct shell_start how = {.plan = s->plan,
                              .instance_dirfd = s->dir,
                              .log_fds = {s->log_fds[0], s->log_fds[1]},
                              .exit_fd = s->exit_fd,
                              .listen_fd = s->listen_fd};
    int r = give_root(s, true, err);

    if (r == 0)
        r = shell_start(s->shell.shell, &how, &s->i->container, &s->steps, err);
    if (r == 0)
        s->shell.shell = NULL;
    return r;
}

static int abandon(struct start *s, struct error **err)
{
    s->shell.netns_socket = close_fd(s->shell.netns_socket);
    root_drop(take_ptr(s->root));
    return shell_destroy(take_ptr(s->shell.shell), err);
}

const struct start_ops start_container = {
    .take_prepared = take_prepared,
    .make_cold = make_cold,
    .give_addresses = give_addresses,
    .run = run,
    .abandon = abandon,
};
