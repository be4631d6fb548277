/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MONITOR_RESIZE: processors and memory for a running q35. QEMU plugs them in and its ACPI tells the guest, which
 * brings them online by itself or by its udev (docs/formats/guest-images.md). Nothing is unplugged: that needs the
 * guest's consent, which one under load does not give. Called on the supervisor's thread.
 */
#include <errno.h>
#include <string.h>

#include "qemu/supervisor.h"

static int plug(struct supervisor *s, const char *command, json_t *arguments, struct error **err)
{
    return qmp_call(&s->qmp, command, arguments, -1, QMP_TIMEOUT_MS, NULL, err);
}

int resize_refuse(const struct supervisor *s, const char *what, struct error **err)
{
    if (!s->plugged_bytes && !s->plugged_vcpus)
        return 0;
    error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
              "%s: the machine was given processors or memory as it ran, which one that goes on from it would not have",
              what);
    error_hint(err, "restart the instance: it then begins with what it has now");
    return -ENOTSUP;
}

/* ---- processors ---- */

static json_int_t place_of(const json_t *properties, const char *key)
{
    return json_integer_value(json_object_get(properties, key));
}

/* Linux numbers its processors in the order they come: those of one socket first. */
static bool comes_before(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"socket-id", "die-id", "core-id", "thread-id"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (place_of(a, keys[i]) != place_of(b, keys[i]))
            return place_of(a, keys[i]) < place_of(b, keys[i]);
    return false;
}

/* The first free place of QEMU's list; NULL: none. Borrowed from the list. */
static const json_t *free_place(const json_t *list)
{
    const json_t *best = NULL, *item;
    size_t i;

    json_array_foreach((json_t *)list, i, item)
    {
        const json_t *properties = json_object_get(item, "props");
        if (json_object_get(item, "qom-path") || !json_is_object(properties) ||
            !json_is_string(json_object_get(item, "type")))
            continue;
        if (!best || comes_before(properties, json_object_get(best, "props")))
            best = item;
    }
    return best;
}

static int plug_vcpu(struct supervisor *s, struct error **err)
{
    json_t *list = NULL;
    int r = qmp_call(&s->qmp, "query-hotpluggable-cpus", NULL, -1, QMP_TIMEOUT_MS, &list, err);

    if (r < 0)
        return r;
    const json_t *place = free_place(list);
    json_t *device = place ? json_deep_copy(json_object_get(place, "props")) : NULL;
    if (device) {
        json_object_set_new(device, "driver", json_string(json_string_value(json_object_get(place, "type"))));
        json_object_set_new(device, "id", json_sprintf("vcpu%u", s->machine.vcpus + s->plugged_vcpus));
        r = plug(s, "device_add", device, err);
    } else {
        r = error_set(err, EIO, "INTERNAL", "QEMU has no place for another processor");
    }
    json_decref(list);
    if (r == 0)
        s->plugged_vcpus++;
    return r;
}

/* ---- memory ---- */

static int plug_memory(struct supervisor *s, uint64_t bytes, struct error **err)
{
    const unsigned long long at = s->machine.memory_bytes + s->plugged_bytes; /* names it: never twice the same */
    json_t *backend = json_pack("{s:s, s:o, s:I, s:b}", "qom-type", "memory-backend-ram", "id",
                                json_sprintf("memory%llx", at), "size", (json_int_t)bytes, "share", s->share_memory);
    int r = plug(s, "object-add", backend, err);

    if (r < 0)
        return r;
    r = plug(s, "device_add",
             json_pack("{s:s, s:o, s:o}", "driver", "pc-dimm", "id", json_sprintf("dimm%llx", at), "memdev",
                       json_sprintf("memory%llx", at)),
             err);
    if (r < 0)
        plug(s, "object-del", json_pack("{s:o}", "id", json_sprintf("memory%llx", at)), NULL);
    else
        s->plugged_bytes += bytes;
    return r;
}

/* ---- both ---- */

static int check(const struct supervisor *s, uint32_t vcpus, uint64_t memory_bytes, struct error **err)
{
    const struct machine *m = &s->machine;

    if (vcpus < m->vcpus + s->plugged_vcpus || memory_bytes < m->memory_bytes + s->plugged_bytes)
        return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
                         "processors and memory are not taken from a running machine");
    if (vcpus > m->vcpus_max || memory_bytes > m->memory_max_bytes) {
        error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
                  "the machine has room for %u processors and %llu MiB of memory", m->vcpus_max,
                  (unsigned long long)m->memory_max_bytes >> 20);
        error_hint(err, "stop it, update it and start it");
        return -ENOTSUP;
    }
    return 0;
}

int resize_machine(struct supervisor *s, uint32_t vcpus, uint64_t memory_bytes, struct error **err)
{
    int r = check(s, vcpus, memory_bytes, err);

    while (r == 0 && s->machine.vcpus + s->plugged_vcpus < vcpus)
        r = plug_vcpu(s, err);
    if (r == 0 && s->machine.memory_bytes + s->plugged_bytes < memory_bytes)
        r = plug_memory(s, memory_bytes - s->machine.memory_bytes - s->plugged_bytes, err);
    return r;
}
