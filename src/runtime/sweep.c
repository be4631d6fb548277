/* SPDX-License-Identifier: Apache-2.0 */
/* After a crash: cgroups, processes and mounts that belong to no known instance. Called once at the launcher's start.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "runtime/internal.h"

struct sweep {
    runtime_keep keep;
    void *context;
    char **tags; /* to be removed, each once */
    size_t count, capacity;
    bool failed; /* out of memory */
};

static void note(void *context, const char *tag)
{
    struct sweep *sweep = context;

    if (sweep->keep(sweep->context, tag))
        return;
    for (size_t i = 0; i < sweep->count; i++)
        if (!strcmp(sweep->tags[i], tag))
            return;
    if (sweep->count + 1 >= sweep->capacity) {
        size_t capacity = sweep->capacity ? sweep->capacity * 2 : 32;
        char **tags = realloc(sweep->tags, capacity * sizeof(*tags));

        if (!tags) {
            sweep->failed = true;
            return;
        }
        sweep->tags = tags;
        sweep->capacity = capacity;
    }
    sweep->tags[sweep->count] = strdup(tag);
    sweep->tags[sweep->count + 1] = NULL;
    if (sweep->tags[sweep->count])
        sweep->count++;
    else
        sweep->failed = true;
}

int runtime_sweep(struct runtime *runtime, runtime_keep keep, void *context, unsigned *ret_removed, struct error **err)
{
    struct sweep sweep = {.keep = keep, .context = context};
    unsigned removed = 0;
    int result = cgroup_each(&runtime->cgroups, note, &sweep, err);

    for (size_t i = 0; i < sweep.count; i++) {
        int one = remains_destroy(runtime, sweep.tags[i], -1, err);

        removed += !one;
        result = one ? one : result;
    }
    strv_free(sweep.tags);
    if (sweep.failed && !result)
        result = error_set(err, ENOMEM, "NO_MEMORY", "no memory to list the cgroups");
    if (ret_removed)
        *ret_removed = removed;
    return result;
}

/* mountinfo writes blanks and the like as \ooo. */
static void unescape(char *text)
{
    char *out = text;

    for (; *text; text++)
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] && text[3]) {
            *out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 3;
        } else {
            *out++ = *text;
        }
    *out = 0;
}

/* The mount point of a line, when it lies below path; NULL otherwise. ret_tag: the component behind path. */
static char *point_below(char *line, const char *path, char *ret_tag, size_t size)
{
    size_t length = strlen(path), tag;
    char *save, *point = strtok_r(line, " ", &save);

    for (int i = 1; i < 5 && point; i++)
        point = strtok_r(NULL, " ", &save);
    if (!point)
        return NULL;
    unescape(point);
    if (strncmp(point, path, length) || point[length] != '/')
        return NULL;
    tag = strcspn(point + length + 1, "/");
    if (!tag || tag >= size)
        return NULL;
    memcpy(ret_tag, point + length + 1, tag);
    ret_tag[tag] = 0;
    return point;
}

int runtime_sweep_mounts(const char *path, runtime_keep keep, void *context, unsigned *ret_removed, struct error **err)
{
    auto_file FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL, tag[RUNTIME_TAG_SIZE];
    size_t size = 0;
    unsigned removed = 0;
    int result = 0;

    if (!f)
        return error_set_errno(err, errno, "INTERNAL", "/proc/self/mountinfo: cannot be read");
    while (getline(&line, &size, f) >= 0) {
        char *point = point_below(line, path, tag, sizeof(tag));

        if (!point || keep(context, tag))
            continue;
        /* Detached lazily and with all below it; a line seen again afterwards is gone already. */
        if (!umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW))
            removed++;
        else if (errno != EINVAL && errno != ENOENT)
            result = error_set_errno(err, errno, "INTERNAL", "%s cannot be unmounted", point);
    }
    free(line);
    if (ret_removed)
        *ret_removed = removed;
    return result;
}
