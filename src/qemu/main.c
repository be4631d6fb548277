/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-qemu: the supervisor of one machine that QEMU runs (coracle-qemu(8)). Started by the launcher with the setup
 * socket as descriptor 3, in its own uid and namespaces, often as their PID 1. One thread.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <x86intrin.h>

#include "base/log.h"
#include "qemu/supervisor.h"

enum { EXIT_WRONG_OPTIONS = 64 };

static struct supervisor supervisor; /* large, and used for the whole life */

static int usage(void)
{
    printf("Usage: coracle-qemu --supervised | --version | --help\n"
           "Runs one machine in QEMU for coracle-launcher, which starts it with a socket as descriptor %d.\n"
           "$CORACLE_QEMU: the program to run instead of qemu-system-x86_64. Manual page: coracle-qemu(8)\n",
           MONITOR_SETUP_FD);
    return EXIT_SUCCESS;
}

/* Nothing that this process or QEMU will do needs more than it has now. */
static int confine(void)
{
    const struct rlimit none = {0, 0};

    signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
        return -1;
    return syscall(SYS_close_range, MONITOR_SETUP_FD + 1, ~0u, 0) < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    int type = 0;
    socklen_t size = sizeof(type);

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("coracle-qemu %s\n", CORACLE_VERSION);
        return EXIT_SUCCESS;
    }
    if (argc > 2 || (argc == 2 && strcmp(argv[1], "--supervised") != 0))
        return strcmp(argv[1], "--help") == 0 ? usage() : (usage(), EXIT_WRONG_OPTIONS);
    if (getsockopt(MONITOR_SETUP_FD, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET) {
        fprintf(stderr, "coracle-qemu: descriptor %d is no setup socket: it is started by coracle-launcher\n",
                MONITOR_SETUP_FD);
        return EXIT_WRONG_OPTIONS;
    }
    if (confine() < 0 || fcntl(MONITOR_SETUP_FD, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl(MONITOR_SETUP_FD, F_SETFL, O_NONBLOCK) < 0)
        return EXIT_FAILURE;
    log_open("coracle-qemu", LOG_LEVEL_INFO);
    supervisor_init(&supervisor);
    supervisor.tsc_base = __rdtsc();
    supervisor.tsc_base_ns = now_ns();
    return supervisor_run(&supervisor);
}
