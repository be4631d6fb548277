/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML bodies: libyaml's events become a jansson tree. Why not libyaml's documents: they resolve aliases, and an alias
 * is how a small text becomes a huge tree. An event costs one value, and values are counted.
 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "daemon/api/body.h"

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one being looked at */
    bool have_event;
    size_t values;
    int depth;
    struct error **err;
};

static int refuse(struct reader *reader, const char *what)
{
    const yaml_mark_t *at = reader->have_event ? &reader->event.start_mark : &reader->parser.problem_mark;

    return error_set(reader->err, EINVAL, "MALFORMED_BODY", "body: line %zu, column %zu: %s", at->line + 1,
                     at->column + 1, what);
}

static int out_of_memory(struct reader *reader)
{
    return error_set(reader->err, ENOMEM, "NO_MEMORY", "no memory for the body's values");
}

static int next_event(struct reader *reader)
{
    if (reader->have_event)
        yaml_event_delete(&reader->event);
    reader->have_event = false;
    if (!yaml_parser_parse(&reader->parser, &reader->event))
        return reader->parser.error == YAML_MEMORY_ERROR
                   ? out_of_memory(reader)
                   : refuse(reader, reader->parser.problem ? reader->parser.problem : "no YAML");
    reader->have_event = true;
    return 0;
}

/* JSON's number syntax (RFC 8259 section 6); *ret_real tells a fraction or an exponent. */
static bool is_number(const char *s, bool *ret_real)
{
    bool real = false;

    if (*s == '-')
        s++;
    if (*s < '0' || *s > '9' || (*s == '0' && s[1] >= '0' && s[1] <= '9'))
        return false;
    s += strspn(s, "0123456789");
    if (*s == '.') {
        size_t n = strspn(++s, "0123456789");
        if (n == 0)
            return false;
        s += n;
        real = true;
    }
    if (*s == 'e' || *s == 'E') {
        s += s[1] == '+' || s[1] == '-' ? 2 : 1;
        size_t n = strspn(s, "0123456789");
        if (n == 0)
            return false;
        s += n;
        real = true;
    }
    *ret_real = real;
    return *s == '\0';
}

static int plain_number(struct reader *reader, const char *text, bool real, json_t **ret)
{
    errno = 0;
    if (real) {
        double number = strtod(text, NULL);
        if (!isfinite(number))
            return refuse(reader, "number out of range");
        *ret = json_real(number);
    } else {
        long long number = strtoll(text, NULL, 10);
        if (errno)
            return refuse(reader, "number out of range");
        *ret = json_integer(number);
    }
    return *ret ? 0 : out_of_memory(reader);
}

static int read_scalar(struct reader *reader, json_t **ret)
{
    const char *text = (const char *)reader->event.data.scalar.value;
    size_t length = reader->event.data.scalar.length;
    bool real;

    if (memchr(text, 0, length))
        return refuse(reader, "a NUL character");
    if (reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
        if (length == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)
            *ret = json_null();
        else if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
            *ret = json_boolean(*text == 't');
        else if (is_number(text, &real))
            return plain_number(reader, text, real, ret);
        else
            *ret = json_stringn(text, length);
    } else {
        *ret = json_stringn(text, length);
    }
    return *ret ? 0 : refuse(reader, "text that is no UTF-8");
}

static int read_value(struct reader *reader, json_t **ret);

static int read_sequence(struct reader *reader, json_t **ret)
{
    json_t *list = json_array();
    int r = list ? 0 : out_of_memory(reader);

    while (r == 0 && (r = next_event(reader)) == 0 && reader->event.type != YAML_SEQUENCE_END_EVENT) {
        json_t *item = NULL;
        r = read_value(reader, &item);
        if (r == 0 && json_array_append_new(list, item) < 0)
            r = out_of_memory(reader);
    }
    if (r < 0)
        json_decref(list);
    else
        *ret = list;
    return r;
}

