/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image: ISO 9660 (ECMA-119) of one folder with three files, made in memory, no time in it: the same words give the
 * same bytes. Sectors: 0-15 the words; 16 volume descriptor, 17 end of descriptors, 18 and 19 path tables, 20 the
 * folder, 21... the files. Names are in capitals as the standard wants them; Linux shows them in small letters.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "guest/cidata.h"
#include "guest/config.h"

enum {
    SECTOR = 2048,
    VOLUME = 16,
    TERMINATOR,
    PATHS_LITTLE,
    PATHS_BIG,
    FOLDER,
    FILES,
    FILE_COUNT = 3,
    PATH_TABLE_BYTES = 10
};

struct file {
    const char *name;
    struct buffer content;
    uint32_t sector;
};

static void put_little(uint8_t *at, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static void put_big(uint8_t *at, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

/* Both ways round, one after the other, as the standard has its numbers. */
static void put_both(uint8_t *at, uint32_t value, int bytes)
{
    put_little(at, value, bytes);
    put_big(at + bytes, value, bytes);
}

/* A directory record; returns its size. */
static size_t put_record(uint8_t *at, const char *name, size_t name_size, uint32_t sector, uint32_t size, bool folder)
{
    size_t record = 33 + name_size + (name_size % 2 == 0);

    at[0] = (uint8_t)record;
    put_both(at + 2, sector, 4);
    put_both(at + 10, size, 4);
    at[18] = 70; /* 1970-01-01 00:00:00 */
    at[19] = at[20] = 1;
    at[25] = folder ? 2 : 0;
    put_both(at + 28, 1, 2);
    at[32] = (uint8_t)name_size;
    memcpy(at + 33, name, name_size);
    return record;
}

/* A date of the volume descriptor: digits, and a time zone of 0. */
static void put_date(uint8_t *at, const char *digits)
{
    memcpy(at, digits, 16);
    at[16] = 0;
}

static void put_volume(uint8_t *at, uint32_t sectors)
{
    at[0] = 1;
    memcpy(at + 1, "CD001", 5);
    at[6] = 1;
    memset(at + 8, ' ', 64);
    memcpy(at + 40, "cidata", 6);
    put_both(at + 80, sectors, 4);
    put_both(at + 120, 1, 2);
    put_both(at + 124, 1, 2);
    put_both(at + 128, SECTOR, 2);
    put_both(at + 132, PATH_TABLE_BYTES, 4);
    put_little(at + 140, PATHS_LITTLE, 4);
    put_big(at + 148, PATHS_BIG, 4);
    put_record(at + 156, "\0", 1, FOLDER, SECTOR, true);
    memset(at + 190, ' ', 623);
    put_date(at + 813, "1970010100000000");
    put_date(at + 830, "1970010100000000");
    put_date(at + 847, "0000000000000000");
    put_date(at + 864, "0000000000000000");
    at[881] = 1;
}

static void put_tables(uint8_t *image, const struct file files[FILE_COUNT])
{
    uint8_t *folder = image + FOLDER * SECTOR;

    image[TERMINATOR * SECTOR] = 255;
    memcpy(image + TERMINATOR * SECTOR + 1, "CD001", 5);
    image[TERMINATOR * SECTOR + 6] = 1;
    image[PATHS_LITTLE * SECTOR] = image[PATHS_BIG * SECTOR] = 1;
    put_little(image + PATHS_LITTLE * SECTOR + 2, FOLDER, 4);
    put_little(image + PATHS_LITTLE * SECTOR + 6, 1, 2);
    put_big(image + PATHS_BIG * SECTOR + 2, FOLDER, 4);
    put_big(image + PATHS_BIG * SECTOR + 6, 1, 2);
    folder += put_record(folder, "\0", 1, FOLDER, SECTOR, true);
    folder += put_record(folder, "\1", 1, FOLDER, SECTOR, true);
    for (int i = 0; i < FILE_COUNT; i++)
        folder += put_record(folder, files[i].name, strlen(files[i].name), files[i].sector,
                             (uint32_t)files[i].content.length, false);
}

static int assemble(const char *words, struct file files[FILE_COUNT], struct buffer *ret)
{
    uint32_t sectors = FILES;
    auto_free uint8_t *image = NULL;

    for (int i = 0; i < FILE_COUNT; i++) {
        if (files[i].content.failed)
            return -ENOMEM;
        files[i].sector = sectors;
        sectors += (uint32_t)((files[i].content.length + SECTOR - 1) / SECTOR);
    }
    image = calloc(sectors, SECTOR);
    if (!image)
        return -ENOMEM;
    memcpy(image, CONFIG_DISK_MAGIC, strlen(CONFIG_DISK_MAGIC));
    memcpy(image + strlen(CONFIG_DISK_MAGIC), words, strlen(words));
    put_volume(image + VOLUME * SECTOR, sectors);
    put_tables(image, files);
    for (int i = 0; i < FILE_COUNT; i++)
        memcpy(image + (size_t)files[i].sector * SECTOR, files[i].content.data, files[i].content.length);
    buffer_add(ret, image, (size_t)sectors * SECTOR);
    return ret->failed ? -ENOMEM : 0;
}

struct complaint {
    struct error **err;
    int status;
};

static void complain(void *context, const char *word, const char *reason)
{
    struct complaint *complaint = context;

    if (complaint->status == 0)
        complaint->status = error_set(complaint->err, EINVAL, "INVALID_VALUE", "metadata: \"%.*s\": %s",
                                      (int)strcspn(word, "="), word, reason);
}

int cidata_image(const char *words, const char *instance_id, struct buffer *ret, struct error **err)
{
    struct file files[FILE_COUNT] = {{.name = "META-DATA;1"}, {.name = "NETWORK-CONFIG;1"}, {.name = "USER-DATA;1"}};
    struct complaint complaint = {.err = err};
    struct config config = {0};
    auto_free char *text = NULL;
    int status;

    if (strlen(words) + strlen(CONFIG_DISK_MAGIC) >= CONFIG_TEXT_MAX)
        return error_set(err, EINVAL, "INVALID_VALUE", "metadata: %zu bytes of words, at most %zu fit", strlen(words),
                         CONFIG_TEXT_MAX - 1 - strlen(CONFIG_DISK_MAGIC));
    if (!*instance_id)
        return error_set(err, EINVAL, "INVALID_VALUE", "metadata: an empty instance id");
    text = strdup(words);
    if (!text)
        return error_set(err, ENOMEM, "NO_MEMORY", "metadata");
    if (config_parse(text, CONFIG_OURS, &config, complain, &complaint) > 0)
        return complaint.status;
    cidata_meta_data(&config, instance_id, &files[0].content);
    cidata_network_config(&config, &files[1].content);
    cidata_user_data(&config, &files[2].content);
    status = assemble(words, files, ret);
    for (int i = 0; i < FILE_COUNT; i++)
        buffer_clear(&files[i].content);
    return status < 0 ? error_set(err, -status, "NO_MEMORY", "metadata disk") : 0;
}
