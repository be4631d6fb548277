/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every error code a user can meet: one line each, the one mapping to an HTTP status and to a CLI exit code.
 *
 * A code is stable: scripts match it. X(code, HTTP status, exit code of the CLI). Exit codes: 1 failed, 2 cannot be
 * placed on this host, 3 not found, 4 conflict with the present state, 5 refused (authentication), 64 usage (sysexits).
 */
#ifndef CORACLE_MODEL_CODES_H
#define CORACLE_MODEL_CODES_H

#define ERROR_CODES(X)                                                                                                 \
    X(MALFORMED_BODY, 400, 64)                                                                                         \
    X(BODY_TOO_LARGE, 413, 64)                                                                                         \
    X(BODY_TIMEOUT, 408, 1)                                                                                            \
    X(UNSUPPORTED_MEDIA_TYPE, 415, 64)                                                                                 \
    X(UNKNOWN_PARAMETER, 400, 64)                                                                                      \
    X(UNKNOWN_FIELD, 400, 64)                                                                                          \
    X(MISSING_FIELD, 400, 64)                                                                                          \
    X(INVALID_VALUE, 400, 64)                                                                                          \
    X(INVALID_UNIT, 400, 64)                                                                                           \
    X(UNAUTHORIZED, 401, 5)                                                                                            \
    X(FORBIDDEN, 403, 5)                                                                                               \
    X(ROUTE_NOT_FOUND, 404, 3)                                                                                         \
    X(METHOD_NOT_ALLOWED, 405, 64)                                                                                     \
    X(INSTANCE_NOT_FOUND, 404, 3)                                                                                      \
    X(OPERATION_NOT_FOUND, 404, 3)                                                                                     \
    X(IMAGE_NOT_FOUND, 404, 3)                                                                                         \
    X(NETWORK_NOT_FOUND, 404, 3)                                                                                       \
    X(SNAPSHOT_NOT_FOUND, 404, 3)                                                                                      \
    X(NAME_TAKEN, 409, 4)                                                                                              \
    X(AMBIGUOUS_NAME, 409, 4)                                                                                          \
    X(CONFLICTING_STATE, 409, 4)                                                                                       \
    X(OPERATION_IN_PROGRESS, 409, 4)                                                                                   \
    X(IMAGE_IN_USE, 409, 4)                                                                                            \
    X(NETWORK_IN_USE, 409, 4)                                                                                          \
    X(ADDRESS_TAKEN, 409, 4)                                                                                           \
    X(PRECONDITION_FAILED, 412, 4)                                                                                     \
    X(ADDRESS_POOL_EXHAUSTED, 503, 2)                                                                                  \
    X(UID_POOL_EXHAUSTED, 503, 2)                                                                                      \
    X(INSUFFICIENT_RESOURCES, 422, 2)                                                                                  \
    X(LIMIT_NOT_ENFORCEABLE, 422, 2)                                                                                   \
    X(UNSUPPORTED_BY_TECHNOLOGY, 422, 2)                                                                               \
    X(TECHNOLOGY_UNAVAILABLE, 422, 2)                                                                                  \
    X(UNKNOWN_TECHNOLOGY, 400, 64)                                                                                     \
    X(IMAGE_MALFORMED, 422, 1)                                                                                         \
    X(IMAGE_DIGEST_MISMATCH, 422, 1)                                                                                   \
    X(IMAGE_PATH_ESCAPE, 422, 1)                                                                                       \
    X(IMAGE_TOO_LARGE, 422, 1)                                                                                         \
    X(IMAGE_WRONG_ARCHITECTURE, 422, 2)                                                                                \
    X(IMAGE_WRONG_GUEST, 422, 2)                                                                                       \
    X(IMAGE_PULL_FAILED, 502, 1)                                                                                       \
    X(NO_SPACE, 507, 1)                                                                                                \
    X(NO_MEMORY, 507, 1)                                                                                               \
    X(STORE_FAILED, 500, 1)                                                                                            \
    X(TOO_MANY_REQUESTS, 429, 1)                                                                                       \
    X(LAUNCHER_UNAVAILABLE, 503, 1)                                                                                    \
    X(DAEMON_UNAVAILABLE, 503, 1)                                                                                      \
    X(LAUNCHER_REFUSED, 500, 1)                                                                                        \
    X(START_FAILED, 500, 1)                                                                                            \
    X(INSTANCE_LOST, 500, 1)                                                                                           \
    X(EXEC_FAILED, 422, 1)                                                                                             \
    X(SNAPSHOT_FAILED, 500, 1)                                                                                        \
    X(SNAPSHOT_UNUSABLE, 422, 1)                                                                                      \
    X(CANCELLED, 409, 1)                                                                                               \
    X(TIMEOUT, 504, 1)                                                                                                 \
    X(PROTOCOL_ERROR, 502, 1)                                                                                          \
    X(INTERNAL, 500, 1)

/* HTTP status of a code; 500 for one that is not in the list. */
int error_code_http_status(const char *code);

/* Exit code of the CLI for a code; 1 for one that is not in the list. */
int error_code_exit_status(const char *code);

/* The list's own static string equal to code (for codes that came over a wire), or "INTERNAL". */
const char *error_code_intern(const char *code);

#endif
