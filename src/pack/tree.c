/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a tree (tree.h): one directory after the other, depth first. */
#include "pack/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { LINK_BUCKETS = 4096, TARGET_MAX = 4095, ATTRIBUTE_NAMES_MAX = 65536 };

/* A file with several names, found again by its inode. */
struct linked {
    struct linked *next;
    struct node *first;
};

struct reader {
    uint64_t files, files_max;
    struct linked *linked[LINK_BUCKETS];
    struct error **err;
};

static int no_memory(struct reader *r)
{
    return error_set(r->err, ENOMEM, "NO_MEMORY", "packing: out of memory");
}

static int cannot(struct reader *r, const char *what, const char *name)
{
    return error_set_errno(r->err, errno, "STORE_FAILED", "packing: %s \"%s\"", what, name);
}

int tree_open(int directory, const char *name, bool is_directory)
{
    struct open_how how = {.flags =
                               O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (uint64_t)(is_directory ? O_DIRECTORY : O_NONBLOCK),
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    int fd = (int)syscall(SYS_openat2, directory, name, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

static void free_attributes(struct node *n)
{
    for (size_t i = 0; i < n->attribute_count; i++) {
        free(n->attributes[i].name);
        free(n->attributes[i].value);
    }
    free(n->attributes);
}

void tree_free(struct node *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->child_count; i++)
        tree_free(n->children[i]);
    free(n->children);
    free_attributes(n);
    free(n->target);
    free(n->name);
    free(n);
}

static struct node *new_node(struct reader *r, const char *name, struct node *parent)
{
    struct node *n;

    if (++r->files > r->files_max) {
        error_set(r->err, E2BIG, "IMAGE_TOO_LARGE", "packing: more than %llu files", (unsigned long long)r->files_max);
        return NULL;
    }
    n = calloc(1, sizeof(*n));
    if (n)
        n->name = strdup(name);
    if (!n || !n->name) {
        free(n);
        no_memory(r);
        return NULL;
    }
    n->parent = parent ? parent : n;
    n->links = 1;
    return n;
}

/* ---- attributes ---- */

/* What the store itself marks directories with means nothing in a merged tree. */
static bool is_kept(const char *name)
{
    return strcmp(name, "security.capability") == 0 ||
           (strncmp(name, "user.", 5) == 0 && strncmp(name, "user.overlay.", 13) != 0);
}

static int add_attribute(struct reader *r, struct node *n, int fd, const char *name)
{
    struct attribute *more, a = {.name = strdup(name), .value = malloc(UINT16_MAX)};
    ssize_t size = a.name && a.value ? fgetxattr(fd, name, a.value, UINT16_MAX) : -1;

    if (!a.name || !a.value)
        size = -1, errno = ENOMEM;
    more = size < 0 ? NULL : realloc(n->attributes, (n->attribute_count + 1) * sizeof(*more));
    if (!more) {
        int result = cannot(r, "attribute", name);
        free(a.name);
        free(a.value);
        return result;
    }
    void *fitting = realloc(a.value, size ? (size_t)size : 1);
    a.value = fitting ? fitting : a.value;
    a.size = (size_t)size;
    n->attributes = more;
    n->attributes[n->attribute_count++] = a;
    return 0;
}

static int compare_attributes(const void *a, const void *b)
{
    return strcmp(((const struct attribute *)a)->name, ((const struct attribute *)b)->name);
}

static int read_attributes(struct reader *r, struct node *n, int fd)
{
    auto_free char *names = malloc(ATTRIBUTE_NAMES_MAX);
    ssize_t size = names ? flistxattr(fd, names, ATTRIBUTE_NAMES_MAX) : -1;
    int result = 0;

    if (!names)
        return no_memory(r);
    if (size < 0)
        return errno == EOPNOTSUPP ? 0 : cannot(r, "the attributes of", n->name);
    for (char *name = names; name < names + size && result == 0; name += strlen(name) + 1)
        if (is_kept(name))
            result = add_attribute(r, n, fd, name);
    if (n->attribute_count)
        qsort(n->attributes, n->attribute_count, sizeof(*n->attributes), compare_attributes);
    return result;
}

/* ---- one file ---- */

static int find_link(struct reader *r, struct node *n)
{
    struct linked **bucket = &r->linked[n->info.st_ino % LINK_BUCKETS], *entry;

    if (n->info.st_nlink < 2)
        return 0;
    for (entry = *bucket; entry; entry = entry->next)
        if (entry->first->info.st_ino == n->info.st_ino && entry->first->info.st_dev == n->info.st_dev) {
            n->same = entry->first;
            n->same->links++;
            return 0;
        }
    entry = malloc(sizeof(*entry));
    if (!entry)
        return no_memory(r);
    *entry = (struct linked){*bucket, n};
    *bucket = entry;
    return 0;
}

static int read_target(struct reader *r, struct node *n, int directory)
{
    char target[TARGET_MAX + 1];
    ssize_t size = readlinkat(directory, n->name, target, sizeof(target));

    if (size < 0 || size > TARGET_MAX)
        return cannot(r, "the symbolic link", n->name);
    target[size] = '\0';
    n->target = strdup(target);
    return n->target ? 0 : no_memory(r);
}

static int read_file(struct reader *r, struct node *n, int directory)
{
    auto_fd int fd = -1;

    if (S_ISLNK(n->info.st_mode))
        return read_target(r, n, directory);
    if (!S_ISREG(n->info.st_mode) || n->same)
        return 0;
    fd = tree_open(directory, n->name, false);
    if (fd < 0) {
        errno = -fd;
        return cannot(r, "cannot open", n->name);
    }
    return read_attributes(r, n, fd);
}

/* ---- directories ---- */

static int read_directory(struct reader *r, struct node *n, int fd, unsigned depth);

/* Takes the node, also when it fails. */
static int add_child(struct reader *r, struct node *parent, struct node *child)
{
    struct node **more = parent->children;

    if ((parent->child_count & (parent->child_count - 1)) == 0) { /* a power of two is full, and so is none */
        more = realloc(more, (parent->child_count ? parent->child_count * 2 : 1) * sizeof(struct node *));
        if (!more) {
            tree_free(child);
            return no_memory(r);
        }
        parent->children = more;
    }
    more[parent->child_count++] = child;
    return 0;
}

static int read_subdirectory(struct reader *r, struct node *n, int directory, unsigned depth)
{
    auto_fd int fd = tree_open(directory, n->name, true);

    if (fd < 0) {
        errno = -fd;
        return cannot(r, "cannot open", n->name);
    }
    return read_directory(r, n, fd, depth + 1);
}

static int read_entry(struct reader *r, struct node *parent, int directory, const char *name, unsigned depth)
{
    struct stat info;
    struct node *n;
    int result;

    if (fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return cannot(r, "cannot look at", name);
    if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode) || S_ISSOCK(info.st_mode))
        return 0; /* a layer's whiteout, or what no image brings */
    n = new_node(r, name, parent);
    if (!n)
        return -ENOMEM;
    n->info = info;
    result = add_child(r, parent, n);
    if (result < 0)
        return result;
    if (S_ISDIR(info.st_mode)) {
        parent->links++;
        return read_subdirectory(r, n, directory, depth);
    }
    result = find_link(r, n);
    return result < 0 ? result : read_file(r, n, directory);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(struct node *const *)a)->name, (*(struct node *const *)b)->name);
}

