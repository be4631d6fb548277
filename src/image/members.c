/* SPDX-License-Identifier: Apache-2.0 */
/* The table of contents of an image archive. See members.h. */
#include <errno.h>
#include <string.h>

#include <archive_entry.h>

#include "base/cleanup.h"
#include "image/members.h"
#include "image/path.h"

enum { MEMBER_MAX = 16384, LINK_HOPS_MAX = 8 };

void members_clear(struct members *m)
{
    for (size_t i = 0; i < m->count; i++) {
        free(m->list[i].name);
        free(m->list[i].link);
    }
    free(m->list);
    *m = (struct members){.fd = -1};
}

/* What begins with 64 hex digits is a layer's folder or file of docker save; "sha256:" is how kaniko names them. */
static bool is_image_name(const char *path)
{
    if (strncmp(path, "sha256:", 7) == 0)
        path += 7;
    return strspn(path, "0123456789abcdef") >= 64;
}

/* Image archives have files at the top and below "blobs" or folders named by digests, nothing else. */
static bool is_foreign(const char *path, mode_t type)
{
    bool top = strchr(path, '/') == NULL;

    if (!*path || strcmp(path, "blobs") == 0 || strncmp(path, "blobs/", 6) == 0 || is_image_name(path))
        return false;
    return !top || (type != AE_IFREG && type != AE_IFLNK);
}

/* Target of a symbolic link at name, as a clean member name; NULL when it leaves the archive. */
static char *join_link(const char *name, const char *target)
{
    char joined[2 * IMAGE_PATH_SIZE];
    const char *slash = strrchr(name, '/');
    size_t used = slash ? (size_t)(slash - name) : 0;

    memcpy(joined, name, used);
    for (const char *p = target; *p;) {
        size_t length = strcspn(p, "/");

        if (length == 2 && p[0] == '.' && p[1] == '.') {
            if (used == 0)
                return NULL;
            while (used > 0 && joined[--used] != '/')
                ;
        } else if (length > 0 && !(length == 1 && *p == '.')) {
            if (used + length + 2 > sizeof(joined))
                return NULL;
            if (used)
                joined[used++] = '/';
            memcpy(joined + used, p, length);
            used += length;
        }
        p += length + (p[length] == '/');
    }
    joined[used] = '\0';
    return strdup(joined);
}

static int add_member(struct members *m, struct archive *a, struct archive_entry *e, const char *path,
                      struct error **err)
{
    struct member member = {.position = archive_read_header_position(a)};
    mode_t type = archive_entry_filetype(e);
    const char *hard = archive_entry_hardlink(e), *soft = type == AE_IFLNK ? archive_entry_symlink(e) : NULL;

    if (!hard && !soft && type != AE_IFREG)
        return 0;
    if (m->count == MEMBER_MAX)
        return error_set(err, E2BIG, "IMAGE_MALFORMED",
                         "the archive has more than 16,384 members and yet is no root file system");
    if (m->count == m->room) {
        size_t room = m->room ? m->room * 2 : 64;
        struct member *list = reallocarray(m->list, room, sizeof(*list));

        if (!list)
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the archive's table of contents");
        m->list = list;
        m->room = room;
    }
    member.size = archive_entry_size(e) > 0 ? (uint64_t)archive_entry_size(e) : 0;
    member.name = strdup(path);
    member.link = hard ? join_link("", hard) : soft ? join_link(path, soft) : NULL;
    if (!member.name || ((hard || soft) && !member.link)) {
        free(member.name);
        free(member.link);
        return member.name ? 0 : error_set(err, ENOMEM, "NO_MEMORY", "no memory for the archive's table of contents");
    }
    m->list[m->count++] = member;
    return 0;
}

