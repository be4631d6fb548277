/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 through OpenSSL's EVP interface (it uses the processor's SHA instructions). See digest.h. */
#include <errno.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/cleanup.h"
#include "image/digest.h"

struct digest {
    EVP_MD_CTX *context;
};

static EVP_MD *algorithm;

int digest_prepare(struct error **err)
{
    if (!algorithm)
        algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!algorithm)
        return error_set(err, ENOSYS, "INTERNAL", "OpenSSL offers no SHA-256");
    return 0;
}

int digest_new(struct digest **ret, struct error **err)
{
    struct digest *d = NULL;
    int r = digest_prepare(err);

    if (r < 0)
        return r;
    d = calloc(1, sizeof(*d));
    if (d)
        d->context = EVP_MD_CTX_new();
    if (!d || !d->context || EVP_DigestInit_ex2(d->context, algorithm, NULL) != 1) {
        digest_free(d);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a SHA-256 state");
    }
    *ret = d;
    return 0;
}

void digest_update(struct digest *d, const void *bytes, size_t size)
{
    if (d)
        EVP_DigestUpdate(d->context, bytes, size);
}

void digest_free(struct digest *d)
{
    if (d)
        EVP_MD_CTX_free(d->context);
    free(d);
}

void digest_hex(struct digest *d, char ret_hex[IMAGE_DIGEST_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[EVP_MAX_MD_SIZE] = {0};
    unsigned int size = 0;

    EVP_DigestFinal_ex(d->context, raw, &size);
    for (size_t i = 0; i < 32; i++) {
        ret_hex[2 * i] = digits[raw[i] >> 4];
        ret_hex[2 * i + 1] = digits[raw[i] & 15];
    }
    ret_hex[64] = '\0';
}

int digest_of(const void *bytes, size_t size, char ret_hex[IMAGE_DIGEST_SIZE], struct error **err)
{
    struct digest *d = NULL;
    int r = digest_new(&d, err);

    if (r < 0)
        return r;
    digest_update(d, bytes, size);
    digest_hex(d, ret_hex);
    digest_free(d);
    return 0;
}

bool digest_is_hex(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

int digest_parse(const char *text, char ret_hex[IMAGE_DIGEST_SIZE])
{
    if (strncmp(text, "sha256:", 7) != 0 || !digest_is_hex(text + 7))
        return -EINVAL;
    memcpy(ret_hex, text + 7, IMAGE_DIGEST_SIZE);
    return 0;
}
