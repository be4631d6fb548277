/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-launcher: the only privileged process. Opens everything it will ever need, tidies up after a predecessor,
 * gives up the privileges it does not need, then serves the daemon until it is told to stop. Instances live on without
 * it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/beside.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/files.h"
#include "launcher/host.h"
#include "launcher/instance.h"
#include "launcher/pool.h"
#include "launcher/run_files.h"
#include "launcher/snapshots.h"
#include "launcher/templates.h"
#include "launcher/uplink.h"

/* malloc's: one arena, since more would only spread a few small objects over more pages; given back early, since a
 * burst of plans should not stay resident. */
enum { ARENAS = 1, TRIM_BYTES = 64 * 1024 };

enum { BESIDE_THREADS = 2 }; /* one start has two parts to give away */
enum { LOCK_TRIES = 50, LOCK_PAUSE_MS = 20 };

/* RUN or STATE: the daemon may add files of its own (group), but with the sticky bit not touch root's. */
static int open_top(const char *path, gid_t gid, int *ret_fd, struct error **err)
{
    auto_fd int fd = -1;

    if (mkdir(path, 0750) < 0 && errno != EEXIST) {
        int e = errno;
        return error_set_errno(err, e, e == ENOSPC ? "NO_SPACE" : "START_FAILED", "making %s", path);
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno, "START_FAILED", "opening %s", path);
    if (fchown(fd, 0, gid) < 0 || fchmod(fd, S_ISVTX | 0770) < 0)
        return error_set_errno(err, errno, "START_FAILED", "setting the owner of %s", path);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* A record lock, not flock(2): what a child between clone and exec inherits must not hold it on after our death. It
 * goes with the table of descriptors, which a child of a launcher that was killed may share for another moment, until
 * it runs: so that is waited for. */
static int take_lock(int fd)
{
    int r = -1;

    for (int i = 0; r < 0 && i < LOCK_TRIES; i++) {
        if (i)
            usleep(LOCK_PAUSE_MS * 1000);
        r = fcntl(fd, F_SETLK, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET});
    }
    return r;
}

/* RUN and what lies in it; the lock keeps a second launcher out. */
static int open_run(struct launcher *l, struct error **err)
{
    auto_fd int lock = -1;
    int r;

    r = open_top(l->options.run_dir, l->options.gid, &l->run_fd, err);
    if (r < 0)
        return r;
    lock = openat(l->run_fd, "launcher.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0)
        return error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "START_FAILED", "opening launcher.lock");
    if (take_lock(lock) < 0) {
        error_set_errno(err, errno, "CONFLICTING_STATE", "another launcher serves %s", l->options.run_dir);
        error_hint(err, "use another --run-dir, --state-dir and --cgroup");
        return -EBUSY;
    }
    take_fd(&lock); /* held until the process ends */
    return instances_open(l, err);
}

static int open_state(struct launcher *l, struct error **err)
{
    auto_fd int state = -1, images = -1;
    int r;

    r = open_top(l->options.state_dir, l->options.gid, &state, err);
    if (r == 0)
        r = directory_open(state, "logs", 0700, &l->logs_fd, err);
    if (r == 0)
        r = snapshots_open(l, state, err);
    if (r == 0)
        r = directory_open(state, "images", 0750, &images, err);
    if (r == 0)
        r = directory_open(images, "layers", 0750, &l->layers_fd, err);
    if (r == 0)
        r = directory_open(images, "tmp", 0700, &l->tmp_fd, err);
    if (r == 0)
        r = directory_open(images, "packed", 0700, &l->packed_fd, err);
    if (r < 0)
        return r;
    /* the daemon looks for layers nobody names */
    if (fchown(images, 0, l->options.gid) < 0 || fchown(l->layers_fd, 0, l->options.gid) < 0)
        return error_set_errno(err, errno, "START_FAILED", "setting owners below %s", l->options.state_dir);
    return 0;
}

