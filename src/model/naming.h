/* SPDX-License-Identifier: Apache-2.0 */
/* Names and ids the platform makes up. Pure: randomness is an argument. */
#ifndef CORACLE_MODEL_NAMING_H
#define CORACLE_MODEL_NAMING_H

#include <stdint.h>

#include "model/spec.h"

/* "technology-xxxxxx", a DNS label whatever the technology is called. */
void name_generate(const char *technology, uint64_t random, char ret[NAME_SIZE]);

/* MAC address of a virtual link's bridge, which is its gateway's: the same whenever it is made, so that instances'
 * permanent entries stay right. Locally administered, unicast. */
void link_mac(const char *link, uint8_t ret[6]);

/* FNV-1a (Fowler, Noll, Vo), 64 bits: spreads names, protects nothing. */
uint64_t name_hash(const char *text);

/* UUID version 4 text (RFC 4122 section 4.4) of 16 random bytes. */
void id_generate(const uint8_t random[16], char ret[INSTANCE_ID_SIZE]);

#endif
