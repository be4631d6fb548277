/* SPDX-License-Identifier: Apache-2.0 */
/* Entry point, command and arguments become one list (command.h). Called by every driver that runs images. */
#include "model/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strv.h"

static int append(char **list, size_t *n, char *const *more)
{
    for (; more && *more; more++)
        if (!(list[(*n)++] = strdup(*more)))
            return -ENOMEM;
    return 0;
}

int command_combine(const struct vnf_spec *spec, char *const *entrypoint, char *const *command, char ***ret,
                    struct error **err)
{
    char *const *first = spec->command ? spec->command : entrypoint;
    char *const *rest = spec->args ? spec->args : spec->command ? NULL : command;
    size_t n = 0;
    auto_strv char **argv = calloc(strv_count(first) + strv_count(rest) + 1, sizeof(*argv));

    if (!argv || append(argv, &n, first) < 0 || append(argv, &n, rest) < 0)
        return error_set(err, ENOMEM, "NO_MEMORY", "plan: out of memory");
    if (n == 0) {
        error_set(err, EINVAL, "MISSING_FIELD", "command: the image \"%s\" names no program to run", spec->image);
        error_hint(err, "give one: command: [/bin/app]");
        return -EINVAL;
    }
    *ret = take_ptr(argv);
    return 0;
}
