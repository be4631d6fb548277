/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image store as the REST layer and the core see it: uploads, pulls, records, removal.
 *
 * Called on the daemon's one thread. Bytes of an image are never looked at here: they are spooled, handed to the
 * launcher (MESSAGE_UNPACK), and coracle-unpack's answer is checked like any foreign input before it is recorded.
 * Callbacks never come from within the call that registered them.
 */
#ifndef CORACLE_DAEMON_IMAGES_H
#define CORACLE_DAEMON_IMAGES_H

#include "daemon/core.h"

struct images;
struct image_upload;

/* Reads the records, empties the spool, registers with the core (core_set_images). Open after the core, close before.
 */
int images_open(struct core *, struct images **ret, struct error **err);
void images_close(struct images *); /* accepts NULL */

/* variants: bits 1 << enum image_variant, VARIANT_ALL for any. {"items": [IMAGE...]}, newest first. */
void images_render_list(struct images *, uint32_t variants, struct buffer *out);
/* ref: a reference, "sha256:HEX", or a unique prefix (>= 4 digits) of HEX; of several variants the first is shown.
 * IMAGE_NOT_FOUND, IMAGE_WRONG_GUEST, AMBIGUOUS_NAME. */
int images_render(struct images *, const char *ref, uint32_t variants, struct buffer *out, struct error **err);
/* The image of that digest under one of its names; NULL: its first. */
int images_render_as(struct images *, const char *digest, const char *name, struct buffer *out, struct error **err);

/* DELETE /v1/images/{ref}: all these variants of a name or none, or the one with the digest. A reference beside others
 * only loses the name. IMAGE_IN_USE names who uses it. done comes when it is committed; the layers follow in the
 * background. */
int images_remove(struct images *, const char *ref, uint32_t variants, core_done done, void *context,
                  struct error **err);

/* POST /v1/images. name: as in the query, NULL: the archive's own name or none. entrypoint: the query's JSON (a list
 * of strings) or NULL; only for a plain root file system. Both are checked here: call it before the body is read. */
int images_upload_begin(struct images *, const char *name, const char *entrypoint, struct image_upload **ret,
                        struct error **err);
/* NO_SPACE, IMAGE_TOO_LARGE: then call images_upload_abort(). */
int images_upload_write(struct image_upload *, const void *bytes, size_t size, struct error **err);
/* Lets a body that did not come whole go; accepts NULL. Not after images_upload_finish(). */
void images_upload_abort(struct image_upload *);
/* digest: for images_render_as() ("sha256:HEX"), NULL with err on failure. name: what it was to be called, NULL: nothing.
 * added: false when it was there already, under whatever name. */
typedef void (*images_done)(void *context, const char *digest, const char *name, bool added, const struct error *err);
/* Unpacks and records. The upload belongs to the store from now on, also when this fails. */
int images_upload_finish(struct image_upload *, images_done done, void *context, struct error **err);

/* No callback with this context comes any more (its client has left); the import itself goes on. */
void images_forget(struct images *, void *context);

/* POST /v1/images/pull: body {"reference": "docker://..."}; an operation of kind PULL that can be cancelled. */
int images_pull(struct images *, const json_t *body, const struct core_times *, struct operation **ret,
                struct error **err);

#endif
