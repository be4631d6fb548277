/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "uid[:gid]" or "name[:group]" against the image's own /etc/passwd and /etc/group, inside the container.
 *
 * The files are the image's, thus hostile: opened as regular files only (a fifo would block for ever), read as a
 * stream with a bounded line, and the worst they can do is to name an id of the container's own range.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { LINE_SIZE = 1024, FIELD_MAX = 7, ID_COUNT = 65536, FILE_BYTES_MAX = 4 << 20 };

/* One pass over a file of colon-separated lines. */
struct reader {
    int fd;
    size_t begin, end;
    uint64_t total;
    char buffer[LINE_SIZE];
};

static int reader_open(struct reader *reader, const char *path)
{
    struct stat st;

    reader->begin = reader->end = 0;
    reader->total = 0;
    reader->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (reader->fd < 0)
        return -1;
    if (fstat(reader->fd, &st) || !S_ISREG(st.st_mode)) {
        close_to(&reader->fd);
        return -1;
    }
    return 0;
}

/* The next line without its newline, in the buffer; NULL at the end. A line that does not fit is skipped. */
static char *reader_line(struct reader *reader)
{
    bool skipping = false;

    for (;;) {
        char *line = reader->buffer + reader->begin;
        char *newline = memchr(line, '\n', reader->end - reader->begin);
        ssize_t got;

        if (newline) {
            *newline = 0;
            reader->begin = (size_t)(newline + 1 - reader->buffer);
            if (!skipping)
                return line;
            skipping = false;
            continue;
        }
        memmove(reader->buffer, line, reader->end - reader->begin);
        reader->end -= reader->begin;
        reader->begin = 0;
        if (reader->end == LINE_SIZE - 1) {
            skipping = true;
            reader->end = 0;
        }
        got = read(reader->fd, reader->buffer + reader->end, LINE_SIZE - 1 - reader->end);
        if (got <= 0 || (reader->total += (uint64_t)got) > FILE_BYTES_MAX) {
            if (!reader->end || skipping)
                return NULL;
            reader->buffer[reader->end] = 0;
            reader->end = 0;
            return reader->buffer;
        }
        reader->end += (size_t)got;
    }
}

/* Cuts line at colons into at most FIELD_MAX fields; missing ones are "". */
static void split(char *line, char *fields[FIELD_MAX])
{
    for (int i = 0; i < FIELD_MAX; i++) {
        char *colon = line ? strchr(line, ':') : NULL;

        fields[i] = line ? line : (char *)"";
        if (colon)
            *colon = 0;
        line = colon ? colon + 1 : NULL;
    }
}

static bool parse_id(const char *text, uint32_t *ret_id)
{
    uint32_t value = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value >= ID_COUNT)
            return false;
        value = value * 10 + (uint32_t)(*text - '0');
    }
    if (value >= ID_COUNT)
        return false;
    *ret_id = value;
    return true;
}

/* By name, or by number when name is NULL. The first match counts, as it does for getpwnam(). */
static bool find_user(const char *name, struct identity *identity, char *ret_name, size_t name_size)
{
    struct reader reader;
    bool found = false;
    char *line, *fields[FIELD_MAX];

    if (reader_open(&reader, "/etc/passwd"))
        return false;
    while (!found && (line = reader_line(&reader))) {
        uint32_t uid, gid;

        split(line, fields);
        if (!parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        if (name ? strcmp(fields[0], name) != 0 : uid != identity->uid)
            continue;
        found = true;
        identity->uid = uid;
        identity->gid = gid;
        strncpy(ret_name, fields[0], name_size - 1);
        if (fields[5][0] == '/' && strlen(fields[5]) < sizeof(identity->home))
            strcpy(identity->home, fields[5]);
    }
    close(reader.fd);
    return found;
}

static bool member_of(char *members, const char *name)
{
    for (char *next; members && *members; members = next) {
        next = strchr(members, ',');
        if (next)
            *next++ = 0;
        if (!strcmp(members, name))
            return true;
    }
    return false;
}

/* The group called group (if not NULL) becomes the gid; groups that list user become supplementary ones. */
static bool find_groups(const char *group, const char *user, struct identity *identity)
{
    struct reader reader;
    bool found = false;
    char *line, *fields[FIELD_MAX];

    if (reader_open(&reader, "/etc/group"))
        return false;
    while ((line = reader_line(&reader))) {
        uint32_t gid;

        split(line, fields);
        if (!parse_id(fields[2], &gid))
            continue;
        if (group && !found && !strcmp(fields[0], group)) {
            identity->gid = gid;
            found = true;
        }
        if (!group && *user && identity->group_count < SUPPLEMENTARY_MAX && member_of(fields[3], user))
            identity->groups[identity->group_count++] = gid;
    }
    close(reader.fd);
    return found;
}

int resolve_user(const char *user, struct identity *ret_identity)
{
    char name[64] = "", group[64] = "", login[64] = "";
    const char *colon = strchr(user, ':');
    size_t length = colon ? (size_t)(colon - user) : strlen(user);
    bool number;

    memset(ret_identity, 0, sizeof(*ret_identity));
    strcpy(ret_identity->home, "/");
    if (length >= sizeof(name) || (colon && strlen(colon + 1) >= sizeof(group)))
        return fail(STAGE_USER, ENAMETOOLONG, user);
    memcpy(name, user, length);
    if (colon)
        strcpy(group, colon + 1);
    if (!length)
        strcpy(name, "0");
    /* A number needs no entry; one that has an entry takes its group and home from there. */
    number = parse_id(name, &ret_identity->uid);
    if (!find_user(number ? NULL : name, ret_identity, login, sizeof(login)) && !number)
        return fail(STAGE_USER, ENOENT, user);
    if (!group[0]) {
        find_groups(NULL, login, ret_identity);
        return 0;
    }
    if (!parse_id(group, &ret_identity->gid) && !find_groups(group, login, ret_identity))
        return fail(STAGE_USER, ENOENT, user);
    return 0;
}
