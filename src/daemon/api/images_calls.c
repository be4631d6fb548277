/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on images. An archive goes piece by piece to the image store as it arrives; nothing of it is kept here. */
#include <errno.h>

#include "daemon/api/server.h"

/* guest=linux&guest=disk or guest=-process: the variants meant; all when there is no such parameter. */
static int wanted_variants(const struct target *target, uint32_t *ret, struct error **err)
{
    uint32_t some = 0, without = 0;

    for (size_t i = 0; i < target->query_count; i++) {
        const char *text = target->query[i].value;
        bool negated = *text == '-';
        enum image_variant v;

        if (variant_parse(text + negated, &v) < 0) {
            error_set(err, EINVAL, "INVALID_VALUE", "guest: \"%.32s\" is no kind of guest", text + negated);
            error_hint(err, "guests: process unikernel linux disk");
            return -EINVAL;
        }
        *(negated ? &without : &some) |= 1u << v;
    }
    *ret = (some ? some : (uint32_t)VARIANT_ALL) & ~without;
    return 0;
}

int get_images(struct request *request, struct error **err)
{
    uint32_t variants;
    int r = wanted_variants(&request->target, &variants, err);

    if (r < 0)
        return r;
    images_render_list(request->api->images, variants, &request->out);
    answer_json(request, MHD_HTTP_OK, &request->out);
    return 0;
}

int get_image(struct request *request, struct error **err)
{
    uint32_t variants;
    int r = wanted_variants(&request->target, &variants, err);

    if (r == 0)
        r = images_render(request->api->images, request->target.argument, variants, &request->out, err);
    if (r == 0)
        answer_json(request, MHD_HTTP_OK, &request->out);
    return r;
}

static void on_removed(void *context, const struct error *err)
{
    if (err)
        answer_problem(context, err);
    else
        answer_empty(context, MHD_HTTP_NO_CONTENT);
}

int delete_image(struct request *request, struct error **err)
{
    uint32_t variants;
    int r = wanted_variants(&request->target, &variants, err);

    return r < 0 ? r
                 : images_remove(request->api->images, request->target.argument, variants, on_removed, request, err);
}

int prepare_image(struct request *request, struct error **err)
{
    const char *name, *entrypoint;
    int r = target_value(&request->target, "name", &name, err);

    if (r == 0)
        r = target_value(&request->target, "entrypoint", &entrypoint, err);
    return r < 0 ? r : images_upload_begin(request->api->images, name, entrypoint, &request->upload, err);
}

static void on_imported(void *context, const char *digest, const char *name, bool added, const struct error *failure)
{
    struct request *request = context;
    auto_error struct error *err = NULL;

    if (failure)
        answer_problem(request, failure);
    else if (images_render_as(request->api->images, digest, name, &request->out, &err) < 0)
        answer_problem(request, err);
    else
        answer_json(request, added ? MHD_HTTP_CREATED : MHD_HTTP_OK, &request->out);
}

int post_image(struct request *request, struct error **err)
{
    struct image_upload *upload = request->upload;

    request->upload = NULL; /* the store's from now on */
    return images_upload_finish(upload, on_imported, request, err);
}

int post_pull(struct request *request, struct error **err)
{
    struct operation *operation;
    int r = images_pull(request->api->images, request->json, &request->times, &operation, err);

    return r < 0 ? r : answer_operation(request, operation, err);
}
