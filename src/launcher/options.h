/* SPDX-License-Identifier: Apache-2.0 */
/* Command line and host.conf of coracle-launcher, read once by main() before any thread exists. */
#ifndef CORACLE_LAUNCHER_OPTIONS_H
#define CORACLE_LAUNCHER_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"
#include "netlink/netlink.h"

struct options {
    const char *run_dir, *state_dir, *cgroup, *config, *user, *libexec_dir;
    enum log_level log_level;
    uid_t uid; /* of user: who may connect beside root */
    gid_t gid;
    bool help, version;
    /* host.conf */
    unsigned pool_depth;
    bool no_kvm; /* machines are emulated although there is KVM */
    unsigned snapshot_count;  /* machine images a snapshot to start from is kept of */
    uint64_t snapshot_memory; /* of all of them; 0: a share of the host's */
    char uplink[NETLINK_NAME_SIZE]; /* "": none */
    bool publish;
    struct in_addr publish4; /* address ports are published on; 0.0.0.0: every one */
    bool uplink6, publish6;  /* the same for IPv6 */
    struct in6_addr publish6_on;
    uint64_t log_bytes;      /* default for plans that name none */
    uint64_t storage_default;
    uint64_t pids_default;   /* 0: none */
    uint64_t memory_default; /* bytes; 0: memory_percent of the host's, of which 0 is none */
    unsigned memory_percent;
};

/* Fills *options from the arguments and from the file they name; a missing default file is no error. INVALID_VALUE
 * with file and line. Looks up the account unless help or version was asked for. */
int options_read(struct options *options, int argc, char **argv, struct error **err);

/* Reads host.conf text; separate for tests. path is for messages. */
int options_parse_config(struct options *options, char *text, const char *path, struct error **err);

extern const char options_usage[];

#endif
