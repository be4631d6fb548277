/* SPDX-License-Identifier: Apache-2.0 */
/* What coracle-init reported (a stage, an errno, a detail) in words: what was wrong, where, what to do next. */
#include <errno.h>
#include <string.h>

#include "runtime/internal.h"

static const struct {
    enum init_stage stage;
    const char *what, *hint;
} stages[] = {
    {STAGE_PROTOCOL, "the container's init was sent something it does not understand", NULL},
    {STAGE_ATTACH_ROOT, "the root file system cannot be attached", NULL},
    {STAGE_DEV, "/dev cannot be made", NULL},
    {STAGE_PROC, "/proc cannot be mounted",
     "a host that is itself a container must show a complete /proc to its own containers"},
    {STAGE_SYS, "/sys cannot be mounted", NULL},
    {STAGE_MASK, "a path of /proc or /sys cannot be hidden", NULL},
    {STAGE_ETC, "a file of /etc cannot be provided", NULL},
    {STAGE_PIVOT, "the root cannot be changed", NULL},
    {STAGE_SETTINGS, "the process settings cannot be made", NULL},
    {STAGE_LANDLOCK, "Landlock cannot be applied", NULL},
    {STAGE_SECCOMP, "the system call filter cannot be applied", NULL},
    {STAGE_CGROUP, "the container's cgroups cannot be joined", NULL},
    {STAGE_HOSTNAME, "the host name cannot be set", NULL},
    {STAGE_PIPES, "the output pipes cannot be made", NULL},
    {STAGE_TERMINAL, "the terminal cannot be made", NULL},
    {STAGE_SPAWN, "the process cannot be made", "raise the pids limit, or memory"},
    {STAGE_CAPABILITIES, "the capabilities cannot be set", NULL},
    {STAGE_LABEL, "the security label cannot be set", "check that the host has that AppArmor profile or SELinux label"},
};

/* The three that are the user's: each says what to change. */
static int exec_error(const struct init_reply *reply, const char *code, struct error **err)
{
    switch (reply->error) {
    case ENOENT:
        error_set(err, ENOENT, code, "%s: not found in the image", reply->detail);
        error_hint(err, "give the command's full path inside the image; a script or dynamic program needs its "
                        "interpreter in the image, too");
        break;
    case EACCES:
        error_set(err, EACCES, code, "%s: not executable", reply->detail);
        error_hint(err, "make the file executable in the image for the user it runs as, and not a directory");
        break;
    case ENOEXEC:
        error_set(err, ENOEXEC, code, "%s: neither a program for this machine nor a script with #!", reply->detail);
        error_hint(err, "check the image's architecture, or begin the script with #!/bin/sh");
        break;
    case E2BIG:
        error_set(err, E2BIG, code, "%s: command and environment are too long", reply->detail);
        break;
    default:
        error_set_errno(err, reply->error ? reply->error : EIO, code, "%s: cannot be executed", reply->detail);
    }
    return -reply->error;
}

static int mount_point_error(const struct init_reply *reply, struct error **err)
{
    if (reply->error == ENOENT) {
        error_set(err, ENOENT, "IMAGE_MALFORMED", "the image has no directory /%s and its root is read-only",
                  reply->detail);
        error_hint(err, "add the empty directory /%s to the image", reply->detail);
        return -ENOENT;
    }
    error_set_errno(err, reply->error ? reply->error : EIO, "IMAGE_MALFORMED", "the image's /%s is not a directory",
                    reply->detail);
    error_hint(err, "a container mounts its own /%s there: rebuild the image with a directory, or without it",
               reply->detail);
    return -reply->error;
}

int failure_error(const struct init_reply *reply, const struct plan_process *process, bool exec, struct error **err)
{
    const char *code = exec ? "EXEC_FAILED" : "START_FAILED";
    int errnum = reply->error > 0 ? reply->error : EIO;

    switch (reply->stage) {
    case STAGE_MOUNT_POINT:
        return mount_point_error(reply, err);
    case STAGE_LOOKUP:
        error_set(err, ENOENT, code, "%s: not found in the PATH of the image",
                  process && process->argv && process->argv[0] ? process->argv[0] : reply->detail);
        error_hint(err, "give the command's full path inside the image");
        return -ENOENT;
    case STAGE_EXECVE:
        return exec_error(reply, code, err);
    case STAGE_USER:
        error_set(err, errnum, code, "user \"%s\": unknown in the image", reply->detail);
        error_hint(err, "give a number below %u, or a name of the image's /etc/passwd", RUNTIME_ID_COUNT);
        return -errnum;
    case STAGE_CWD:
        error_set_errno(err, errnum, code, "working directory %s", reply->detail);
        error_hint(err, "give a directory of the image (workdir) that the user may enter");
        return -errnum;
    case STAGE_BUSY:
        error_set(err, errnum, code, "%d commands are being executed in this instance already", RUNTIME_EXEC_MAX);
        error_hint(err, "wait until one of them has ended");
        return -errnum;
    case STAGE_CONSOLE:
        error_set(err, errnum, "CONFLICTING_STATE", "this instance has no terminal, and its stdin is not open");
        error_hint(err, "create it with tty or stdin; stdin can be attached to once");
        return -errnum;
    default:
        break;
    }
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
        if ((uint32_t)stages[i].stage == reply->stage) {
            error_set_errno(err, errnum, code, "%s%s%s", stages[i].what, reply->detail[0] ? ": " : "", reply->detail);
            if (stages[i].hint)
                error_hint(err, "%s", stages[i].hint);
            return -errnum;
        }
    return error_set_errno(err, errnum, code, "the container's init failed in step %u", reply->stage);
}
