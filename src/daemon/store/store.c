/* SPDX-License-Identifier: Apache-2.0 */
/* Opens, checks and migrates the database, and keeps its statements prepared. Daemon's thread only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/store/store.h"

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    sqlite3_stmt *begin, *commit;
    char *path;
};

/* Each entry is applied once, in order, in one transaction with its row in schema_migrations. Never edit one that was
 * released: add another. */
static const char *const migrations[] = {
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE networks(name TEXT PRIMARY KEY, ipv4 TEXT, ipv6 TEXT, mtu INTEGER NOT NULL, uplink INTEGER NOT NULL)"
    "  WITHOUT ROWID;"
    "CREATE TABLE instances(id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, technology TEXT NOT NULL, spec TEXT NOT "
    "NULL,"
    "  resources TEXT NOT NULL, labels TEXT NOT NULL, image_digest TEXT, wanted INTEGER NOT NULL,"
    "  state INTEGER NOT NULL, reason_code TEXT, reason_message TEXT, pid INTEGER, uid_base INTEGER, warm INTEGER,"
    "  exited INTEGER, exit_known INTEGER, exit_oom INTEGER, exit_status INTEGER, exited_at INTEGER,"
    "  restarts INTEGER, created_at INTEGER, started_at INTEGER, held INTEGER);"
    "CREATE TABLE nics(instance TEXT NOT NULL, position INTEGER NOT NULL, network TEXT NOT NULL, mac TEXT NOT NULL,"
    "  ipv4 TEXT, ipv6 TEXT, PRIMARY KEY(instance, position), UNIQUE(network, ipv4), UNIQUE(network, ipv6)) WITHOUT "
    "ROWID;"
    "CREATE TABLE operations(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, instance TEXT,"
    "  instance_name TEXT, kind TEXT NOT NULL, state TEXT NOT NULL, change_to TEXT, is_restart INTEGER,"
    "  automatic INTEGER, stage INTEGER, grace_ms INTEGER, started_at INTEGER, ended INTEGER NOT NULL,"
    "  json TEXT NOT NULL);"
    "CREATE INDEX operations_open ON operations(ended) WHERE ended = 0;"
    "CREATE TABLE events(seq INTEGER PRIMARY KEY, instance TEXT, type TEXT NOT NULL, json TEXT NOT NULL);",
    /* The image store made its two tables itself until then; a name now stands for one image of each kind of guest. */
    "CREATE TABLE IF NOT EXISTS image(digest TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, result TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS image_name(reference TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT;"
    "CREATE TABLE image_name_2(reference TEXT NOT NULL, guest TEXT NOT NULL, digest TEXT NOT NULL,"
    "  PRIMARY KEY(reference, guest)) STRICT;"
    "INSERT INTO image_name_2 SELECT reference, 'process', digest FROM image_name ORDER BY rowid;"
    "DROP TABLE image_name;"
    "ALTER TABLE image_name_2 RENAME TO image_name;",
    "CREATE TABLE snapshots(name TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, instance_name TEXT NOT NULL,"
    "  technology TEXT NOT NULL, image TEXT NOT NULL, image_digest TEXT NOT NULL, spec TEXT NOT NULL,"
    "  created_at INTEGER NOT NULL) WITHOUT ROWID;",
};
enum { SCHEMA_VERSION = sizeof(migrations) / sizeof(migrations[0]) };

