/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The database file: opened, checked, migrated, with its prepared statements; one transaction at a time.
 *
 * SQLite in WAL mode with synchronous=FULL: what is committed survives a kill and a power cut. Knows rows, not what
 * they mean: src/daemon/persist.c binds and reads. Daemon's thread only.
 */
#ifndef CORACLE_DAEMON_STORE_H
#define CORACLE_DAEMON_STORE_H

#include <sqlite3.h>

#include "base/error.h"

struct store;

enum statement {
    PUT_INSTANCE,
    DELETE_INSTANCE,
    PUT_NIC,
    DELETE_NICS,
    PUT_NETWORK,
    DELETE_NETWORK,
    PUT_OPERATION,
    TRIM_OPERATIONS,
    PUT_EVENT,
    TRIM_EVENTS,
    PUT_META,
    GET_META,
    ALL_NETWORKS,
    ALL_INSTANCES,
    ALL_NICS,
    OPEN_OPERATIONS,
    FIND_OPERATION,
    ALL_OPERATIONS,
    EVENTS_SINCE,
    STATEMENT_COUNT
};

/* Opens or makes DIR/coracle.db. STORE_FAILED when it is damaged or newer than this program, NO_SPACE. */
int store_open(const char *state_dir, struct store **ret, struct error **err);
void store_close(struct store *); /* accepts NULL */
struct sqlite3 *store_database(struct store *);

/* A prepared statement, reset and ready for binding. */
sqlite3_stmt *store_statement(struct store *, enum statement);

/* Runs a statement that yields no row. Returns an SQLite result code, SQLITE_OK when done. */
int store_run(sqlite3_stmt *);

/* All return SQLite result codes. */
int store_begin(struct store *);
int store_commit(struct store *);
void store_rollback(struct store *);

/* An SQLite result as an error: NO_SPACE for a full disk, else STORE_FAILED. Returns -errno. */
int store_error(struct store *, int result, const char *doing, struct error **err);

#endif
