/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request line to a row of the route table: path, path argument and query parameters, decoded and checked.
 *
 * Pure: no connection, no daemon, so that it is tested and fuzzed alone. Called by request.c for every request.
 */
#ifndef CORACLE_DAEMON_API_ROUTER_H
#define CORACLE_DAEMON_API_ROUTER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum {
    URI_BYTES_MAX = 8192,     /* longer request targets are refused */
    PATH_ARGUMENT_MAX = 512,  /* bytes of {id}, decoded; references to images are the longest */
    QUERY_PARAMETER_MAX = 64, /* repetitions of one key included */
    ROUTE_PARAMETER_MAX = 8,  /* different keys one route knows */
};

enum body_kind {
    BODY_NONE,       /* a body is refused */
    BODY_DESCRIPTOR, /* JSON or YAML, required */
    BODY_OPTIONAL,   /* the same, may be missing */
    BODY_ARCHIVE,    /* an image archive, handed on as it comes */
};

struct request;

struct route {
    const char *method;
    const char *pattern;                         /* "/v1/instances/{id}/start": {id} is one segment, percent-decoded */
    const char *parameters[ROUTE_PARAMETER_MAX]; /* allowed in the query, NULL-terminated when fewer */
    enum body_kind body;
    /* Runs when the body is complete (BODY_ARCHIVE: stored). 0: answered, or will be by a callback; else *err is told.
     */
    int (*handle)(struct request *, struct error **err);
    /* May refuse before the body is read; NULL: nothing to look at. */
    int (*prepare)(struct request *, struct error **err);
};

struct query_parameter {
    const char *key, *value; /* inside struct target's text */
};

/* A request target taken apart. */
struct target {
    char *text;     /* owned: all strings below point into it */
    char *argument; /* what {id} stood for, NULL when the pattern has none */
    struct query_parameter query[QUERY_PARAMETER_MAX];
    size_t query_count;
};

void target_clear(struct target *target);

/*
 * Finds the row for method and uri ("/path?query", raw) in routes[count] and fills target. A HEAD finds the GET row.
 * ROUTE_NOT_FOUND; METHOD_NOT_ALLOWED, and then allow[] lists what is ("GET, POST"); UNKNOWN_PARAMETER; INVALID_VALUE
 * for what cannot be decoded to clean UTF-8.
 */
int route_find(const struct route *routes, size_t count, const char *method, const char *uri,
               const struct route **ret_route, struct target *target, char *allow, size_t allow_size,
               struct error **err);

/* The value of a parameter that may stand once: NULL when it is not there. INVALID_VALUE when it is repeated. */
int target_value(const struct target *target, const char *key, const char **ret_value, struct error **err);

/* "true" or "false"; fallback when not given. */
int target_bool(const struct target *target, const char *key, bool fallback, bool *ret, struct error **err);

/* A decimal number up to max; fallback when not given. */
int target_number(const struct target *target, const char *key, unsigned long long fallback, unsigned long long max,
                  unsigned long long *ret, struct error **err);

/* Well-formed UTF-8 (RFC 3629) without control characters. */
bool text_is_clean(const char *text, size_t length);

#endif
