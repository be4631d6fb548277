/* SPDX-License-Identifier: Apache-2.0 */
/* What all subjects share: the list of peers, serial numbers, and learning where an instance will be. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "bench/subject.h"

static const struct subject_ops *const peers[] = {&subject_docker, &subject_podman, &subject_crun, &subject_runc};

const struct subject_ops *subject_peer_find(const char *name)
{
    for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++)
        if (strcmp(peers[i]->name, name) == 0)
            return peers[i];
    return NULL;
}

const char *subject_peer_names(void)
{
    return "docker, podman, crun, runc";
}

unsigned subject_serial(void)
{
    static atomic_uint last;

    return atomic_fetch_add(&last, 1) + 1;
}

int subject_learn(struct subject *subject, struct error **err)
{
    struct subject_instance instance = {0};
    int r = subject->ops->prepare(subject, SUBJECT_START_DEFAULT, true, err);

    if (r == 0)
        r = subject->ops->create(subject, &instance, err);
    if (r < 0)
        return r;
    if (subject->ops->wait)
        r = subject->ops->wait(subject, &instance, err);
    if (r == 0)
        r = subject->ops->inspect(subject, &instance, err);
    if (r == 0)
        memcpy(subject->target.mac, instance.mac, sizeof(instance.mac));
    int removed = subject->ops->destroy(subject, &instance, r < 0 ? NULL : err);
    return r < 0 ? r : removed;
}
