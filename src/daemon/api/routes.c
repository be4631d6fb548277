/* SPDX-License-Identifier: Apache-2.0 */
/* Every call of the REST API in one table. A test compares it with docs/api/openapi.yaml, in both directions. */
#include "daemon/api/server.h"

const struct route api_routes[] = {
    {"GET", "/v1/version", {0}, BODY_NONE, get_version, NULL},
    {"GET", "/v1/host", {0}, BODY_NONE, get_host, NULL},
    {"GET", "/v1/openapi.yaml", {0}, BODY_NONE, get_openapi, NULL},
    {"GET", "/v1/metrics", {0}, BODY_NONE, get_metrics, NULL},
    {"GET", "/v1/health", {0}, BODY_NONE, get_health, NULL},

    {"POST", "/v1/plan", {0}, BODY_DESCRIPTOR, post_plan, NULL},
    {"POST", "/v1/instances", {"start"}, BODY_DESCRIPTOR, post_instance, NULL},
    {"GET", "/v1/instances", {"name", "technology", "state", "label", "image"}, BODY_NONE, get_instances, NULL},
    {"GET", "/v1/instances/{id}", {0}, BODY_NONE, get_instance, NULL},
    {"PATCH", "/v1/instances/{id}", {0}, BODY_DESCRIPTOR, patch_instance, NULL},
    {"DELETE", "/v1/instances/{id}", {"force"}, BODY_NONE, delete_instance, NULL},
    {"POST", "/v1/instances/{id}/start", {0}, BODY_OPTIONAL, post_start, NULL},
    {"POST", "/v1/instances/{id}/stop", {0}, BODY_OPTIONAL, post_stop, NULL},
    {"POST", "/v1/instances/{id}/restart", {0}, BODY_OPTIONAL, post_restart, NULL},
    {"POST", "/v1/instances/{id}/pause", {0}, BODY_OPTIONAL, post_pause, NULL},
    {"POST", "/v1/instances/{id}/resume", {0}, BODY_OPTIONAL, post_resume, NULL},
    {"POST", "/v1/instances/{id}/signal", {0}, BODY_DESCRIPTOR, post_signal, NULL},
    {"GET", "/v1/instances/{id}/stats", {0}, BODY_NONE, get_instance_stats, NULL},
    {"GET", "/v1/instances/{id}/logs", {"follow", "tail", "since", "stream"}, BODY_NONE, get_logs, NULL},
    {"POST", "/v1/instances/{id}/exec", {0}, BODY_DESCRIPTOR, post_exec, prepare_upgrade},
    {"POST", "/v1/instances/{id}/attach", {"logs"}, BODY_OPTIONAL, post_attach, prepare_upgrade},
    {"GET", "/v1/stats", {0}, BODY_NONE, get_stats, NULL},

    {"GET", "/v1/operations", {"instance", "operation", "state"}, BODY_NONE, get_operations, NULL},
    {"GET", "/v1/operations/{id}", {"wait_ms"}, BODY_NONE, get_operation, NULL},
    {"POST", "/v1/operations/{id}/cancel", {0}, BODY_OPTIONAL, post_cancel, NULL},
    {"GET", "/v1/events", {"follow", "since", "instance"}, BODY_NONE, get_events, NULL},

    {"GET", "/v1/images", {"guest"}, BODY_NONE, get_images, NULL},
    {"POST", "/v1/images", {"name", "entrypoint"}, BODY_ARCHIVE, post_image, prepare_image},
    {"POST", "/v1/images/pull", {0}, BODY_DESCRIPTOR, post_pull, NULL},
    {"GET", "/v1/images/{ref}", {"guest"}, BODY_NONE, get_image, NULL},
    {"DELETE", "/v1/images/{ref}", {"guest"}, BODY_NONE, delete_image, NULL},

    {"POST", "/v1/instances/{id}/snapshot", {0}, BODY_OPTIONAL, post_snapshot, NULL},
    {"GET", "/v1/snapshots", {0}, BODY_NONE, get_snapshots, NULL},
    {"GET", "/v1/snapshots/{name}", {0}, BODY_NONE, get_snapshot, NULL},
    {"DELETE", "/v1/snapshots/{name}", {0}, BODY_NONE, delete_snapshot, NULL},
    {"POST", "/v1/snapshots/{name}/restore", {0}, BODY_OPTIONAL, post_restore, NULL},

    {"GET", "/v1/networks", {0}, BODY_NONE, get_networks, NULL},
    {"POST", "/v1/networks", {0}, BODY_DESCRIPTOR, post_network, NULL},
    {"GET", "/v1/networks/{name}", {0}, BODY_NONE, get_network, NULL},
    {"DELETE", "/v1/networks/{name}", {0}, BODY_NONE, delete_network, NULL},
};
const size_t api_route_count = sizeof(api_routes) / sizeof(api_routes[0]);
