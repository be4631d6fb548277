/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crun and runc: `run --detach` of a bundle made from their own `spec`, with a veth made by a shell hook, which is what
 * such a runtime needs to have a network at all. The bundle is made ahead; runtime and hook are timed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/command.h"
#include "bench/subjects/peer_image.h"

#include "bench/subject.h"

enum { PORT_IPERF = 5001, LAST_FIXED = 10 };

struct oci {
    const char *program;
    bool is_clone;
    struct peer_image image;
    char netns[48]; /* name of the fabric */
    int shelter;    /* process that holds a mount namespace without the host's cgroups; 0: none */
    char shelter_path[48];
    char state[160];            /* --root */
    char name[48], bundle[224]; /* of the next container */
    struct in_addr address;
};

/* $1 folder, $2 fabric: state, the hook, and a namespace with a bridge. */
static const char set_up_script[] =
    "mkdir -p \"$1/state\"\n"
    "cat >\"$1/hook\" <<'END'\n"
    "#!/bin/sh\n"
    "set -eu\n"
    "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/' | grep -m1 '^[0-9]*$')\n"
    "ip -n \"$1\" link add \"$2\" type veth peer name eth0 address \"$4\" netns \"$pid\"\n"
    "ip -n \"$1\" link set \"$2\" master probe up\n"
    "nsenter -t \"$pid\" -n ip -batch - <<EOF\n"
    "link set lo up\n"
    "addr add $3/24 dev eth0\n"
    "link set eth0 up\n"
    "EOF\n"
    "END\n"
    "chmod 755 \"$1/hook\"\n"
    "ip netns add \"$2\"; ip -n \"$2\" link add probe type bridge; ip -n \"$2\" addr add \"$3/24\" dev probe\n"
    "ip -n \"$2\" link set probe up; ip -n \"$2\" link set lo up\n";

static void oci_close(struct subject *s)
{
    struct oci *o = s->state;
    const char *arguments[] = {o ? o->netns : "", NULL};

    if (o && !o->is_clone) {
        if (o->shelter > 0)
            kill(o->shelter, SIGKILL);
        if (*o->netns)
            command_shell(NULL, "ip netns del \"$1\"", arguments, NULL, NULL);
        peer_image_close(&o->image);
    }
    free(o);
    s->state = NULL;
}

static int open_common(struct subject *s, const char *program, const char *subnet, const struct bench_options *options,
                       struct error **err)
{
    struct oci *o = calloc(1, sizeof(*o));
    const char *argv[] = {program, "--version", NULL};
    auto_free char *version = NULL;
    char gateway[32], address[32];
    int r = o ? command_find(program, program, err) : error_set(err, ENOMEM, "NO_MEMORY", "no memory for a peer");

    s->state = o;
    if (r == 0)
        r = command_run(NULL, argv, &version, NULL, err);
    if (r == 0)
        r = peer_image_open(&o->image, options, err);
    if (r == 0) {
        snprintf(gateway, sizeof(gateway), "%s.1", subnet);
        snprintf(address, sizeof(address), "%s.%d", subnet, LAST_FIXED);
        inet_aton(gateway, &s->target.source);
        inet_aton(address, &s->target.address);
        s->target.port = PORT_IPERF;
        o->program = program;
        snprintf(o->state, sizeof(o->state), "%s/state", o->image.folder);
        snprintf(o->netns, sizeof(o->netns), "coracle-bench-%s-%d", program, (int)getpid());
        snprintf(s->target.netns, sizeof(s->target.netns), "/run/netns/%s", o->netns);
        version[strcspn(version, "\n")] = '\0';
        snprintf(s->version, sizeof(s->version), "%.90s", version);
        const char *arguments[] = {o->image.folder, o->netns, gateway, NULL};
        r = command_shell(NULL, set_up_script, arguments, NULL, err);
    }
    if (r < 0)
        oci_close(s);
    return r;
}

/*
 * crun 1.8 refuses a host with both cgroup hierarchies even when it is to make no cgroup. It is then run where it sees
 * none: less work for it than on another host, which its version in the report says.
 */
static int take_shelter(struct subject *s, struct error **err)
{
    struct oci *o = s->state;
    auto_free char *text = NULL;
    size_t used = strlen(s->version);
    int r = command_shell(NULL,
                          "unshare -m sh -c 'umount -l /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup; "
                          "exec sleep 86400' >/dev/null 2>&1 </dev/null &\n"
                          "sleep 0.3; echo $!",
                          NULL, &text, err);

    if (r < 0)
        return r;
    o->shelter = atoi(text);
    snprintf(o->shelter_path, sizeof(o->shelter_path), "/proc/%d/ns/mnt", o->shelter);
    snprintf(s->version + used, sizeof(s->version) - used, ", without cgroups (refuses this hybrid host)");
    return 0;
}

static int crun_open(struct subject *s, const struct bench_options *options, struct error **err)
{
    int r = open_common(s, "crun", "198.19.252", options, err);

    if (r < 0 || access("/sys/fs/cgroup/unified", F_OK) != 0)
        return r;
    r = take_shelter(s, err);
    if (r < 0)
        oci_close(s);
    return r;
}

static int runc_open(struct subject *s, const struct bench_options *options, struct error **err)
{
    return open_common(s, "runc", "198.19.253", options, err);
}

