/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulling from a registry: skopeo, as a child process, copies the image into an OCI archive in the spool; that archive
 * is then imported like an upload. Registries, credentials and signature policy are skopeo's configuration.
 *
 * The child is a process group of its own, so that a cancel ends whatever it started; its end is seen on a pidfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/images_internal.h"
#include "model/json_read.h"

enum { TAIL_SIZE = 2048, LINE_SIZE = 512, KILL_AFTER_US = 5000000 };
static const rlim_t archive_max = (rlim_t)8 << 30;

extern char **environ;

struct pull {
    struct pull *next;
    struct images *images;
    struct operation *operation; /* the core's; lives until it is ended */
    char id[INSTANCE_ID_SIZE];
    char *reference;           /* "docker://..." */
    char *directory, *archive; /* below the spool */
    pid_t pid;                 /* 0: no child */
    int pidfd, output;
    sd_event_source *ended, *readable, *killing;
    struct import *import; /* once it runs */
    uint64_t stage_ns;
    bool cancelled;
    char tail[TAIL_SIZE]; /* the last thing skopeo said */
    char line[LINE_SIZE];
    size_t line_length;
};

/* skopeo makes only files and no folders here, apart from its own scratch ones (TMPDIR). */
static void remove_files(const char *path)
{
    auto_dir DIR *dir = opendir(path);
    struct dirent *e;

    while (dir && (e = readdir(dir)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(dirfd(dir), e->d_name, 0) < 0) {
            auto_free char *inner = NULL;

            if (asprintf(&inner, "%s/%s", path, e->d_name) >= 0)
                remove_files(inner);
        }
    rmdir(path);
}

static void pull_free(struct pull *p)
{
    struct pull **link = &p->images->pulls;

    while (*link && *link != p)
        link = &(*link)->next;
    if (*link)
        *link = p->next;
    sd_event_source_disable_unref(p->ended);
    sd_event_source_disable_unref(p->readable);
    sd_event_source_disable_unref(p->killing);
    close_fd(p->pidfd);
    close_fd(p->output);
    if (p->directory)
        remove_files(p->directory);
    free(p->reference);
    free(p->directory);
    free(p->archive);
    free(p);
}

static void finish(struct pull *p, const struct error *err)
{
    core_operation_end(p->images->core, p->id, err);
    pull_free(p);
}

/* ---- the second half: the import ---- */

static void on_imported(void *context, const char *digest, const char *name, bool added, const struct error *err)
{
    struct pull *p = context;

    (void)digest;
    (void)name;
    (void)added;
    core_operation_step(p->operation, "unpack", p->stage_ns, monotonic_ns());
    finish(p, err);
}

/* The name it gets: what was asked for, without the transport. */
static char *local_name(const char *reference)
{
    struct image_reference parsed;
    const char *name = reference + strlen("docker://");

    if (image_reference_parse(name, &parsed, NULL) < 0)
        return NULL;
    /* By digest: the archive's manifest may have another one than the registry's; this text finds it again. */
    return parsed.digest[0] ? strdup(name) : strdup(parsed.name);
}

static void begin_import(struct pull *p)
{
    struct import_origin origin = {.operation = p->id, .name = local_name(p->reference)};
    auto_error struct error *err = NULL;
    int fd = open(p->archive, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0) {
        free(origin.name);
        error_set_errno(&err, errno, "IMAGE_PULL_FAILED", "skopeo ended well but left no archive");
        finish(p, err);
        return;
    }
    remove_files(p->directory);
    core_operation_step(p->operation, "download", p->stage_ns, monotonic_ns());
    p->stage_ns = monotonic_ns();
    if (import_start(p->images, fd, &origin, on_imported, p, &p->import, &err) < 0)
        finish(p, err);
}

/* ---- the child ---- */

/* From a line of skopeo's log (key=value pairs) only the message, without its quoting; any other line as it is. */
static void unwrap_message(char *line)
{
    const char *from = strstr(line, "msg=\"");
    char *to = line;

    if (!from || !strstr(line, "level="))
        return;
    for (from += strlen("msg=\""); *from && *from != '"'; from++) {
        if (*from == '\\' && from[1])
            from++;
        *to++ = *from;
    }
    *to = '\0';
}

static void explain_failure(struct pull *p, const siginfo_t *end, struct error **err)
{
    const char *why = p->tail[0] ? p->tail : "it said nothing";

    unwrap_message(p->tail);
    if (p->cancelled) {
        error_set(err, ECANCELED, "CANCELLED", "the pull was cancelled");
    } else if (strstr(why, "no space left") || strstr(why, "No space left")) {
        error_set(err, ENOSPC, "NO_SPACE", "pulling %s: no space left in %s", p->reference, p->images->spool);
        error_hint(err, "free space there, or remove images that are not needed (coracle images)");
    } else if (end->si_code != CLD_EXITED) {
        error_set(err, EIO, "IMAGE_PULL_FAILED", "skopeo was ended by signal %d%s", end->si_status,
                  end->si_status == SIGXFSZ ? ": the image is larger than 8 GiB" : "");
    } else {
        error_set(err, EIO, "IMAGE_PULL_FAILED", "pulling %s: %s", p->reference, why);
        error_hint(err, "check the name, the registry and its credentials: skopeo inspect %s", p->reference);
    }
}

static int on_ended(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct pull *p = context;
    auto_error struct error *err = NULL;
    siginfo_t end = {0};

    (void)source;
    (void)events;
    if (waitid(P_PIDFD, (id_t)fd, &end, WEXITED | WNOHANG) < 0 || end.si_pid == 0)
        return 0;
    p->pid = 0;
    p->ended = sd_event_source_disable_unref(p->ended);
    p->killing = sd_event_source_disable_unref(p->killing);
    if (!p->cancelled && end.si_code == CLD_EXITED && end.si_status == 0) {
        begin_import(p);
        return 0;
    }
    explain_failure(p, &end, &err);
    finish(p, err);
    return 0;
}

/* skopeo says a line for each blob: progress, in the log; the last line is the reason when it fails. */
static void take_line(struct pull *p)
{
    p->line[p->line_length] = '\0';
    for (size_t i = 0; i < p->line_length; i++)
        if ((unsigned char)p->line[i] < 0x20 || (unsigned char)p->line[i] >= 0x7f)
            p->line[i] = ' ';
    if (p->line_length > 0) {
        log_line(LOG_LEVEL_INFO, NULL, "pull %s: %s", p->reference, p->line);
        memcpy(p->tail, p->line, p->line_length + 1);
    }
    p->line_length = 0;
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct pull *p = context;
    char text[4096];
    ssize_t n = read(fd, text, sizeof(text));

    (void)source;
    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    for (ssize_t i = 0; i < n; i++) {
        if (text[i] == '\n' || p->line_length == LINE_SIZE - 1)
            take_line(p);
        if (text[i] != '\n')
            p->line[p->line_length++] = text[i];
    }
    if (n <= 0) {
        take_line(p);
        p->readable = sd_event_source_disable_unref(p->readable);
    }
    return 0;
}

static int on_kill(sd_event_source *source, uint64_t when, void *context)
{
    struct pull *p = context;

    (void)source;
    (void)when;
    if (p->pid > 0)
        kill(-p->pid, SIGKILL);
    return 0;
}

static void on_cancel(void *context)
{
    struct pull *p = context;

    p->cancelled = true;
    if (p->import)
        import_cancel(p->import);
    if (p->pid <= 0)
        return;
    kill(-p->pid, SIGTERM);
    if (!p->killing)
        sd_event_add_time_relative(core_loop(p->images->core), &p->killing, CLOCK_MONOTONIC, KILL_AFTER_US, 0, on_kill,
                                   p);
}

/* ---- starting it ---- */

static bool program_exists(const char *name)
{
    const char *path = getenv("PATH");
    char file[4096];

    for (path = path ? path : "/usr/bin:/bin"; *path;) {
        size_t n = strcspn(path, ":");

        if (snprintf(file, sizeof(file), "%.*s/%s", (int)n, path, name) < (int)sizeof(file) && access(file, X_OK) == 0)
            return true;
        path += n + (path[n] == ':');
    }
    return false;
}

/* Environment of this process with TMPDIR pointing into the spool. */
static char **child_environment(const char *tmpdir)
{
    size_t n = 0;
    char **env;

    while (environ[n])
        n++;
    env = calloc(n + 2, sizeof(*env));
    if (!env)
        return NULL;
    env[0] = (char *)tmpdir;
    for (size_t i = 0, at = 1; i < n; i++)
        if (strncmp(environ[i], "TMPDIR=", 7) != 0)
            env[at++] = environ[i];
    return env;
}

static int spawn_with(struct pull *p, int out, char *const *argv, char **env)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int r;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_adddup2(&actions, out, 2);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    r = posix_spawnp(&p->pid, argv[0], &actions, &attributes, argv, env);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return -r;
}

