/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a machine ends: what QEMU says of it, what becomes of it in the exit file, and how a guest is asked to end.
 * Events come as fast as a guest can make QEMU send them; each costs one comparison.
 */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "monitor/exit_file.h"
#include "qemu/supervisor.h"

static const char *const reasons[] = {"guest-shutdown", "guest-reset",           "guest-panic",     "host-qmp-quit",
                                      "host-signal",    "host-qmp-system-reset", "subsystem-reset", "host-error"};

static void shutdown_event(struct supervisor *s, const json_t *data)
{
    const char *reason = json_string_value(json_object_get(data, "reason"));

    for (size_t i = 0; reason && i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (strcmp(reason, reasons[i]) == 0)
            s->why = reasons[i];
}

void end_events(void *context, const char *name, const json_t *data)
{
    struct supervisor *s = context;

    if (strcmp(name, "SHUTDOWN") == 0)
        shutdown_event(s, data);
    else if (strcmp(name, "GUEST_PANICKED") == 0)
        s->panicked = true;
    else if (strcmp(name, "STOP") == 0)
        s->paused = true;
    else if (strcmp(name, "RESUME") == 0)
        s->paused = false;
}

static int exited(int status)
{
    return (status & 0xff) << 8; /* as wait(2) has it */
}

/* isa-debug-exit ends QEMU with 2n+1. An error of QEMU's own is 1 as well, but with words. */
static bool unikernel_status(const struct supervisor *s, int *ret)
{
    if (s->machine.boot != MONITOR_BOOT_UNIKERNEL || !WIFEXITED(s->child.status))
        return false;
    int code = WEXITSTATUS(s->child.status);
    if (!(code & 1) || (code == 1 && s->child.kept))
        return false;
    *ret = exited(code >> 1);
    return true;
}

int end_status(const struct supervisor *s)
{
    int status;

    if (s->stopping)
        return s->stopping;
    if (s->hung || s->panicked)
        return exited(EXIT_GUEST_FAILED);
    if (WIFSIGNALED(s->child.status))
        return s->child.status;
    if (s->agent_status >= 0)
        return exited(s->agent_status);
    if (unikernel_status(s, &status))
        return status;
    if (s->why && strcmp(s->why, "guest-shutdown") == 0)
        return 0;
    return exited(EXIT_GUEST_FAILED);
}

static void explain(struct supervisor *s)
{
    if (s->stopping || s->agent_status >= 0)
        return;
    if (s->hung)
        console_note(s, "QEMU was ended: %s", s->hung);
    else if (s->panicked)
        console_note(s, "the guest panicked");
    else if (WIFSIGNALED(s->child.status))
        console_note(s, "QEMU was killed by signal %d%s", WTERMSIG(s->child.status),
                     WTERMSIG(s->child.status) == SIGKILL ? " (out of memory?)" : "");
    else if (s->why && strcmp(s->why, "guest-reset") == 0)
        console_note(s, "the guest was reset (reboot, panic or triple fault)");
    else if (!s->why && WEXITSTATUS(s->child.status) != 0 && s->child.kept)
        console_note(s, "QEMU failed: %s", child_last_words(&s->child));
}

void end_write(struct supervisor *s)
{
    const int status = end_status(s);

    if (s->phase != PHASE_RUNNING || s->moved)
        return;
    explain(s);
    log_file_finish(&s->log, LOG_STREAM_OUT);
    log_file_finish(&s->log, LOG_STREAM_ERR);
    int r = exit_file_write(s->exit_file, status);
    if (r < 0)
        log_line(LOG_LEVEL_ERROR, s->id, "exit file: %s", strerror(-r));
}

/* Q35 has a power button; on microvm only the agent can be asked. A paused guest would not hear it. */
bool end_ask_guest(struct supervisor *s)
{
    bool asked = agent_power_off(s);

    if (s->machine.boot == MONITOR_BOOT_DISK)
        asked |= qmp_call(&s->qmp, "system_powerdown", NULL, -1, QMP_TIMEOUT_MS, NULL, NULL) == 0;
    if (asked && s->paused)
        qmp_call(&s->qmp, "cont", NULL, -1, QMP_TIMEOUT_MS, NULL, NULL);
    return asked;
}