static const char *const sql[STATEMENT_COUNT] = {
    [PUT_INSTANCE] = "INSERT INTO instances VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,"
                     "?20,?21,?22,?23) ON CONFLICT(id) DO UPDATE SET resources=?5,labels=?6,image_digest=?7,wanted=?8,"
                     "state=?9,reason_code=?10,reason_message=?11,pid=?12,uid_base=?13,warm=?14,exited=?15,"
                     "exit_known=?16,exit_oom=?17,exit_status=?18,exited_at=?19,restarts=?20,started_at=?22,held=?23",
    [DELETE_INSTANCE] = "DELETE FROM instances WHERE id=?1",
    [PUT_NIC] = "INSERT INTO nics VALUES(?1,?2,?3,?4,?5,?6)",
    [DELETE_NICS] = "DELETE FROM nics WHERE instance=?1",
    [PUT_NETWORK] = "INSERT OR REPLACE INTO networks VALUES(?1,?2,?3,?4,?5)",
    [DELETE_NETWORK] = "DELETE FROM networks WHERE name=?1",
    [PUT_OPERATION] =
        "INSERT INTO operations(id,instance,instance_name,kind,state,change_to,is_restart,automatic,stage,"
        "grace_ms,started_at,ended,json) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13) "
        "ON CONFLICT(id) DO UPDATE SET state=?5,stage=?9,ended=?12,json=?13",
    [TRIM_OPERATIONS] = "DELETE FROM operations WHERE ended=1 AND number <= (SELECT max(number) FROM operations) - ?1",
    [PUT_EVENT] = "INSERT INTO events VALUES(?1,?2,?3,?4)",
    [TRIM_EVENTS] = "DELETE FROM events WHERE seq < (SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?1)",
    [PUT_META] = "INSERT OR REPLACE INTO meta VALUES(?1,?2)",
    [GET_META] = "SELECT value FROM meta WHERE key=?1",
    [ALL_NETWORKS] = "SELECT name,ipv4,ipv6,mtu,uplink FROM networks ORDER BY name",
    [ALL_INSTANCES] = "SELECT id,name,technology,spec,resources,labels,image_digest,wanted,state,reason_code,"
                      "reason_message,pid,uid_base,warm,exited,exit_known,exit_oom,exit_status,exited_at,restarts,"
                      "created_at,started_at,held FROM instances ORDER BY created_at,id",
    [ALL_NICS] = "SELECT instance,network,mac,ipv4,ipv6 FROM nics ORDER BY instance,position",
    [OPEN_OPERATIONS] = "SELECT id,instance,instance_name,kind,state,change_to,is_restart,automatic,stage,grace_ms,"
                        "started_at FROM operations WHERE ended=0 ORDER BY number",
    [FIND_OPERATION] = "SELECT id,json FROM operations WHERE id >= ?1 AND id < ?2 LIMIT 2",
    [ALL_OPERATIONS] = "SELECT id,instance,instance_name,kind,state,json FROM operations ORDER BY number DESC",
    [EVENTS_SINCE] = "SELECT seq,instance,type,json FROM events WHERE seq > ?1 ORDER BY seq",
};

int store_error(struct store *store, int result, const char *doing, struct error **err)
{
    int system = store && store->db ? sqlite3_system_errno(store->db) : 0;
    int primary = result & 0xff;

    if (primary == SQLITE_FULL || (primary == SQLITE_IOERR && (system == ENOSPC || system == EDQUOT))) {
        error_set(err, ENOSPC, "NO_SPACE", "store, %s: no space left on the disk of the state directory", doing);
        error_hint(err,
                   "free some space (remove images or old logs) and try again; running instances are not affected");
        return -ENOSPC;
    }
    if (primary == SQLITE_NOMEM)
        return error_set(err, ENOMEM, "NO_MEMORY", "store, %s: out of memory", doing);
    error_set(err, EIO, "STORE_FAILED", "store, %s: %s%s%s", doing,
              store && store->db ? sqlite3_errmsg(store->db) : sqlite3_errstr(result), system ? ": " : "",
              system ? strerror(system) : "");
    error_hint(err, "look at the disk of the state directory (dmesg, df) and at the daemon's log");
    return -EIO;
}

static int damaged(struct store *store, const char *how, struct error **err)
{
    error_set(err, EIO, "STORE_FAILED", "the database %s is damaged: %s", store->path, how);
    error_hint(err,
               "stop the daemon, keep a copy of %s, then restore a backup or recover it with: sqlite3 %s .recover | "
               "sqlite3 new.db; instances go on running meanwhile",
               store->path, store->path);
    return -EIO;
}

/* A whole-file check at every start: a page that rots must not be found by a request weeks later. */
static int check_integrity(struct store *store, struct error **err)
{
    sqlite3_stmt *s = NULL;
    int result = sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &s, NULL), r = 0;

    if (result == SQLITE_OK)
        result = sqlite3_step(s);
    if (result == SQLITE_ROW) {
        const char *answer = (const char *)sqlite3_column_text(s, 0);
        if (!answer || strcmp(answer, "ok") != 0)
            r = damaged(store, answer ? answer : "no answer", err);
    } else if ((result & 0xff) == SQLITE_CORRUPT || (result & 0xff) == SQLITE_NOTADB) {
        r = damaged(store, sqlite3_errmsg(store->db), err);
    } else {
        r = store_error(store, result, "checking the file", err);
    }
    sqlite3_finalize(s);
    return r;
}

static int execute(struct store *store, const char *statements, const char *doing, struct error **err)
{
    int result = sqlite3_exec(store->db, statements, NULL, NULL, NULL);

    if ((result & 0xff) == SQLITE_CORRUPT || (result & 0xff) == SQLITE_NOTADB)
        return damaged(store, sqlite3_errmsg(store->db), err);
    return result == SQLITE_OK ? 0 : store_error(store, result, doing, err);
}

