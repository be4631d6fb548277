/* SPDX-License-Identifier: Apache-2.0 */
/* An instance in the daemon's memory: made from a descriptor, moved along the life cycle table, let go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/internal.h"
#include "model/codes.h"
#include "model/spec_parse.h"

static int copy_pairs(const struct spec_pair *from, size_t count, struct instance *to)
{
    to->labels = calloc(count + 1, sizeof(*to->labels));
    if (!to->labels)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        to->labels[i].key = strdup(from[i].key);
        to->labels[i].value = strdup(from[i].value);
        to->label_count = i + 1;
        if (!to->labels[i].key || !to->labels[i].value)
            return -ENOMEM;
    }
    return 0;
}

struct instance *instance_new(const struct vnf_spec *spec, const struct technology *technology)
{
    struct instance *i = calloc(1, sizeof(*i));

    if (!i)
        return NULL;
    memcpy(i->name, spec->name, sizeof(i->name));
    i->technology = technology;
    i->limits = spec->limits;
    i->restart =
        (struct restart_rule){spec->restart, spec->restart_max, spec->restart_backoff_ms, spec->restart_backoff_max_ms};
    i->stop_signal = spec->stop_signal;
    i->stop_grace_ms = spec->stop_grace_ms;
    i->tty = spec->tty;
    i->open_stdin = spec->open_stdin;
    i->created_ns = realtime_ns();
    i->image = strdup(spec->image);
    i->ports = calloc(spec->port_count + 1, sizeof(*i->ports));
    if (!i->image || !i->ports || copy_pairs(spec->labels, spec->label_count, i) < 0) {
        instance_free(i);
        return NULL;
    }
    memcpy(i->ports, spec->ports, spec->port_count * sizeof(*i->ports));
    i->port_count = spec->port_count;
    return i;
}

void instance_free(struct instance *i)
{
    if (!i)
        return;
    free(i->image);
    free(i->image_digest);
    free(i->spec_json);
    pairs_free(i->labels, i->label_count);
    free(i->nics);
    free(i->ports);
    free(i->reason_message);
    free(i);
}

int core_add_instance(struct core *core, struct instance *i)
{
    if (strmap_put(&core->by_id, i->id, i) < 0)
        return -ENOMEM;
    if (strmap_put(&core->by_name, i->name, i) < 0) {
        strmap_remove(&core->by_id, i->id);
        return -ENOMEM;
    }
    i->previous = core->last_instance;
    *(core->last_instance ? &core->last_instance->next : &core->instances) = i;
    core->last_instance = i;
    core->instance_count++;
    return 0;
}

void core_drop_instance(struct core *core, struct instance *i)
{
    strmap_remove(&core->by_id, i->id);
    strmap_remove(&core->by_name, i->name);
    *(i->previous ? &i->previous->next : &core->instances) = i->next;
    *(i->next ? &i->next->previous : &core->last_instance) = i->previous;
    core->instance_count--;
    unmark_instance(core, i);
    networks_give(core, i->nics, i->nic_count);
    calls_instance_gone(core, i->id);
    for (struct operation *op = core->operations; op; op = op->next)
        if (op->instance == i)
            op->instance = NULL;
    instance_free(i);
}

void instance_event(struct core *core, struct instance *i, enum instance_event event)
{
    int next = lifecycle_next(i->state, event);

    if (next < 0) {
        log_line(LOG_LEVEL_ERROR, i->id, "event %d cannot happen in state %s; ignored", event,
                 instance_state_name(i->state));
        return;
    }
    if (next == (int)i->state)
        return;
    auto_buffer struct buffer detail = {0};
    buffer_printf(&detail, "{\"from\":\"%s\",\"to\":\"%s\"}", instance_state_name(i->state),
                  instance_state_name((enum instance_state)next));
    i->state = (enum instance_state)next;
    if (i->state == STATE_STARTED || i->state == STATE_STARTING)
        instance_reason(i, NULL);
    if (!instance_state_runs(i->state) && i->state != STATE_STARTING)
        i->pid = 0;
    event_instance(core, "instance.state", i, detail.data);
    mark_instance(core, i);
}

void instance_reason(struct instance *i, const struct error *err)
{
    char text[1024];

    free(i->reason_message);
    i->reason_message = err ? strdup(error_text(err, text, sizeof(text))) : NULL;
    i->reason_code = err ? error_code_intern(err->code) : NULL;
}

int instance_spec(const struct instance *i, struct vnf_spec *ret, struct error **err)
{
    json_error_t where;
    json_t *json = json_loads(i->spec_json, 0, &where);
    int r;

    if (!json)
        return error_set(err, EINVAL, "STORE_FAILED", "the stored descriptor of %s is damaged: %s", i->name,
                         where.text);
    r = spec_parse(json, ret, err);
    json_decref(json);
    if (r < 0)
        return r;
    memcpy(ret->name, i->name, sizeof(ret->name));
    ret->limits = i->limits;
    return 0;
}
