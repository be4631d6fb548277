/* SPDX-License-Identifier: Apache-2.0 */
/* coracle-cidata: the metadata disk of a guest as a file, for a machine that is started by hand. See coracle-cidata(1).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/cidata.h"

static const char usage[] =
    "usage: coracle-cidata --output FILE [--id ID] [--ssh-key FILE] NAME=VALUE ... [-- PROGRAM ARGUMENT ...]\n"
    "\n"
    "Writes the metadata disk of a Linux guest: for Coracle's own guests, and for cloud-init (NoCloud).\n"
    "\n"
    "  --output FILE   the disk, a few sectors of 2048 bytes\n"
    "  --id ID         cloud-init does its first-boot work again when this changes (default: the host name, or "
    "\"coracle\")\n"
    "  --ssh-key FILE  every line of it may log in, as ssh.key=; may repeat\n"
    "  NAME=VALUE      ip4=198.18.0.2/24 gw4=198.18.0.1 hostname=fw ...: docs/formats/guest-metadata.md. Values are "
    "plain\n"
    "                  here, spaces and all\n";

enum { EXIT_USAGE = 64 };

/* A value or argument as one word: what would end it, and '%', as %XX. */
static void add_word(struct buffer *words, const char *word)
{
    if (words->length)
        buffer_char(words, ' ');
    for (; *word; word++) {
        if ((unsigned char)*word <= ' ' || *word == '%')
            buffer_printf(words, "%%%02x", (unsigned)(unsigned char)*word);
        else
            buffer_char(words, *word);
    }
}

static int add_keys(struct buffer *words, const char *path)
{
    auto_file FILE *file = fopen(path, "re");
    auto_free char *line = NULL;
    size_t size = 0;

    if (!file)
        return -errno;
    while (getline(&line, &size, file) >= 0) {
        auto_free char *word = NULL;
        line[strcspn(line, "\r\n")] = '\0';
        if (!*line || *line == '#')
            continue;
        if (asprintf(&word, "ssh.key=%s", line) < 0)
            return -ENOMEM;
        add_word(words, word);
    }
    return 0;
}

static int write_output(const char *path, const struct buffer *image)
{
    auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t done = 0;

    if (fd < 0)
        return -errno;
    while (done < image->length) {
        ssize_t n = write(fd, image->data + done, image->length - done);
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    return 0;
}

static int fail(const char *what, int status)
{
    fprintf(stderr, "coracle-cidata: %s: %s\n", what, strerror(-status));
    return EXIT_FAILURE;
}

static const char *id_of(int count, char **words)
{
    for (int i = 0; i < count; i++) {
        if (strncmp(words[i], "hostname=", 9) == 0 && words[i][9])
            return words[i] + 9;
    }
    return "coracle";
}

/* getopt() eats "--" and forgets where it stood: the words' own is found by hand. */
static int find_separator(int argc, char **argv)
{
    int at = 1;

    while (at < argc && strcmp(argv[at], "--") != 0)
        at++;
    return at;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"output", required_argument, NULL, 'o'},
                                            {"id", required_argument, NULL, 'i'},
                                            {"ssh-key", required_argument, NULL, 'k'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    auto_buffer struct buffer words = {0}, image = {0};
    auto_error struct error *err = NULL;
    const char *output = NULL, *id = NULL;
    int separator = find_separator(argc, argv), option, status;
    char text[512];

    while ((option = getopt_long(separator, argv, "o:i:k:h", options, NULL)) >= 0) {
        if (option == 'o')
            output = optarg;
        else if (option == 'i')
            id = optarg;
        else if (option == 'k' && (status = add_keys(&words, optarg)) < 0)
            return fail(optarg, status);
        else if (option == 'h')
            return fputs(usage, stdout) < 0;
        else if (option == '?')
            return EXIT_USAGE;
    }
    if (!output)
        return fputs(usage, stderr), EXIT_USAGE;
    for (int i = optind; i < separator; i++)
        add_word(&words, argv[i]);
    if (separator < argc)
        buffer_text(&words, words.length ? " --" : "--");
    for (int i = separator + 1; i < argc; i++)
        add_word(&words, argv[i]);
    if (words.failed)
        return fail("words", -ENOMEM);
    if (cidata_image(words.data ? words.data : "", id ? id : id_of(separator - optind, argv + optind), &image, &err) <
        0) {
        fprintf(stderr, "coracle-cidata: %s\n", error_text(err, text, sizeof(text)));
        return EXIT_FAILURE;
    }
    status = write_output(output, &image);
    return status < 0 ? fail(output, status) : EXIT_SUCCESS;
}