static int walk(struct members *m, struct archive *a, struct stream *s, struct error **err)
{
    char path[IMAGE_PATH_SIZE];
    struct archive_entry *e;
    int r;

    for (;;) {
        r = archive_read_next_header(a, &e);
        if (r == ARCHIVE_EOF)
            return 0;
        if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
            return stream_archive_error(a, s, "the archive is damaged", err);
        if (!archive_entry_pathname(e))
            return error_set(err, EINVAL, "IMAGE_MALFORMED", "a member of the archive has no readable name");
        r = image_path_clean(archive_entry_pathname(e), path, err);
        if (r < 0)
            return r;
        if (is_foreign(path, archive_entry_filetype(e))) {
            m->rootfs = true;
            return 0;
        }
        r = add_member(m, a, e, path, err);
        if (r < 0)
            return r;
    }
}

int members_scan(struct stream *s, int fd, struct members *ret, struct error **err)
{
    auto_archive struct archive *a = NULL;
    auto_members struct members m = {.fd = fd};
    int r = stream_open_tar(s, &a, err);

    if (r == 0)
        r = walk(&m, a, s, err);
    if (r < 0)
        return r;
    *ret = m;
    m = (struct members){.fd = -1};
    return 0;
}

/* As with any tar, the last member of a name counts. */
static const struct member *find_name(const struct members *m, const char *name)
{
    for (size_t i = m->count; i-- > 0;)
        if (strcmp(m->list[i].name, name) == 0)
            return &m->list[i];
    return NULL;
}

const struct member *members_find(const struct members *m, const char *name)
{
    const struct member *found = find_name(m, name);

    for (unsigned int hops = 0; found && found->link; hops++)
        found = hops < LINK_HOPS_MAX ? find_name(m, found->link) : NULL;
    return found;
}

int members_open(const struct members *m, const char *name, struct stream **ret, uint64_t *ret_size, struct error **err)
{
    auto_stream struct stream *below = NULL;
    auto_archive struct archive *a = NULL;
    char clean[IMAGE_PATH_SIZE], shown[IMAGE_PRINTABLE_SIZE];
    const struct member *member;
    struct archive_entry *e;
    int r = image_path_clean(name, clean, err);

    if (r < 0)
        return r;
    member = members_find(m, clean);
    if (!member) {
        error_set(err, ENOENT, "IMAGE_MALFORMED", "the archive lacks \"%s\", which it refers to",
                  image_printable(clean, shown));
        error_hint(err, "export the image again, with every layer of this machine's platform");
        return -ENOENT;
    }
    r = stream_of_fd(m->fd, (uint64_t)member->position, &below, err);
    if (r == 0)
        r = stream_open_tar(below, &a, err);
    if (r < 0)
        return r;
    r = archive_read_next_header(a, &e);
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
        return stream_archive_error(a, below, "the archive is damaged", err);
    if (ret_size)
        *ret_size = member->size;
    return stream_of_member(take_ptr(a), take_ptr(below), ret, err);
}

int members_load(const struct members *m, const char *name, size_t max, char **ret, size_t *ret_size,
                 struct error **err)
{
    auto_stream struct stream *s = NULL;
    auto_free char *text = NULL;
    char shown[IMAGE_PRINTABLE_SIZE];
    const void *block;
    uint64_t size;
    size_t used = 0;
    ssize_t n;
    int r = members_open(m, name, &s, &size, err);

    if (r < 0)
        return r;
    if (size > max)
        return error_set(err, EFBIG, "IMAGE_MALFORMED", "\"%s\" is larger than the %zu bytes a document may have",
                         image_printable(name, shown), max);
    text = malloc(size + 1);
    if (!text)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a document of the archive");
    while ((n = stream_read(s, &block, err)) > 0) {
        if ((size_t)n > size - used)
            return error_set(err, EINVAL, "IMAGE_MALFORMED", "\"%s\" is longer than it says",
                             image_printable(name, shown));
        memcpy(text + used, block, (size_t)n);
        used += (size_t)n;
    }
    if (n < 0)
        return (int)n;
    text[used] = '\0';
    *ret_size = used;
    *ret = take_ptr(text);
    return 0;
}