static int schema_version(struct store *store, int *ret, struct error **err)
{
    sqlite3_stmt *s = NULL;
    int result = sqlite3_prepare_v2(store->db, "SELECT coalesce(max(version),0) FROM schema_migrations", -1, &s, NULL);

    if (result == SQLITE_OK)
        result = sqlite3_step(s);
    if (result == SQLITE_ROW)
        *ret = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return result == SQLITE_ROW ? 0 : store_error(store, result, "reading the schema's version", err);
}

static int migrate(struct store *store, struct error **err)
{
    int version = 0;
    int r = execute(
        store, "CREATE TABLE IF NOT EXISTS schema_migrations(version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)",
        "making the schema", err);

    if (r == 0)
        r = schema_version(store, &version, err);
    if (r == 0 && version > SCHEMA_VERSION) {
        error_set(err, EPROTO, "STORE_FAILED",
                  "the database %s was written by a newer release (schema %d, this one knows %d)", store->path, version,
                  SCHEMA_VERSION);
        error_hint(err, "start the newer release, or restore the backup made before the upgrade");
        return -EPROTO;
    }
    for (; r == 0 && version < SCHEMA_VERSION; version++) {
        auto_free char *script = NULL;
        if (asprintf(&script, "BEGIN;%s INSERT INTO schema_migrations VALUES(%d,datetime('now'));COMMIT;",
                     migrations[version], version + 1) < 0) {
            script = NULL;
            return error_set(err, ENOMEM, "NO_MEMORY", "store: out of memory");
        }
        r = execute(store, script, "migrating the schema", err);
        if (r < 0)
            store_rollback(store);
        else
            log_line(LOG_LEVEL_INFO, NULL, "database schema is now version %d", version + 1);
    }
    return r;
}

static int prepare(struct store *store, const char *text, sqlite3_stmt **ret, struct error **err)
{
    int result = sqlite3_prepare_v3(store->db, text, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);

    return result == SQLITE_OK ? 0 : store_error(store, result, "preparing statements", err);
}

static int prepare_all(struct store *store, struct error **err)
{
    int r = prepare(store, "BEGIN IMMEDIATE", &store->begin, err);

    if (r == 0)
        r = prepare(store, "COMMIT", &store->commit, err);
    for (size_t i = 0; r == 0 && i < STATEMENT_COUNT; i++)
        r = prepare(store, sql[i], &store->statements[i], err);
    return r;
}

int store_open(const char *state_dir, struct store **ret, struct error **err)
{
    struct store *store = calloc(1, sizeof(*store));
    int r, result;

    if (!store || asprintf(&store->path, "%s/coracle.db", state_dir) < 0) {
        free(store);
        return error_set(err, ENOMEM, "NO_MEMORY", "store: out of memory");
    }
    result = sqlite3_open_v2(store->path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                             NULL);
    if (result != SQLITE_OK) {
        error_set(err, EIO, "STORE_FAILED", "the database %s cannot be opened: %s", store->path,
                  store->db ? sqlite3_errmsg(store->db) : sqlite3_errstr(result));
        error_hint(err, "the state directory must exist and belong to the daemon's account");
        store_close(store);
        return -EIO;
    }
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, 2000);
    /* a cache of 512 KiB keeps the daemon small; exclusive locking saves the shared-memory index and its fsyncs */
    r = execute(store,
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                "PRAGMA cache_size=-512; PRAGMA foreign_keys=ON; PRAGMA wal_autocheckpoint=400;"
                "PRAGMA journal_size_limit=4194304; PRAGMA temp_store=MEMORY;",
                "opening", err);
    if (r == 0)
        r = check_integrity(store, err);
    if (r == 0)
        r = migrate(store, err);
    if (r == 0)
        r = prepare_all(store, err);
    if (r < 0) {
        store_close(store);
        return r;
    }
    *ret = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_finalize(store->begin);
    sqlite3_finalize(store->commit);
    sqlite3_close_v2(store->db);
    free(store->path);
    free(store);
}

struct sqlite3 *store_database(struct store *store)
{
    return store->db;
}

sqlite3_stmt *store_statement(struct store *store, enum statement which)
{
    sqlite3_reset(store->statements[which]);
    sqlite3_clear_bindings(store->statements[which]);
    return store->statements[which];
}

int store_run(sqlite3_stmt *statement)
{
    int result = sqlite3_step(statement);

    sqlite3_reset(statement);
    return result == SQLITE_DONE ? SQLITE_OK : result;
}

int store_begin(struct store *store)
{
    sqlite3_reset(store->begin);
    return store_run(store->begin);
}

int store_commit(struct store *store)
{
    sqlite3_reset(store->commit);
    return store_run(store->commit);
}

void store_rollback(struct store *store)
{
    for (size_t i = 0; i < STATEMENT_COUNT; i++)
        if (store->statements[i])
            sqlite3_reset(store->statements[i]);
    if (!sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
}
