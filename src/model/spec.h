/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a user asks for: one instance's descriptor, checked, in memory. Pure data: no I/O, no hypervisor's words.
 *
 * The JSON/YAML form is docs/formats/descriptor.md. spec_parse() is the only way in: whatever it accepts is within
 * the bounds stated here, so later code need not look again (the launcher does, for the plan it is sent).
 */
#ifndef CORACLE_MODEL_SPEC_H
#define CORACLE_MODEL_SPEC_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/limits.h"

enum {
    INSTANCE_ID_SIZE = 37,     /* UUID text (RFC 4122 section 3) and its terminator */
    NAME_SIZE = 64,            /* DNS label (RFC 1123 section 2.1): 1-63 of a-z 0-9 -, not at an end */
    TECHNOLOGY_SIZE = 32,
    IMAGE_REF_SIZE = 256,
    NETWORK_PER_INSTANCE_MAX = 8,
    PORT_PER_INSTANCE_MAX = 32,
    ARGUMENT_MAX = 256,        /* command and environment entries, each */
    ARGUMENT_BYTES_MAX = 32768, /* all of them together */
    LABEL_MAX = 64,
};

enum restart_policy { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS };

/* Where a start may take its shell from. AUTO: the fastest that is ready. COLD: never a prepared one. POOL, SNAPSHOT:
 * only a warm shell, only a snapshot of a guest that runs already; else an error. */
enum start_mode { START_AUTO, START_COLD, START_POOL, START_SNAPSHOT };

/* Where a start did take it from. */
enum start_origin { ORIGIN_COLD, ORIGIN_POOL, ORIGIN_SNAPSHOT };
const char *start_origin_name(enum start_origin origin); /* "cold", "pool", "snapshot" */

struct spec_network {
    char name[NAME_SIZE];
    struct in_addr ipv4;   /* 0.0.0.0: chosen by the platform */
    struct in6_addr ipv6;  /* ::: chosen by the platform */
};

struct spec_port {
    uint16_t host_port;
    uint16_t port;
    uint8_t protocol;      /* IPPROTO_TCP or IPPROTO_UDP */
};

struct spec_pair {
    char *key;
    char *value;
};

/* Faults the fake driver acts out; refused for every other technology. */
struct spec_fault {
    char step[NAME_SIZE];  /* "" none; "plan", "start", "stop", "run" (exits by itself), "hang-start", "hang-stop" */
    uint32_t after_ms;     /* for "run": how long it lives */
    uint32_t start_ms;     /* how long a start takes */
    int32_t exit_status;
};

struct vnf_spec {
    char name[NAME_SIZE];
    char technology[TECHNOLOGY_SIZE];
    char image[IMAGE_REF_SIZE];
    char hostname[NAME_SIZE];        /* default: name */
    char **command;                  /* NULL-terminated; NULL: the image's entry point and command */
    char **args;                     /* NULL-terminated; replaces the image's command, kept behind its entry point */
    struct spec_pair *env;           /* added to the image's, or replacing an entry of it */
    size_t env_count;
    struct spec_pair *labels;
    size_t label_count;
    char *user;                      /* "uid", "uid:gid" or a name of the image's /etc/passwd; NULL: the image's */
    char *workdir;                   /* absolute; NULL: the image's */
    bool read_only;                  /* no writable layer at all */
    bool tty;
    bool open_stdin;
    struct limits limits;
    struct spec_network networks[NETWORK_PER_INSTANCE_MAX]; /* none given: one on "default" */
    size_t network_count;
    bool no_network;                 /* networks: [] was said: loopback only */
    struct spec_port ports[PORT_PER_INSTANCE_MAX];
    size_t port_count;
    uint32_t capabilities;           /* bit set of (1u << CAP_x) for x < 32 that the user added, from a short allow list */
    enum restart_policy restart;
    uint32_t restart_max;            /* 0: without bound */
    uint32_t restart_backoff_ms;     /* first delay; doubles up to restart_backoff_max_ms */
    uint32_t restart_backoff_max_ms;
    int stop_signal;                 /* 0: the image's, else SIGTERM */
    uint32_t stop_grace_ms;          /* default 10,000 */
    enum start_mode start_mode;
    struct spec_fault fault;
};

/* Frees what a spec owns; the struct itself is the caller's. Accepts a zeroed one. */
void spec_clear(struct vnf_spec *spec);

#endif