/* The names come sorted, so that hard links have the same first name in every run. */
static int list_names(struct reader *r, int fd, char ***ret, size_t *ret_count)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    size_t count = 0, room = 0;
    char **names = NULL;
    struct dirent *e;
    int result = 0;

    if (!stream) {
        result = cannot(r, "cannot list", ".");
        close_fd(copy);
        return result;
    }
    while (result == 0 && (errno = 0, e = readdir(stream))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (count == room) {
            char **more = realloc(names, (room = room ? room * 2 : 16) * sizeof(*more));
            if (!more) {
                result = no_memory(r);
                break;
            }
            names = more;
        }
        names[count] = strdup(e->d_name);
        if (names[count])
            count++;
        else
            result = no_memory(r);
    }
    if (result == 0 && errno)
        result = cannot(r, "cannot list", ".");
    closedir(stream);
    *ret = names;
    *ret_count = count;
    return result;
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_directory(struct reader *r, struct node *n, int fd, unsigned depth)
{
    char **names = NULL;
    size_t count = 0;
    int result;

    n->links = 2;
    if (depth > TREE_DEPTH_MAX)
        return error_set(r->err, E2BIG, "IMAGE_TOO_LARGE", "packing: directories lie deeper than %d", TREE_DEPTH_MAX);
    result = read_attributes(r, n, fd);
    if (result == 0)
        result = list_names(r, fd, &names, &count);
    if (count)
        qsort(names, count, sizeof(*names), compare_entries);
    for (size_t i = 0; i < count; i++) {
        if (result == 0)
            result = read_entry(r, n, fd, names[i], depth);
        free(names[i]);
    }
    free(names);
    if (n->child_count)
        qsort(n->children, n->child_count, sizeof(*n->children), compare_names);
    return result;
}

int tree_read(int root_fd, uint64_t files_max, struct node **ret, struct error **err)
{
    auto_fd int own = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* a mount's descriptor reads nothing */
    struct reader *r = calloc(1, sizeof(*r));
    struct node *root = NULL;
    int result = -ENOMEM;

    if (!r)
        return error_set(err, ENOMEM, "NO_MEMORY", "packing: out of memory");
    r->files_max = files_max;
    r->err = err;
    root = new_node(r, "", NULL);
    if (root && (own < 0 || fstat(own, &root->info) < 0))
        result = cannot(r, "cannot look at", "/");
    else if (root)
        result = read_directory(r, root, own, 0);
    for (size_t i = 0; i < LINK_BUCKETS; i++)
        while (r->linked[i]) {
            struct linked *next = r->linked[i]->next;
            free(r->linked[i]);
            r->linked[i] = next;
        }
    free(r);
    if (result < 0) {
        tree_free(root);
        return result;
    }
    *ret = root;
    return 0;
}
