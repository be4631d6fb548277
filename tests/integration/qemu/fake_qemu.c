/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In QEMU's place: takes QEMU's command line and misbehaves on QMP in the way that its -append says. For tests of what
 * the supervisor does with an emulator that was taken over, or is broken.
 *
 * silent     says nothing at all            garbage   no JSON                 long     a line without end
 * dies       ends after the greeting        words     ends with words on stderr
 * Then, after the machine runs: events  a flood of them;  odd  answers that nobody asked for;  nul  a
 * string that C cannot hold;  late  stops answering
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int qmp = -1;

static void say(const char *text)
{
    size_t size = strlen(text);

    while (size) {
        ssize_t n = write(qmp, text, size);
        if (n < 0) /* the socket is non-blocking, and full */
            usleep(1000);
        else
            text += n, size -= (size_t)n;
    }
}

/* Answers what has come, all of it the same; waits when nothing has. True: the machine shall run. */
static int answer_one(const char *value, int wait)
{
    char text[4096], line[256];
    ssize_t n;

    while ((n = read(qmp, text, sizeof(text) - 1)) < 0) { /* the socket is non-blocking */
        if (!wait)
            return 0;
        usleep(1000);
    }
    if (n == 0)
        _exit(0);
    text[n] = '\0';
    for (char *id = text; (id = strstr(id, "\"id\":")); id += 5) {
        snprintf(line, sizeof(line), "{\"return\": %s, \"id\": %d}\r\n", value, atoi(id + 5));
        say(line);
    }
    return strstr(text, "\"cont\"") != NULL;
}

static void after_start(const char *how)
{
    if (strstr(how, "events"))
        for (;; answer_one("{}", 0))
            for (int i = 0; i < 100; i++)
                say("{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"device\": \"x\", \"operation\": \"write\"}}\r\n");
    if (strstr(how, "odd"))
        say("{\"return\": {\"actual\": -5}, \"id\": 99999}\r\n{\"event\": \"SHUTDOWN\"}\r\n{\"event\": \"SHUTDOWN\", "
            "\"data\": "
            "{\"reason\": 7}}\r\n");
    if (strstr(how, "nul"))
        say("{\"event\": \"\\u0000\"}\r\n");
    if (strstr(how, "late"))
        for (;;)
            pause();
    for (;;)
        answer_one("{\"status\": 5, \"actual\": \"many\"}", 1);
}

int main(int argc, char **argv)
{
    const char *how = "";

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "socket,id=qmp,fd=", 17) == 0)
            qmp = atoi(argv[i] + 17);
        if (strcmp(argv[i], "-append") == 0 && i + 1 < argc)
            how = argv[i + 1];
    }
    if (strstr(how, "silent"))
        pause();
    if (strstr(how, "garbage"))
        say("Hello.\r\n");
    for (int i = 0; strstr(how, "long") && i < 100000; i++)
        say("{\"return\": {");
    say("{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7, \"minor\": 2, \"micro\": 0}, \"package\": \"fake\"}, "
        "\"capabilities\": []}}\r\n");
    if (strstr(how, "words"))
        fprintf(stderr, "qemu-system-x86_64: -device x: \033[31mno such thing\n");
    if (strstr(how, "words") || strstr(how, "dies"))
        return 1;
    while (!answer_one("{}", 1))
        ;
    after_start(how);
}
