/* SPDX-License-Identifier: Apache-2.0 */
/* Turns the shipped image archive into a root file system and an entry point; set-up of the peers, never timed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/command.h"
#include "bench/subjects/peer_image.h"

static json_t *load(const struct peer_image *image, const char *name)
{
    auto_free char *path = NULL;

    if (asprintf(&path, "%s/a/%s", image->folder, name) < 0)
        path = NULL;
    return path ? json_load_file(path, 0, NULL) : NULL;
}

/* "sha256:HEX" to the blob's path in an OCI layout. */
static void blob_path(const json_t *descriptor, char *buf, size_t size)
{
    const char *digest = json_string_value(json_object_get(descriptor, "digest"));
    const char *colon = digest ? strchr(digest, ':') : NULL;

    snprintf(buf, size, "blobs/%.*s/%s", colon ? (int)(colon - digest) : 0, digest ? digest : "",
             colon ? colon + 1 : "");
}

static int unpack_layer(const struct peer_image *image, const char *name, struct error **err)
{
    const char *arguments[] = {image->folder, name, image->rootfs, NULL};

    return command_shell(NULL, "tar -C \"$3\" -xf \"$1/a/$2\"", arguments, NULL, err);
}

static void take_entrypoint(struct peer_image *image, const json_t *config)
{
    const json_t *process = json_object_get(config, "config");

    image->entrypoint = json_array();
    json_array_extend(image->entrypoint, json_object_get(process, "Entrypoint"));
    json_array_extend(image->entrypoint, json_object_get(process, "Cmd"));
}

static int unpack_oci(struct peer_image *image, const json_t *index, struct error **err)
{
    char path[256];
    json_t *manifest, *layer, *config;
    size_t i;
    int r = 0;

    blob_path(json_array_get(json_object_get(index, "manifests"), 0), path, sizeof(path));
    manifest = load(image, path);
    if (!manifest)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "the archive's manifest cannot be read");
    json_array_foreach(json_object_get(manifest, "layers"), i, layer)
    {
        blob_path(layer, path, sizeof(path));
        if (r == 0)
            r = unpack_layer(image, path, err);
    }
    blob_path(json_object_get(manifest, "config"), path, sizeof(path));
    config = load(image, path);
    take_entrypoint(image, config);
    json_decref(config);
    json_decref(manifest);
    return r;
}

static int unpack_docker(struct peer_image *image, const json_t *list, struct error **err)
{
    const json_t *entry = json_array_get(list, 0);
    const char *config_name = json_string_value(json_object_get(entry, "Config"));
    json_t *layer, *config = config_name ? load(image, config_name) : NULL;
    size_t i;
    int r = 0;

    json_array_foreach(json_object_get(entry, "Layers"), i, layer) if (r == 0) r =
        unpack_layer(image, json_string_value(layer), err);
    take_entrypoint(image, config);
    json_decref(config);
    return r;
}

static int unpack(struct peer_image *image, const char *archive, struct error **err)
{
    const char *arguments[] = {image->folder, archive, NULL};
    json_t *document;
    int r = command_shell(NULL, "mkdir -p \"$1/a\" \"$1/rootfs\"; tar -C \"$1/a\" -xf \"$2\"", arguments, NULL, err);

    if (r < 0)
        return r;
    if ((document = load(image, "index.json")))
        r = unpack_oci(image, document, err);
    else if ((document = load(image, "manifest.json")))
        r = unpack_docker(image, document, err);
    else
        r = command_shell(NULL, "rmdir \"$1/rootfs\"; mv \"$1/a\" \"$1/rootfs\"", arguments, NULL, err);
    json_decref(document);
    if (r == 0 && (!image->entrypoint || json_array_size(image->entrypoint) == 0))
        r = error_set(err, EINVAL, "IMAGE_MALFORMED", "%s names no entry point", archive);
    if (r == 0)
        r = command_shell(NULL,
                          "chmod 755 \"$1\" \"$1/rootfs\"; mkdir -p \"$1/rootfs/dev\" \"$1/rootfs/proc\" "
                          "\"$1/rootfs/sys\"; tar -C \"$1/rootfs\" -cf \"$1/rootfs.tar\" .",
                          arguments, NULL, err);
    return r;
}

int peer_image_open(struct peer_image *image, const struct bench_options *options, struct error **err)
{
    int r;

    *image = (struct peer_image){.folder = "/tmp/coracle-bench-XXXXXX"};
    if (!options->archive) {
        image->folder[0] = '\0';
        error_set(err, ENOENT, "IMAGE_NOT_FOUND", "no archive of %s to give to the peer", options->image);
        error_hint(err, "name it with --archive FILE");
        return -ENOENT;
    }
    if (!mkdtemp(image->folder)) {
        image->folder[0] = '\0';
        return error_set_errno(err, errno, "NO_SPACE", "temporary folder for a peer's image");
    }
    snprintf(image->rootfs, sizeof(image->rootfs), "%s/rootfs", image->folder);
    snprintf(image->tar, sizeof(image->tar), "%s/rootfs.tar", image->folder);
    r = unpack(image, options->archive, err);
    if (r < 0)
        peer_image_close(image);
    return r;
}

void peer_image_close(struct peer_image *image)
{
    const char *arguments[] = {image->folder, NULL};

    if (*image->folder)
        command_shell(NULL, "rm -rf -- \"$1\"", arguments, NULL, NULL);
    json_decref(image->entrypoint);
    image->entrypoint = NULL;
    image->folder[0] = '\0';
}
