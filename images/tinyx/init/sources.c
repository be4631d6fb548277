/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a guest finds its metadata: the kernel's command line, then a metadata disk (the first sectors of any block
 * device that begin with the magic; coracle-cidata writes them in front of its NoCloud file system). What comes later
 * is added, and replaces what can stand only once. At last the command that the image was made with.
 */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool guest_is_quiet;

void complain(void *context, const char *word, const char *reason)
{
    (void)context;
    /* the name only: a seed or a key is nobody's business */
    say("metadata: \"%.*s\" ignored: %s", (int)strcspn(word, "="), word, reason);
}

static size_t read_file(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t n;

    if (fd < 0)
        return 0;
    while (used < size && (n = read(fd, buffer + used, size - used)) > 0)
        used += (size_t)n;
    close(fd);
    return used;
}

/* The text on a metadata disk ends at its first NUL. */
static bool read_disk(const char *name, char text[CONFIG_TEXT_MAX])
{
    size_t magic = strlen(CONFIG_DISK_MAGIC), n;
    char path[64];

    snprintf(path, sizeof(path), "/dev/%.32s", name);
    n = read_file(path, text, CONFIG_TEXT_MAX - 1);
    text[n] = '\0';
    if (strncmp(text, CONFIG_DISK_MAGIC, magic) != 0)
        return false;
    memset(text, ' ', magic);
    return true;
}

/* What the image runs when nobody said what: its maker's command, words as after "--". */
static void default_command(struct config *ret)
{
    static char text[4096] = "-- ";
    size_t n = read_file("/etc/coracle/command", text + 3, sizeof(text) - 4);

    text[3 + n] = '\0';
    config_parse(text, CONFIG_OURS, ret, complain, NULL);
}

static bool find_disk(char text[CONFIG_TEXT_MAX])
{
    DIR *block = opendir("/sys/block");
    struct dirent *entry;
    bool found = false;

    if (!block)
        return false;
    while (!found && (entry = readdir(block)))
        found = entry->d_name[0] != '.' && strlen(entry->d_name) < 32 && read_disk(entry->d_name, text);
    closedir(block);
    return found;
}

/* Whether the line has the word before its "--". */
static bool has_word(const char *line, const char *word)
{
    size_t n = strlen(word), size;

    for (; *line; line += strspn(line, " \n")) {
        size = strcspn(line, " \n");
        if (size == 2 && memcmp(line, "--", 2) == 0)
            return false;
        if (size == n && memcmp(line, word, n) == 0)
            return true;
        line += size;
    }
    return false;
}

void sources_read(struct config *ret)
{
    static char command_line[4096], disk[CONFIG_TEXT_MAX];

    memset(ret, 0, sizeof(*ret));
    command_line[read_file("/proc/cmdline", command_line, sizeof(command_line) - 1)] = '\0';
    guest_is_quiet = has_word(command_line, "quiet");
    config_parse(command_line, CONFIG_COMMAND_LINE, ret, complain, NULL);
    if (find_disk(disk))
        config_parse(disk, CONFIG_OURS, ret, complain, NULL);
    if (ret->argument_count == 0)
        default_command(ret);
}