static int spawn(struct pull *p, struct error **err)
{
    /* Without a policy file skopeo refuses to run at all; with one, the administrator's word holds. */
    bool policy = access("/etc/containers/policy.json", R_OK) == 0;
    auto_free char *destination = NULL, *tmpdir = NULL;
    auto_free char **env = NULL;
    auto_fd int write_end = -1;
    const char *argv[12];
    int ends[2], r;
    size_t n = 0;

    if (asprintf(&destination, "oci-archive:%s", p->archive) < 0 || asprintf(&tmpdir, "TMPDIR=%s", p->directory) < 0 ||
        !(env = child_environment(tmpdir)))
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to pull an image");
    argv[n++] = "skopeo";
    if (!policy)
        argv[n++] = "--insecure-policy";
    argv[n++] = "--override-os=linux";
    argv[n++] = "--command-timeout=1h";
    argv[n++] = "copy";
    argv[n++] = "--";
    argv[n++] = p->reference;
    argv[n++] = destination;
    argv[n] = NULL;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "INTERNAL", "no pipe for skopeo");
    p->output = ends[0];
    write_end = ends[1];
    fcntl(p->output, F_SETFL, O_NONBLOCK);
    r = spawn_with(p, write_end, (char *const *)argv, env);
    if (r < 0)
        return error_set_errno(err, -r, "IMAGE_PULL_FAILED", "cannot start skopeo");
    prlimit(p->pid, RLIMIT_FSIZE, &(struct rlimit){archive_max, archive_max}, NULL);
    p->pidfd = pidfd_open(p->pid, 0);
    return p->pidfd < 0 ? error_set_errno(err, errno, "INTERNAL", "no descriptor of skopeo's process") : 0;
}

