/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher's side of protocol.h. Every call has an end in time; what a monitor answers is checked (message.h), and
 * FAILED becomes a struct error with a code of model/codes.h, the monitor's words and its hint.
 */
#ifndef CORACLE_MONITOR_CLIENT_H
#define CORACLE_MONITOR_CLIENT_H

#include <stdbool.h>

#include "monitor/message.h"

/* On the setup socket: send, do something else, wait. kvm_fd -1: emulation. ret_reply may be NULL. */
int monitor_send_prepare(int setup_fd, const struct monitor_prepare *prepare, int kvm_fd, struct error **err);
/* load->parameters_size is set here; fds in the order that protocol.h says, as many as monitor_load_layout() counts. */
int monitor_send_load(int setup_fd, const struct monitor_load *load, const char *parameters, const int *fds,
                      unsigned fd_count, struct error **err);
/* fds as in protocol.h. */
int monitor_send_identity(int setup_fd, const struct monitor_identity *identity, const char *parameters, const int *fds,
                          unsigned fd_count, struct error **err);
int monitor_wait(int setup_fd, int timeout_ms, struct monitor_reply *ret_reply, struct error **err);

/* A connection to the monitor that listens at name in the folder dirfd; owned by the caller, each call may use it in
 * turn. INSTANCE_LOST: nobody is there. */
int monitor_connect(int dirfd, const char *name, int *ret_fd, struct error **err);

int monitor_get_status(int fd, int timeout_ms, struct monitor_status *ret, struct error **err);
/* MONITOR_PAUSE, MONITOR_RESUME, MONITOR_POWER */
int monitor_ask(int fd, enum monitor_type what, int timeout_ms, struct error **err);
/* file: an empty file, writable; borrowed. */
int monitor_snapshot(int fd, int file, int timeout_ms, struct error **err);
int monitor_set_memory(int fd, uint64_t balloon_bytes, int timeout_ms, struct error **err);
/* In all, not more. */
int monitor_resize(int fd, uint32_t vcpus, uint64_t memory_bytes, int timeout_ms, struct error **err);
int monitor_open_console(int fd, int timeout_ms, int *ret_input, struct error **err);
int monitor_open_vsock(int fd, uint32_t port, int timeout_ms, int *ret_stream, struct error **err);

struct monitor_command {
    const char *user, *directory; /* user NULL: root */
    char *const *arguments, *const *env;
    bool terminal;
};
/* In the guest of that monitor. fds: three, or with a terminal one; borrowed. Afterwards the connection is the
 * command's. EXEC_FAILED, UNSUPPORTED_BY_TECHNOLOGY. */
int monitor_exec(int fd, const struct monitor_command *command, const int *fds, int timeout_ms, struct error **err);
/* On a new connection: to the application. */
int monitor_signal(int fd, int signal, int timeout_ms, struct error **err);
/* To the command of that connection; whether it still runs is not told. */
int monitor_signal_command(int fd, int signal, struct error **err);
/* On a command's connection. -EAGAIN: it runs; -ECONNRESET: nobody will ever tell. */
int monitor_read_ended(int fd, int *ret_wait_status);

/* The error a FAILED stands for; returns -errno. */
int monitor_failure(const struct monitor_reply *failed, struct error **err);

#endif