/* The runtime's own default configuration with our program, root and hook. */
static int write_config(struct oci *o, const uint8_t mac[6], struct error **err)
{
    char path[256], hook[160], veth[16], ip[32], mac_text[24];
    const uint8_t *a = (const uint8_t *)&o->address;
    json_t *config, *hooks;
    int r;

    snprintf(path, sizeof(path), "%s/config.json", o->bundle);
    config = json_load_file(path, 0, NULL);
    if (!config)
        return error_set(err, EINVAL, "INTERNAL", "%s spec wrote no configuration", o->program);
    snprintf(hook, sizeof(hook), "%s/hook", o->image.folder);
    snprintf(veth, sizeof(veth), "v%u", (unsigned)ntohl(o->address.s_addr) & 0xffff);
    snprintf(ip, sizeof(ip), "%u.%u.%u.%u", a[0], a[1], a[2], a[3]);
    snprintf(mac_text, sizeof(mac_text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
             mac[5]);
    hooks = json_pack("{s:[{s:s, s:[s,s,s,s,s], s:[s]}]}", "createRuntime", "path", hook, "args", "hook", o->netns,
                      veth, ip, mac_text, "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin");
    json_object_set_new(config, "hooks", hooks);
    json_object_set(json_object_get(config, "process"), "args", o->image.entrypoint);
    json_object_set_new(json_object_get(config, "process"), "terminal", json_false());
    json_object_set_new(json_object_get(config, "root"), "path", json_string(o->image.rootfs));
    json_object_set_new(json_object_get(config, "root"), "readonly", json_true());
    r = json_dump_file(config, path, JSON_COMPACT);
    json_decref(config);
    return r == 0 ? 0 : error_set(err, EIO, "NO_SPACE", "%s cannot be written", path);
}

static void mac_of(struct in_addr address, uint8_t mac[6])
{
    mac[0] = 0x02;
    mac[1] = 0x43;
    memcpy(mac + 2, &address, 4);
}

static int oci_prepare(struct subject *s, enum subject_start start, bool fixed_address, struct error **err)
{
    struct oci *o = s->state;
    unsigned serial = subject_serial();
    const char *arguments[] = {o->program, o->bundle, NULL};
    uint8_t mac[6];
    int r;

    if (start == SUBJECT_START_POOL)
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "%s has no warm pool", o->program);
    o->address = s->target.address;
    if (!fixed_address)
        o->address.s_addr = htonl(ntohl(s->target.address.s_addr) + 1 + serial % 200);
    mac_of(o->address, mac);
    snprintf(o->name, sizeof(o->name), "coracle-bench-%d-%u", (int)getpid(), serial);
    snprintf(o->bundle, sizeof(o->bundle), "%s/%s", o->image.folder, o->name);
    r = command_shell(NULL, "mkdir \"$2\"; cd \"$2\"; exec \"$1\" spec", arguments, NULL, err);
    return r < 0 ? r : write_config(o, mac, err);
}

static int oci_create(struct subject *s, struct subject_instance *ret, struct error **err)
{
    struct oci *o = s->state;
    struct subject_instance instance = {.address = o->address};
    const char *argv[] = {o->program, "--root", o->state, "run", "--detach", "--bundle", o->bundle, o->name, NULL};
    const char *without[] = {
        o->program, "--cgroup-manager=disabled", "--root", o->state, "run", "--detach", "--bundle", o->bundle, o->name,
        NULL};
    int r = command_run_in(o->shelter_path, o->shelter ? without : argv, &instance.t0_ns, err);

    mac_of(o->address, instance.mac);
    snprintf(instance.id, sizeof(instance.id), "%s", o->name);
    if (r < 0)
        s->ops->destroy(s, &instance, NULL);
    else
        *ret = instance;
    return r;
}

static int oci_inspect(struct subject *s, struct subject_instance *i, struct error **err)
{
    return 0; /* address and mac are the bundle's own, known since create */
}

/* Also waits until the veth is gone: `delete` returns before the network namespace is. */
static const char destroy_script[] =
    "${7:+nsenter --mount=$7} \"$1\" --root \"$2\" delete -f \"$3\"; rm -rf \"$4/$3\"\n"
    "for i in 1 2 3 4 5 6 7 8 9 10; do ip -n \"$5\" link show \"$6\" >/dev/null 2>&1 || exit 0; sleep 0.1; done\n"
    "ip -n \"$5\" link del \"$6\"\n";

static int oci_destroy(struct subject *s, struct subject_instance *i, struct error **err)
{
    struct oci *o = s->state;
    char veth[16];
    const char *arguments[] = {o->program, o->state, i->id, o->image.folder, o->netns, veth, o->shelter_path, NULL};

    snprintf(veth, sizeof(veth), "v%u", (unsigned)ntohl(i->address.s_addr) & 0xffff);
    return command_shell(NULL, destroy_script, arguments, NULL, err);
}

static int oci_image_bytes(struct subject *s, uint64_t *ret_bytes, struct error **err)
{
    struct oci *o = s->state;
    struct stat st;

    if (stat(o->image.tar, &st) < 0)
        return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "%s", o->image.tar);
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

static int oci_clone(const struct subject *subject, struct subject *ret, struct error **err)
{
    struct oci *o = malloc(sizeof(*o));

    if (!o)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a peer");
    *o = *(const struct oci *)subject->state;
    o->is_clone = true;
    *ret = *subject;
    ret->state = o;
    return 0;
}

#define OCI_OPS                                                                                                        \
    .close = oci_close, .prepare = oci_prepare, .create = oci_create, .inspect = oci_inspect, .destroy = oci_destroy,  \
    .image_bytes = oci_image_bytes, .clone = oci_clone

/* No wait: `run --detach` returns when the container runs. No footprint: there is no monitor, and the host's account
 * has the rest. */
const struct subject_ops subject_crun = {.name = "crun", .open = crun_open, OCI_OPS};
const struct subject_ops subject_runc = {.name = "runc", .open = runc_open, OCI_OPS};
