/* SPDX-License-Identifier: Apache-2.0 */
/* Names and ids the platform makes up. Pure: randomness is an argument. */
#ifndef CORACLE_MODEL_NAMING_H
#define CORACLE_MODEL_NAMING_H

#include <stdint.h>

#include "model/spec.h"

/* "technology-xxxxxx", a DNS label whatever the technology is called. */
void name_generate(const char *technology, uint64_t random, char ret[NAME_SIZE]);

/* UUID version 4 text (RFC 4122 section 4.4) of 16 random bytes. */
void id_generate(const uint8_t random[16], char ret[INSTANCE_ID_SIZE]);

#endif