/* Takes the key out of the current event into an owned string. */
static int read_key(struct reader *reader, const json_t *map, char **ret_key)
{
    if (reader->event.type != YAML_SCALAR_EVENT)
        return refuse(reader, "a key must be a plain word");
    const char *text = (const char *)reader->event.data.scalar.value;
    size_t length = reader->event.data.scalar.length;
    if (reader->event.data.scalar.anchor || reader->event.data.scalar.tag)
        return refuse(reader, "anchors, aliases and tags are not accepted");
    if (memchr(text, 0, length))
        return refuse(reader, "a NUL character");
    if (strcmp(text, "<<") == 0)
        return refuse(reader, "merge keys are not accepted");
    if (json_object_get(map, text))
        return refuse(reader, "a key stands twice");
    *ret_key = strndup(text, length);
    return *ret_key ? 0 : out_of_memory(reader);
}

static int read_mapping(struct reader *reader, json_t **ret)
{
    json_t *map = json_object();
    int r = map ? 0 : out_of_memory(reader);

    while (r == 0 && (r = next_event(reader)) == 0 && reader->event.type != YAML_MAPPING_END_EVENT) {
        json_t *value = NULL;
        char *key = NULL;
        r = read_key(reader, map, &key);
        if (r == 0)
            r = next_event(reader);
        if (r == 0)
            r = read_value(reader, &value);
        if (r == 0 && json_object_set_new(map, key, value) < 0)
            r = refuse(reader, "text that is no UTF-8");
        free(key);
    }
    if (r < 0)
        json_decref(map);
    else
        *ret = map;
    return r;
}

static bool is_decorated(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor || event->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor || event->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.anchor || event->data.mapping_start.tag;
    default:
        return event->type == YAML_ALIAS_EVENT;
    }
}

/* The value that starts at the current event. Recursion is bounded by BODY_DEPTH_MAX. */
static int read_value(struct reader *reader, json_t **ret)
{
    int r;

    if (is_decorated(&reader->event))
        return refuse(reader, "anchors, aliases and tags are not accepted");
    if (++reader->values > BODY_VALUES_MAX)
        return refuse(reader, "too many values");
    if (reader->event.type == YAML_SCALAR_EVENT)
        return read_scalar(reader, ret);
    if (reader->depth == BODY_DEPTH_MAX)
        return refuse(reader, "nested too deeply");
    reader->depth++;
    if (reader->event.type == YAML_SEQUENCE_START_EVENT)
        r = read_sequence(reader, ret);
    else if (reader->event.type == YAML_MAPPING_START_EVENT)
        r = read_mapping(reader, ret);
    else
        r = refuse(reader, "a value is missing");
    reader->depth--;
    return r;
}

static int expect(struct reader *reader, yaml_event_type_t type, const char *otherwise)
{
    int r = next_event(reader);

    return r < 0 ? r : reader->event.type == type ? 0 : refuse(reader, otherwise);
}

static int read_stream(struct reader *reader, json_t **ret)
{
    json_t *value = NULL;
    int r = expect(reader, YAML_STREAM_START_EVENT, "no YAML");

    if (r == 0)
        r = expect(reader, YAML_DOCUMENT_START_EVENT, "the body is empty");
    if (r == 0)
        r = next_event(reader);
    if (r == 0)
        r = read_value(reader, &value);
    if (r == 0)
        r = expect(reader, YAML_DOCUMENT_END_EVENT, "the document does not end");
    if (r == 0)
        r = expect(reader, YAML_STREAM_END_EVENT, "one document is accepted, this is a second");
    if (r < 0)
        json_decref(value);
    else
        *ret = value;
    return r;
}

int body_parse_yaml(const char *text, size_t length, json_t **ret, struct error **err)
{
    struct reader reader = {.err = err};

    if (!yaml_parser_initialize(&reader.parser))
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to parse the body");
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
    int r = read_stream(&reader, ret);
    if (reader.have_event)
        yaml_event_delete(&reader.event);
    yaml_parser_delete(&reader.parser);
    return r;
}
