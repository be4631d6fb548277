/* SPDX-License-Identifier: Apache-2.0 */
/* Makes names and ids from random numbers; the daemon gives those. */
#include <stdio.h>
#include <string.h>

#include "model/naming.h"

void name_generate(const char *technology, uint64_t random, char ret[NAME_SIZE])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    size_t n = 0;

    for (; technology[n] && n < NAME_SIZE - 8; n++)
        ret[n] = technology[n] == '.' ? '-' : technology[n];
    ret[n++] = '-';
    for (int i = 0; i < 6; i++, random /= 36)
        ret[n++] = letters[random % 36];
    ret[n] = '\0';
}

uint64_t name_hash(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

void link_mac(const char *link, uint8_t ret[6])
{
    uint64_t h = name_hash(link);

    ret[0] = 0x02;
    for (int i = 1; i < 6; i++)
        ret[i] = (uint8_t)(h >> (8 * i));
}

void id_generate(const uint8_t random[16], char ret[INSTANCE_ID_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;

    for (int i = 0; i < 16; i++) {
        uint8_t byte = random[i];
        if (i == 6)
            byte = (byte & 0x0f) | 0x40; /* version 4 */
        else if (i == 8)
            byte = (byte & 0x3f) | 0x80; /* variant of RFC 4122 */
        if (i == 4 || i == 6 || i == 8 || i == 10)
            ret[n++] = '-';
        ret[n++] = digits[byte >> 4];
        ret[n++] = digits[byte & 15];
    }
    ret[n] = '\0';
}
