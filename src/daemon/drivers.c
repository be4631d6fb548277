/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that names all drivers: a technology is a row here. Read by the core on the daemon's thread. */
#include <errno.h>
#include <string.h>

#include "base/suggest.h"
#include "daemon/internal.h"
#include "drivers/container/container.h"
#include "drivers/fake/fake.h"
#include "drivers/hybrid/hybrid.h"
#include "drivers/qemu/qemu.h"
#include "drivers/vmm/vmm.h"

const struct technology technologies[] = {
    {"container", GUEST_PROCESS, &container_driver},
    {"unikernel.kvm", GUEST_UNIKERNEL, &vmm_driver},
    {"unikernel.osv.kvm", GUEST_UNIKERNEL, &qemu_driver, .keeps_identity = true},
    {"tinyx.kvm", GUEST_LINUX, &qemu_driver, .prefers = 1 << VARIANT_LINUX},
    {"standardvm.kvm", GUEST_LINUX, &qemu_driver, .prefers = 1 << VARIANT_DISK},
    {"container.tinyx.kvm", GUEST_PROCESS, &hybrid_driver, .carrier = "coracle/carrier:latest"},
    {"fake", GUEST_FAKE, &fake_driver},
};
const size_t technology_count = sizeof(technologies) / sizeof(technologies[0]);

const struct technology *technology_find(const char *name)
{
    for (size_t i = 0; i < technology_count; i++)
        if (strcmp(technologies[i].name, name) == 0)
            return &technologies[i];
    return NULL;
}

int technology_get(const char *name, const struct technology **ret, struct error **err)
{
    const struct technology *technology = technology_find(name);
    const char *nearest = NULL;

    if (technology) {
        *ret = technology;
        return 0;
    }
    for (size_t i = 0; i < technology_count; i++)
        suggest_offer(name, technologies[i].name, &nearest);
    error_set(err, EINVAL, "UNKNOWN_TECHNOLOGY", "technology: \"%s\" is not known to this release", name);
    if (nearest)
        error_hint(err, "did you mean \"%s\"?", nearest);
    error_hint(err, "GET /v1/host (coracle doctor) lists the technologies");
    return -EINVAL;
}

size_t technology_slot(const struct technology *technology)
{
    size_t slot = SLOT_DRIVERS;

    if (!technology->driver->make_executor)
        return SLOT_LAUNCHER;
    for (size_t i = 0; i < technology_count && technologies[i].driver != technology->driver; i++)
        if (technologies[i].driver->make_executor && (i == 0 || technologies[i].driver != technologies[i - 1].driver))
            slot++;
    return slot;
}

int technology_carrier(const struct core *core, const struct technology *technology, struct image_view *ret,
                       struct error **err)
{
    const struct technology guest = {.name = technology->name, GUEST_LINUX, .prefers = 1 << VARIANT_LINUX};
    int r;

    if (!core->images)
        return error_set(err, ENOENT, "IMAGE_NOT_FOUND", "this daemon was built without an image store");
    r = core->images->find(core->images_context, technology->carrier, &guest, ret, err);
    if (r == 0 && (ret->config->variant != VARIANT_LINUX || !ret->config->initrd))
        r = error_set(err, EINVAL, "IMAGE_WRONG_GUEST", "image %s is no guest that carries containers",
                      technology->carrier);
    if (r < 0)
        error_hint(err, "build it: coracle build carrier --for tinyx.kvm, and coracle image import "
                        "carrier.tinyx.oci.tar coracle/carrier");
    return r;
}

static void probe(const struct core *core, const struct technology *technology, struct technology_state *ret)
{
    struct image_view carrier;

    if (!technology->driver->make_executor && !core->facts_known) {
        *ret = (struct technology_state){
            .accelerator = "none",
            .why_not = "the launcher has not answered yet, so the host is not known",
            .what_would_help = "start coracle-launcher (systemctl start coracle-launcher, or coracle up)"};
        return;
    }
    technology->driver->probe(&core->facts, ret);
    if (ret->available && technology->carrier && technology_carrier(core, technology, &carrier, NULL) < 0) {
        ret->available = false;
        ret->why_not = "the image coracle/carrier, the guest that its containers run in, is not in the store";
        ret->what_would_help =
            "coracle build carrier --for tinyx.kvm && coracle image import carrier.tinyx.oci.tar coracle/carrier";
    }
}

void technology_probe(const struct core *core, const struct technology *technology, struct technology_state *ret)
{
    probe(core, technology, ret);
    ret->keeps_identity |= technology->keeps_identity;
    ret->verbs = technology->driver->verbs & ~(uint32_t)(ret->keeps_identity ? VERB_RESTORE : 0);
    ret->start_modes = technology->driver->start_modes & ~(ret->keeps_identity ? 1u << START_SNAPSHOT : 0u);
}
