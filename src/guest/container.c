/* SPDX-License-Identifier: Apache-2.0 */
/* The words of a container (container.h): one table of names for the reader. */
#include "guest/container.h"

#include <errno.h>
#include <string.h>

static bool read_number(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t n = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        unsigned digit = (unsigned)(*text - '0');
        if (digit > 9 || n > (max - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *ret = n;
    return true;
}

static const char *take_argument(struct container_words *w, char *value)
{
    if (w->argument_count == CONTAINER_STRINGS_MAX)
        return "more arguments than fit";
    w->arguments[w->argument_count++] = value;
    return NULL;
}

static const char *take_env(struct container_words *w, char *value)
{
    if (*value == '=' || !strchr(value, '='))
        return "an environment entry that is not KEY=value";
    if (w->env_count == CONTAINER_STRINGS_MAX)
        return "more variables than fit";
    w->env[w->env_count++] = value;
    return NULL;
}

static const char *take_directory(struct container_words *w, char *value)
{
    w->directory = value;
    return *value == '/' ? NULL : "a directory that is not absolute";
}

static const char *take_user(struct container_words *w, char *value)
{
    w->user = value;
    return *value ? NULL : "a user without a name";
}

static const char *take_flag(bool *flag, const char *value)
{
    *flag = true;
    return strcmp(value, "yes") == 0 ? NULL : "a flag that is not \"yes\"";
}

static const char *take_terminal(struct container_words *w, char *value)
{
    return take_flag(&w->terminal, value);
}

static const char *take_stdin(struct container_words *w, char *value)
{
    return take_flag(&w->open_stdin, value);
}

static const char *take_read_only(struct container_words *w, char *value)
{
    return take_flag(&w->read_only, value);
}

static const char *take_writable(struct container_words *w, char *value)
{
    return read_number(value, UINT64_C(1) << 40, &w->writable_bytes) ? NULL : "writable: not a number of bytes";
}

static const char *take_memory(struct container_words *w, char *value)
{
    return read_number(value, UINT64_C(1) << 50, &w->memory_bytes) ? NULL : "memory: not a number of bytes";
}

static const char *take_small(uint32_t *ret, const char *value, uint64_t max, const char *why)
{
    uint64_t n;

    if (!read_number(value, max, &n))
        return why;
    *ret = (uint32_t)n;
    return NULL;
}

static const char *take_pids(struct container_words *w, char *value)
{
    return take_small(&w->pids, value, 1u << 22, "pids: not a number of processes");
}

static const char *take_capabilities(struct container_words *w, char *value)
{
    return take_small(&w->capabilities, value, UINT32_MAX, "capabilities: not a set of 32 bits");
}

static const char *take_stop_signal(struct container_words *w, char *value)
{
    return take_small(&w->stop_signal, value, 64, "stop-signal: not a signal's number");
}

static const struct {
    const char *name;
    const char *(*take)(struct container_words *words, char *value); /* NULL, or what is wrong */
} readers[] = {
    {"arg", take_argument},
    {"env", take_env},
    {"directory", take_directory},
    {"user", take_user},
    {"terminal", take_terminal},
    {"stdin", take_stdin},
    {"read-only", take_read_only},
    {"writable", take_writable},
    {"memory", take_memory},
    {"pids", take_pids},
    {"capabilities", take_capabilities},
    {"stop-signal", take_stop_signal},
};

static const char *take_string(struct container_words *w, char *string)
{
    char *equals = strchr(string, '=');

    for (size_t i = 0; equals && i < sizeof(readers) / sizeof(readers[0]); i++) {
        size_t n = strlen(readers[i].name);
        if (string + n == equals && memcmp(string, readers[i].name, n) == 0)
            return readers[i].take(w, equals + 1);
    }
    return "a name that this guest does not know: it is of another release than the host";
}

static const char *check_whole(const struct container_words *w)
{
    if (w->argument_count == 0 || !*w->arguments[0])
        return "no program";
    if (!w->directory)
        return "no directory";
    if (w->stop_signal == 0)
        return "no stop-signal";
    return w->read_only && w->writable_bytes ? "a read-only root with a writable layer" : NULL;
}

int container_words_parse(char *text, size_t size, struct container_words *ret, const char **ret_why)
{
    static const char magic[] = CONTAINER_DISK_MAGIC;
    const char *why = NULL;
    size_t at = sizeof(magic) - 1;

    if (size < at || memcmp(text, magic, at) != 0)
        return -ENOENT;
    memset(ret, 0, sizeof(*ret));
    while (!why) {
        size_t length = at < size ? strnlen(text + at, size - at) : 0;
        if (at + length >= size) {
            why = "it has no end";
        } else if (length == 0) {
            why = check_whole(ret);
            break;
        } else {
            why = take_string(ret, text + at);
            at += length + 1;
        }
    }
    if (!why)
        return 0;
    *ret_why = why;
    return -EINVAL;
}

static void put(struct buffer *out, const char *name, const char *value)
{
    buffer_text(out, name);
    buffer_char(out, '=');
    buffer_add(out, value, strlen(value) + 1);
}

static void put_number(struct buffer *out, const char *name, uint64_t n)
{
    if (n == 0)
        return;
    buffer_printf(out, "%s=%llu", name, (unsigned long long)n);
    buffer_char(out, '\0');
}

static void put_flag(struct buffer *out, const char *name, bool is)
{
    if (is)
        put(out, name, "yes");
}

void container_words_write(const struct container_words *words, struct buffer *out)
{
    buffer_text(out, CONTAINER_DISK_MAGIC);
    for (size_t i = 0; i < words->argument_count; i++)
        put(out, "arg", words->arguments[i]);
    for (size_t i = 0; i < words->env_count; i++)
        put(out, "env", words->env[i]);
    put(out, "directory", words->directory);
    if (words->user)
        put(out, "user", words->user);
    put_flag(out, "terminal", words->terminal);
    put_flag(out, "stdin", words->open_stdin);
    put_flag(out, "read-only", words->read_only);
    put_number(out, "writable", words->writable_bytes);
    put_number(out, "memory", words->memory_bytes);
    put_number(out, "pids", words->pids);
    put_number(out, "capabilities", words->capabilities);
    put_number(out, "stop-signal", words->stop_signal);
    buffer_char(out, '\0');
}
