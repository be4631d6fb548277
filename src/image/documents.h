/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON documents of an image, from untrusted bytes to bounded structs: OCI index, manifest and configuration
 * (image-spec v1.1), docker's manifest list, schema 2 manifest and the manifest.json of docker save.
 *
 * Used by the archive reader in coracle-unpack and by the fuzz target of the same name. Pure: bytes in, struct out.
 */
#ifndef CORACLE_IMAGE_DOCUMENTS_H
#define CORACLE_IMAGE_DOCUMENTS_H

#include "image/image.h"

enum {
    DOCUMENT_BYTES_MAX = 4 * 1024 * 1024, /* what registries accept */
    DOCUMENT_DEPTH_MAX = 32,
    INDEX_ENTRY_MAX = 256,
};

struct descriptor {
    char digest[IMAGE_DIGEST_SIZE];
    uint64_t size;
    char media_type[IMAGE_TEXT_SIZE]; /* "" when not given */
    char os[32], architecture[32];    /* "" when no platform is given */
    char name[IMAGE_TEXT_SIZE];       /* org.opencontainers.image.ref.name and its like, "" for none */
};

struct image_index {
    struct descriptor *entries; /* owned */
    size_t count;
};

struct manifest {
    struct descriptor config;
    struct descriptor layers[IMAGE_LAYER_MAX * 2];
    size_t layer_count;
};

struct docker_manifest {
    char *config; /* member names, owned */
    char *layers[IMAGE_LAYER_MAX * 2];
    size_t layer_count;
    char name[IMAGE_TEXT_SIZE]; /* first of RepoTags, "" for none */
};

struct configuration {
    char os[32], architecture[32]; /* "" when not given */
    char diff_ids[IMAGE_LAYER_MAX * 2][IMAGE_DIGEST_SIZE];
    size_t diff_id_count;
    struct image_run run;
};

/* what: the document's name, for messages. Each returns 0 or -EINVAL with *err; *ret is written on success only. */
int document_parse(const char *what, const void *text, size_t size, json_t **ret, struct error **err);
int index_parse(const char *what, const void *text, size_t size, struct image_index *ret, struct error **err);
int manifest_parse(const char *what, const void *text, size_t size, struct manifest *ret, struct error **err);
int docker_manifest_parse(const char *what, const void *text, size_t size, struct docker_manifest *ret,
                          struct error **err);
int configuration_parse(const char *what, const void *text, size_t size, struct configuration *ret, struct error **err);

void index_clear(struct image_index *);
void docker_manifest_clear(struct docker_manifest *);
void image_run_clear(struct image_run *);

/* "SIGTERM", "TERM", "15" or "SIGRTMIN+3" to a number; -EINVAL otherwise. */
int stop_signal_parse(const char *text, int *ret);

#endif
