/* SPDX-License-Identifier: Apache-2.0 */
/* Comparison of a wanted descriptor with what is there; pure. Used by plan and apply. */
#ifndef CORACLE_CLI_APPLY_H
#define CORACLE_CLI_APPLY_H

#include <jansson.h>
#include <stdint.h>

/* Differences as an array of {"field", "wanted", "is"}: every field wanted gives, compared with the present descriptor.
 */
json_t *descriptor_differences(const json_t *wanted, const json_t *present);

/* A number that changes when what it was made from does: 64-bit FNV-1a of the sorted JSON text. */
uint64_t json_index(const json_t *value);

#endif
