/* SPDX-License-Identifier: Apache-2.0 */
/* Runs nft. Main thread and workers of the launcher. */
#include "launcher/nft.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

/* The text goes by a memfd: a pipe could kill us by SIGPIPE. */
int nft_run(int netns_fd, const struct buffer *text, const char *whose, struct error **err)
{
    auto_fd int input = memfd_create("nft", MFD_CLOEXEC);
    char *const argv[] = {"nft", "-f", "/proc/self/fd/0", NULL};
    char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    int status = 0;
    pid_t pid;

    if (text->failed)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the firewall's rules");
    if (input < 0 || write(input, text->data, text->length) != (ssize_t)text->length || lseek(input, 0, SEEK_SET) < 0)
        return error_set_errno(err, errno, "INTERNAL", "writing the firewall's rules");
    pid = fork();
    if (pid == 0) {
        if ((netns_fd >= 0 && setns(netns_fd, CLONE_NEWNET) < 0) || dup2(input, STDIN_FILENO) < 0)
            _exit(126);
        execvpe(argv[0], argv, env);
        _exit(127);
    }
    if (pid < 0)
        return error_set_errno(err, errno, "INTERNAL", "starting nft");
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    error_set(err, EIO, "START_FAILED", "nft refused the rules of the %s (status 0x%x)", whose, status);
    error_hint(err, WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "install nftables" : "see the launcher's log");
    return -EIO;
}
