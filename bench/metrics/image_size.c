/* SPDX-License-Identifier: Apache-2.0 */
/* Section 4.5: the bytes that must be shipped to run the function elsewhere. */
#include "bench/metrics/metric.h"

static void sample(struct measurement *m, const char *mode, struct outcome *outcomes)
{
    struct error *err = NULL;
    uint64_t bytes;

    if (m->subject->ops->image_bytes(m->subject, &bytes, &err) < 0)
        metric_fail(&metric_image_size, outcomes, err);
    else
        outcome_set(&outcomes[0], (double)bytes / 1e6);
}

static const char *const outputs[] = {"shipped", NULL};

const struct metric metric_image_size = {
    .name = "image_size",
    .unit = "MB",
    .title = "Image size",
    .method =
        "Bytes of the image as it is shipped (Coracle: the archive as it was imported; docker and podman: the length "
        "of `save`'s archive; crun and runc: the root file system's tar). MB are 10^6 bytes. A count, not a sample: "
        "it does not vary between runs. The same function is in every image.",
    .outputs = outputs,
    .default_runs_max = 1,
    .sample = sample,
};
