/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is measured: a technology of Coracle's, reached over its REST API, or a peer (docker, podman, crun, runc)
 * reached over its own command. The probes in bench/metrics see nothing but this, so that every subject gets the same
 * ones.
 *
 * A call of a subject is made by one thread at a time; clone() gives a second thread its own.
 */
#ifndef CORACLE_BENCH_SUBJECT_H
#define CORACLE_BENCH_SUBJECT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "bench/options.h"
#include "bench/probe/flood.h"

enum subject_start { SUBJECT_START_DEFAULT, SUBJECT_START_COLD, SUBJECT_START_POOL, SUBJECT_START_SNAPSHOT };

struct subject_instance {
    char id[80];        /* what destroy() needs: an id or a name */
    char operation[64]; /* the create call's, when the subject has such a thing */
    struct in_addr address;
    uint8_t mac[6];
    int64_t t0_ns; /* CLOCK_REALTIME just before the create call's first byte, or before its process was made */
};

/* What the subject's own accounts say it holds; the host's whole account is read by the metric itself. */
struct footprint {
    uint64_t cgroup_bytes;  /* memory cgroup of all instances */
    uint64_t monitor_bytes; /* proportional set size of the platform's own processes */
};

struct subject;

struct subject_ops {
    const char *name;

    /* Connects, finds versions, image and network; fills label, technology, accelerator, version and target (all but
     * the instance's mac). On failure *err says why the subject cannot be measured here and the subject is left closed.
     */
    int (*open)(struct subject *subject, const struct bench_options *options, struct error **err);
    void (*close)(struct subject *subject);

    /* Everything of the next create() that need not be timed; waits for a warm shell when start is POOL. At
     * fixed_address the instance gets target.address, else any. */
    int (*prepare)(struct subject *subject, enum subject_start start, bool fixed_address, struct error **err);

    /* The create call itself. Sets ret->t0_ns, id and, when known, operation. */
    int (*create)(struct subject *subject, struct subject_instance *ret, struct error **err);

    /* Until the subject says that the instance runs. NULL: create() returns no earlier. */
    int (*wait)(struct subject *subject, struct subject_instance *instance, struct error **err);

    /* Fills address and mac. */
    int (*inspect)(struct subject *subject, struct subject_instance *instance, struct error **err);

    /* Ends and removes the instance and waits for that. */
    int (*destroy)(struct subject *subject, struct subject_instance *instance, struct error **err);

    /* Bytes that must be shipped to run the image elsewhere. */
    int (*image_bytes)(struct subject *subject, uint64_t *ret_bytes, struct error **err);

    /* NULL: the subject keeps no account that could be read. */
    int (*footprint)(struct subject *subject, struct footprint *ret, struct error **err);

    /* A second handle for another thread, closed with close(). */
    int (*clone)(const struct subject *subject, struct subject *ret, struct error **err);
};

struct subject {
    const struct subject_ops *ops;
    char label[48];        /* "container", "docker" */
    char technology[32];   /* the JSON's technology: Coracle's own name, or the peer's */
    const char *reference; /* the draft's row beside it, NULL: none */
    char accelerator[16];
    char version[96];
    bool has_pool, has_snapshots;
    bool peer;
    bool available;
    char why_not[512]; /* when not available: in words */
    struct target target;
    void *state; /* the implementation's own */
};

/* The peers' ops by name, NULL for a name that is none. */
const struct subject_ops *subject_peer_find(const char *name);

/* "docker, podman, crun, runc", for messages. */
const char *subject_peer_names(void);

extern const struct subject_ops subject_coracle, subject_docker, subject_podman, subject_crun, subject_runc;

/* A number no other instance of this run has. */
unsigned subject_serial(void);

/* Creates, waits, inspects and resolves target.mac for the fixed address, then destroys: what a flood must know before.
 */
int subject_learn(struct subject *subject, struct error **err);

#endif
