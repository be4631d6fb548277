/* SPDX-License-Identifier: Apache-2.0 */
/* A container's process of a descriptor and an image (process.h). */
#include "model/process.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "model/command.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int no_memory(struct error **err)
{
    return error_set(err, ENOMEM, "NO_MEMORY", "container plan: out of memory");
}

static size_t key_length(const char *entry)
{
    return strcspn(entry, "=");
}

/* Sets KEY=value, in place of an entry with the same key. Room for one more is the caller's duty. */
static int set_env(char **env, size_t *n, const char *key, size_t length, const char *value)
{
    char *entry;
    size_t i = 0;

    if (asprintf(&entry, "%.*s=%s", (int)length, key, value) < 0)
        return -ENOMEM;
    while (i < *n && (key_length(env[i]) != length || memcmp(env[i], key, length) != 0))
        i++;
    if (i == *n)
        ++*n;
    free(env[i]);
    env[i] = entry;
    return 0;
}

/* Platform's values first, then the image's, then the user's: the later wins. */
static int make_env(const struct vnf_spec *spec, char *const *image_env, const char *hostname, char ***ret,
                    struct error **err)
{
    size_t n = 0;
    auto_strv char **env = calloc(strv_count(image_env) + spec->env_count + 4, sizeof(*env));

    if (!env || set_env(env, &n, "PATH", 4, DEFAULT_PATH) < 0 || set_env(env, &n, "HOSTNAME", 8, hostname) < 0 ||
        (spec->tty && set_env(env, &n, "TERM", 4, "xterm") < 0))
        return no_memory(err);
    for (char *const *e = image_env; e && *e; e++) {
        size_t length = key_length(*e);
        if (length && (*e)[length] == '=' && set_env(env, &n, *e, length, *e + length + 1) < 0)
            return no_memory(err);
    }
    for (size_t i = 0; i < spec->env_count; i++)
        if (set_env(env, &n, spec->env[i].key, strlen(spec->env[i].key), spec->env[i].value) < 0)
            return no_memory(err);
    *ret = take_ptr(env);
    return 0;
}

int process_plan(const struct vnf_spec *spec, char *const *entrypoint, char *const *command, char *const *image_env,
                 const char *workdir, const char *image_user, const char *hostname, struct plan_process *ret,
                 struct error **err)
{
    const char *cwd = spec->workdir ? spec->workdir : workdir && *workdir ? workdir : "/";
    const char *user = spec->user ? spec->user : image_user && *image_user ? image_user : NULL;
    int r = command_combine(spec, entrypoint, command, &ret->argv, err);

    if (r == 0)
        r = make_env(spec, image_env, hostname, &ret->env, err);
    if (r < 0)
        return r;
    /* an image's workdir may lack the leading slash; docker reads it as from the root */
    if (asprintf(&ret->cwd, "%s%s", *cwd == '/' ? "" : "/", cwd) < 0) {
        ret->cwd = NULL;
        return no_memory(err);
    }
    if (user && !(ret->user = strdup(user)))
        return no_memory(err);
    ret->tty = spec->tty;
    ret->open_stdin = spec->open_stdin;
    return 0;
}
