/* SPDX-License-Identifier: Apache-2.0 */
/* The exit file: written by coracle-init and by the monitors as their last act, so without stdio, heap and vdso; read by
 * the launcher. Without its newline the record was not written to its end. */
#include "monitor/exit_file.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static size_t put_decimal(char *at, uint64_t value)
{
    char digits[20];
    size_t n = 0, size;

    do
        digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    size = n;
    while (n)
        *at++ = digits[--n];
    return size;
}

int exit_file_write(int fd, int wait_status)
{
    struct timespec now;
    char line[48];
    size_t size;

    if (fd < 0)
        return -EBADF;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    size = put_decimal(line, (uint32_t)wait_status);
    line[size++] = ' ';
    size += put_decimal(line + size, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    line[size++] = '\n';
    ssize_t n = write(fd, line, size);
    return n == (ssize_t)size ? 0 : n < 0 ? -errno : -ENOSPC;
}

/* Returns whether there was a number of at least one digit that fits. */
static bool take_decimal(const char *text, size_t size, size_t *at, uint64_t *ret)
{
    uint64_t value = 0;
    size_t from = *at;

    for (; *at < size && text[*at] >= '0' && text[*at] <= '9'; ++*at) {
        uint64_t digit = (uint64_t)(text[*at] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret = value;
    return *at > from;
}

bool exit_file_parse(const char *text, size_t size, int *ret_wait_status, uint64_t *ret_realtime_ns)
{
    uint64_t status, when;
    size_t at = 0;

    if (!take_decimal(text, size, &at, &status) || status > UINT32_MAX || at == size || text[at++] != ' ')
        return false;
    if (!take_decimal(text, size, &at, &when) || at + 1 != size || text[at] != '\n')
        return false;
    *ret_wait_status = (int)(uint32_t)status;
    *ret_realtime_ns = when;
    return true;
}