static int watch(struct pull *p, struct error **err)
{
    struct sd_event *loop = core_loop(p->images->core);
    int r = sd_event_add_io(loop, &p->readable, p->output, EPOLLIN, on_output, p);

    if (r >= 0)
        r = sd_event_add_io(loop, &p->ended, p->pidfd, EPOLLIN, on_ended, p);
    if (r < 0)
        return error_set_errno(err, -r, "INTERNAL", "the event loop takes no source for a pull");
    /* What it said last is read before its end is looked at. */
    sd_event_source_set_priority(p->ended, SD_EVENT_PRIORITY_IDLE);
    return 0;
}

static int start(struct pull *p, struct error **err)
{
    int r;

    if (asprintf(&p->directory, "%s/pull-XXXXXX", p->images->spool) < 0 || !mkdtemp(p->directory)) {
        free(take_ptr(p->directory));
        return error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "STORE_FAILED", "cannot make a folder in %s",
                               p->images->spool);
    }
    if (asprintf(&p->archive, "%s/image.tar", p->directory) < 0)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to pull an image");
    r = spawn(p, err);
    return r < 0 ? r : watch(p, err);
}

static int read_reference(void *target, const json_t *value, const char *path, struct error **err)
{
    return json_read_string(value, path, target, err);
}

static int parse_body(const json_t *body, char **ret, struct error **err)
{
    static const struct json_field fields[] = {{"reference", read_reference}};
    struct image_reference parsed;
    const char *text = NULL;
    int r = json_read_object(body, "", fields, 1, &text, err);

    if (r < 0)
        return r;
    if (!text) {
        error_set(err, EINVAL, "MISSING_FIELD", "reference: is missing");
        error_hint(err, "write {\"reference\": \"docker://registry/name:tag\"}");
        return -EINVAL;
    }
    if (strncmp(text, "docker://", 9) != 0 && strstr(text, "://")) {
        error_set(err, EINVAL, "INVALID_VALUE", "reference: only registries (docker://) can be pulled from");
        error_hint(err, "import a file instead: coracle image import FILE");
        return -EINVAL;
    }
    if (strncmp(text, "docker://", 9) == 0)
        text += 9;
    r = image_reference_parse(text, &parsed, err);
    if (r < 0)
        return r;
    /* skopeo takes a tag or a digest, not both; the digest says more. */
    if (parsed.digest[0]) {
        char *colon = strrchr(parsed.name, ':');

        return asprintf(ret, "docker://%.*s@%s", (int)(colon - parsed.name), parsed.name, parsed.digest) < 0
                   ? error_set(err, ENOMEM, "NO_MEMORY", "no memory to pull an image")
                   : 0;
    }
    return asprintf(ret, "docker://%s", text) < 0 ? error_set(err, ENOMEM, "NO_MEMORY", "no memory to pull an image")
                                                  : 0;
}

int images_pull(struct images *images, const json_t *body, const struct core_times *times, struct operation **ret,
                struct error **err)
{
    auto_free char *reference = NULL;
    auto_error struct error *why = NULL;
    struct operation *operation;
    struct pull *p;
    int r = parse_body(body, &reference, err);

    if (r < 0)
        return r;
    if (!program_exists("skopeo")) {
        error_set(err, ENOENT, "IMAGE_PULL_FAILED", "skopeo, which talks to registries, is not installed on this host");
        error_hint(err,
                   "apt install skopeo; or export the image elsewhere and import the file: coracle image import FILE");
        return -ENOENT;
    }
    p = calloc(1, sizeof(*p));
    operation = p ? core_operation_begin(images->core, "PULL", times, err) : NULL;
    if (!operation) {
        free(p);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to pull an image");
    }
    p->images = images;
    p->operation = operation;
    p->pidfd = p->output = -1;
    p->reference = take_ptr(reference);
    snprintf(p->id, sizeof(p->id), "%s", core_operation_id(operation));
    p->stage_ns = monotonic_ns();
    p->next = images->pulls;
    images->pulls = p;
    core_operation_on_cancel(operation, on_cancel, p);
    *ret = operation;
    /* From here on the operation tells how it went. */
    if (start(p, &why) < 0)
        finish(p, why);
    return 0;
}

void pulls_close(struct images *images)
{
    for (struct pull *p = images->pulls, *next; p; p = next) {
        next = p->next;
        core_operation_on_cancel(p->operation, NULL, NULL);
        if (p->pid > 0) {
            kill(-p->pid, SIGKILL);
            waitid(P_PID, (id_t)p->pid, &(siginfo_t){0}, WEXITED);
        }
        pull_free(p);
    }
}
