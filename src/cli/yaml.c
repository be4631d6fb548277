/* SPDX-License-Identifier: Apache-2.0 */
/* libyaml's document tree turned into jansson's. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <yaml.h>

#include "base/cleanup.h"
#include "cli/yaml.h"

enum { NODES_MAX = 20000, DEPTH_MAX = 32 };

struct convert {
    yaml_document_t *document;
    const char *name;
    unsigned int nodes, depth;
    struct error **err;
};

static bool is_one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(word, *list))
            return true;
    return false;
}

/* YAML 1.2.2 section 10.3.2, core schema. */
static json_t *plain_scalar(const char *word)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    const char *digits = word + (*word == '-' || *word == '+');
    size_t n = strspn(digits, "0123456789");
    char *end;

    if (is_one_of(word, nulls))
        return json_null();
    if (is_one_of(word, trues))
        return json_true();
    if (is_one_of(word, falses))
        return json_false();
    if (n > 0 && !digits[n]) {
        errno = 0;
        long long value = strtoll(word, NULL, 10);

        return errno ? json_string(word) : json_integer(value);
    }
    if (*digits && strspn(digits, "0123456789.eE+-") == strlen(digits) && strpbrk(digits, "0123456789")) {
        double value = strtod(word, &end);

        if (!*end)
            return json_real(value);
    }
    return json_string(word);
}

static json_t *convert_node(struct convert *c, yaml_node_t *node);

static json_t *fail(struct convert *c, const yaml_node_t *node, const char *why)
{
    error_set(c->err, EINVAL, "MALFORMED_BODY", "%s, line %zu: %s", c->name, node->start_mark.line + 1, why);
    return NULL;
}

static json_t *convert_sequence(struct convert *c, yaml_node_t *node)
{
    json_t *list = json_array();

    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        json_t *item = convert_node(c, yaml_document_get_node(c->document, *i));

        if (!item || json_array_append_new(list, item) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *convert_mapping(struct convert *c, yaml_node_t *node)
{
    json_t *object = json_object();

    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        yaml_node_t *key = yaml_document_get_node(c->document, p->key);
        json_t *value = NULL;

        if (key->type != YAML_SCALAR_NODE)
            fail(c, key, "a key is no plain word");
        else if (json_object_get(object, (char *)key->data.scalar.value))
            fail(c, key, "a key stands there twice");
        else
            value = convert_node(c, yaml_document_get_node(c->document, p->value));
        if (!value || json_object_set_new(object, (char *)key->data.scalar.value, value) < 0) {
            if (value)
                fail(c, key, "a key is no UTF-8");
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static json_t *convert_node(struct convert *c, yaml_node_t *node)
{
    json_t *value = NULL;

    if (++c->nodes > NODES_MAX || c->depth >= DEPTH_MAX)
        return fail(c, node, "the document is too large or nests too deep");
    c->depth++;
    if (node->type == YAML_SCALAR_NODE) {
        const char *text = (char *)node->data.scalar.value;

        value = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_scalar(text) : json_string(text);
        if (!value)
            fail(c, node, "text that is no UTF-8");
    } else if (node->type == YAML_SEQUENCE_NODE) {
        value = convert_sequence(c, node);
    } else {
        value = convert_mapping(c, node);
    }
    c->depth--;
    return value;
}

/* Returns 1 for a document, 0 at the end. */
static int read_document(yaml_parser_t *parser, const char *name, json_t *list, struct error **err)
{
    struct convert c = {.name = name, .err = err};
    yaml_document_t document;
    yaml_node_t *root;
    json_t *value;

    if (!yaml_parser_load(parser, &document)) {
        error_set(err, EINVAL, "MALFORMED_BODY", "%s, line %zu: %s", name, parser->problem_mark.line + 1,
                  parser->problem ? parser->problem : "not readable");
        return -EINVAL;
    }
    c.document = &document;
    root = yaml_document_get_root_node(&document);
    value = root ? convert_node(&c, root) : NULL;
    yaml_document_delete(&document);
    if (!root)
        return 0;
    if (!value)
        return -EINVAL;
    json_array_append_new(list, value);
    return 1;
}

int yaml_read(FILE *in, const char *name, json_t **ret, struct error **err)
{
    json_t *list = json_array();
    yaml_parser_t parser;
    int r;

    if (!list || !yaml_parser_initialize(&parser)) {
        json_decref(list);
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    }
    yaml_parser_set_input_file(&parser, in);
    do
        r = read_document(&parser, name, list, err);
    while (r > 0);
    yaml_parser_delete(&parser);
    if (r < 0) {
        json_decref(list);
        return r;
    }
    *ret = list;
    return 0;
}

int yaml_read_path(const char *path, json_t **ret, struct error **err)
{
    auto_file FILE *in = NULL;

    if (!strcmp(path, "-"))
        return yaml_read(stdin, "standard input", ret, err);
    in = fopen(path, "re");
    if (!in) {
        int saved = errno;

        error_set_errno(err, saved, "INVALID_VALUE", "%s cannot be read", path);
        error_hint(err, "-f takes the path of a descriptor: coracle-descriptor(5)");
        return -saved;
    }
    return yaml_read(in, path, ret, err);
}