static int open_runtime(struct launcher *l, struct error **err)
{
    char init[PATH_MAX];
    struct runtime_config config = {.layers_dirfd = l->layers_fd,
                                    .cgroup_parent = l->options.cgroup,
                                    .init_path = init,
                                    .monitor_dir = l->options.libexec_dir,
                                    .image_uid_base = IMAGE_UID_FIRST};

    snprintf(init, sizeof(init), "%s/coracle-init", l->options.libexec_dir);
    return runtime_open(&config, &l->runtime, err);
}

static int open_all(struct launcher *l, struct error **err)
{
    int r;

    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->own_netns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (l->epoll_fd < 0 || l->own_netns_fd < 0)
        return error_set_errno(err, errno, "START_FAILED", "preparing the launcher");
    r = open_run(l, err);
    if (r == 0)
        r = open_state(l, err);
    if (r == 0)
        r = open_runtime(l, err);
    if (r == 0)
        r = fabric_open(l->run_fd, l->options.run_dir, &l->fabric, err);
    if (r == 0 && l->options.uplink[0])
        r = uplink_open(l, &l->uplink, err);
    return r < 0 ? r : recover(l, err);
}

/* Many instances, several descriptors each. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_line(LOG_LEVEL_WARNING, NULL, "the limit of open files cannot be raised: %s", strerror(errno));
}

static void wait_confined(struct launcher *l)
{
    /* their children end with them (or are swept); a second is enough for those about to finish */
    for (int i = 0; i < 100 && atomic_load(&l->confined); i++)
        usleep(10000);
}

static int serve(struct launcher *l, struct error **err)
{
    auto_fd int listen_fd = -1;
    int r;

    r = open_all(l, err);
    if (r == 0)
        r = server_listen(l, &listen_fd, err);
    if (r == 0)
        r = narrow(err);
    if (r == 0) {
        l->beside = beside_open(BESIDE_THREADS);
        runtime_use_beside(l->runtime, l->beside);
        host_begin(l);
        r = workers_start(l, err);
    }
    if (r == 0)
        r = templates_open(l, err);
    if (r == 0)
        r = pool_open(l, err);
    if (r == 0)
        r = server_run(l, listen_fd, err);
    workers_stop(l);
    pool_stop(l); /* each of the two threads asks the other's part until it is joined */
    templates_close(l);
    pool_close(l);
    host_end(l);
    wait_confined(l);
    instances_close(l);
    if (l->beside) {
        runtime_use_beside(l->runtime, NULL);
        beside_close(l->beside);
    }
    return r;
}

/* What the one who started us ignored (nohup, a shell's background job) would be ignored in every instance. */
static void stop_ignoring(void)
{
    struct sigaction now;

    for (int number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN)
            signal(number, SIG_DFL);
}

int main(int argc, char **argv)
{
    static struct launcher l = {.run_fd = -1,
                                .connection_fd = -1,
                                .lock = PTHREAD_MUTEX_INITIALIZER,
                                .work = PTHREAD_COND_INITIALIZER,
                                .connection_lock = PTHREAD_MUTEX_INITIALIZER};
    auto_error struct error *err = NULL;

    log_open("coracle-launcher", LOG_LEVEL_INFO);
    if (options_read(&l.options, argc, argv, &err) < 0) {
        log_error(NULL, err, "cannot start");
        return 64; /* EX_USAGE */
    }
    if (l.options.help || l.options.version) {
        fputs(l.options.help ? options_usage : "coracle-launcher " CORACLE_VERSION "\n", stdout);
        return 0;
    }
    log_open("coracle-launcher", l.options.log_level);
    mallopt(M_ARENA_MAX, ARENAS);
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES);
    stop_ignoring();
    umask(0022); /* inherited by instances; files of our own name their modes */
    raise_file_limit();
    slots_init(&l.uids);
    slots_init(&l.numbers);
    if (serve(&l, &err) < 0) {
        log_error(NULL, err, "cannot go on");
        return 1;
    }
    return 0;
}
