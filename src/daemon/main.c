/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracled: wires options, account, core, image store and REST layer to one event loop, under systemd or by hand.
 *
 * Started as root it makes its directories and becomes the account of --user before it opens anything; it never holds
 * a privilege while it parses a request.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/api/api.h"
#include "daemon/core.h"
#include "daemon/images.h"
#include "daemon/options.h"

struct daemon {
    struct daemon_options options;
    sd_event *loop;
    struct core *core;
    struct images *images;
    struct api *api;
    int unix_fd, tls_fd;
};

/* ---- account and directories */

/* Shared with the launcher, which sets the same owner and mode: both write in it, neither may remove the other's. */
static int make_dir(const char *path, gid_t group, bool as_root, struct error **err)
{
    if (mkdir(path, 0750) == 0) {
        if (as_root && (chown(path, 0, group) < 0 || chmod(path, 01770) < 0))
            return error_set_errno(err, errno, "INVALID_VALUE", "%s: owner and mode", path);
        return 0;
    }
    if (errno == EEXIST)
        return 0;
    error_set_errno(err, errno, "INVALID_VALUE", "%s: cannot be made", path);
    error_hint(err, "make it, or start the daemon as root once");
    return -EINVAL;
}

static int find_account(const char *name, struct passwd **ret, struct error **err)
{
    struct passwd *account = getpwnam(name);

    if (!account) {
        error_set(err, ENOENT, "INVALID_VALUE", "--user: there is no account \"%s\"", name);
        error_hint(err, "make it (useradd --system %s), or name another", name);
        return -ENOENT;
    }
    if (strcmp(name, "nobody") == 0) {
        error_set(err, EINVAL, "INVALID_VALUE", "--user: nobody is shared with other programs");
        error_hint(err, "use an account of its own: useradd --system coracle");
        return -EINVAL;
    }
    *ret = account;
    return 0;
}

static int become(const struct passwd *account, struct error **err)
{
    if (account->pw_uid == 0)
        return 0;
    if (initgroups(account->pw_name, account->pw_gid) < 0 || setgid(account->pw_gid) < 0 || setuid(account->pw_uid) < 0)
        return error_set_errno(err, errno, "FORBIDDEN", "becoming %s", account->pw_name);
    if (setuid(0) == 0) /* must be impossible by now */
        return error_set(err, EPERM, "FORBIDDEN", "privileges could not be dropped");
    return 0;
}

static int prepare_process(const struct daemon_options *o, struct error **err)
{
    struct passwd *account = NULL;
    struct rlimit files;
    bool as_root = geteuid() == 0;
    int r = as_root ? find_account(o->user, &account, err) : 0;

    if (r == 0)
        r = make_dir(o->run_dir, account ? account->pw_gid : 0, as_root, err);
    if (r == 0)
        r = make_dir(o->state_dir, account ? account->pw_gid : 0, as_root, err);
    if (r == 0 && account)
        r = become(account, err);
    if (r < 0)
        return r;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    umask(027);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* a closed terminal must not end the platform */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    mallopt(M_TRIM_THRESHOLD, 256 * 1024);
    return 0;
}

/* ---- systemd */

/* Sockets named "api" and "tls" in the .socket unit; without names the kind tells: AF_UNIX is the API. */
static int take_sockets(struct daemon *d, struct error **err)
{
    int n = sd_listen_fds(1);

    d->unix_fd = d->tls_fd = -1;
    for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++) {
        int *place = sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) > 0 ? &d->unix_fd : &d->tls_fd;
        if (*place >= 0)
            return error_set(err, EINVAL, "INVALID_VALUE",
                             "systemd passed more sockets than one unix and one TCP socket");
        /* systemd's default is a blocking socket: accept() would then hold the event loop. */
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
            return error_set_errno(err, errno, "INTERNAL", "socket %d passed by systemd", fd);
        *place = fd;
    }
    return 0;
}

static int make_loop(struct daemon *d, struct error **err)
{
    sigset_t ending;
    int r;

    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    r = sd_event_default(&d->loop);
    if (r >= 0)
        r = sd_event_add_signal(d->loop, NULL, SIGTERM, NULL, NULL);
    if (r >= 0)
        r = sd_event_add_signal(d->loop, NULL, SIGINT, NULL, NULL);
    if (r >= 0)
        r = sd_event_set_watchdog(d->loop, true);
    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "event loop") : 0;
}

/* ---- the daemon */

static int open_all(struct daemon *d, struct error **err)
{
    const struct daemon_options *o = &d->options;
    const struct core_options core = {.run_dir = o->run_dir,
                                      .state_dir = o->state_dir,
                                      .ipv4_pool = o->ipv4_pool,
                                      .ipv6_pool = o->ipv6_pool,
                                      .operation_history = o->operation_history};
    int r = core_open(d->loop, &core, &d->core, err);

    if (r == 0)
        r = images_open(d->core, &d->images, err);
    if (r < 0)
        return r;
    const struct api_options api = {.run_dir = o->run_dir,
                                    .unix_fd = take_fd(&d->unix_fd),
                                    .tls_fd = take_fd(&d->tls_fd),
                                    .listen = o->listen,
                                    .tls_cert = o->tls_cert,
                                    .tls_key = o->tls_key,
                                    .tls_client_ca = o->tls_client_ca,
                                    .token_file = o->token_file,
                                    .max_connections = o->max_connections,
                                    .images = d->images};
    return api_open(d->core, d->loop, &api, &d->api, err);
}

static void close_all(struct daemon *d)
{
    api_close(d->api);
    images_close(d->images);
    core_close(d->core);
    sd_event_unref(d->loop);
    options_clear(&d->options);
}

static int serve(struct daemon *d, struct error **err)
{
    int r = open_all(d, err);

    if (r < 0)
        return r;
    sd_notifyf(0, "READY=1\nSTATUS=serving %s/api.sock", d->options.run_dir);
    log_line(LOG_LEVEL_NOTICE, NULL, "coracled %s serves %s/api.sock", CORACLE_VERSION, d->options.run_dir);
    malloc_trim(0);
    r = sd_event_loop(d->loop);
    sd_notify(0, "STOPPING=1");
    log_line(LOG_LEVEL_NOTICE, NULL, "coracled ends; instances run on");
    return r < 0 ? error_set_errno(err, -r, "INTERNAL", "event loop") : 0;
}

int main(int argc, char **argv)
{
    struct daemon d = {.unix_fd = -1, .tls_fd = -1};
    auto_error struct error *err = NULL;
    int r = options_parse(argc, argv, &d.options, &err);

    if (r > 0) {
        options_clear(&d.options);
        return 0;
    }
    log_open("coracled", d.options.log_level);
    if (r == 0)
        r = options_read_file(&d.options, &err);
    if (r == 0)
        r = take_sockets(&d, &err);
    if (r == 0)
        r = prepare_process(&d.options, &err);
    if (r == 0)
        r = make_loop(&d, &err);
    if (r == 0)
        r = serve(&d, &err);
    if (r < 0) {
        log_error(NULL, err, "coracled cannot serve");
        sd_notifyf(0, "STATUS=%s", err ? err->message : "failed");
    }
    close_all(&d);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
