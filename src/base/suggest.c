/* SPDX-License-Identifier: Apache-2.0 */
/* Edit distance for "did you mean" hints: only runs once something is already wrong. Any process. */
#include <ctype.h>
#include <string.h>

#include "base/suggest.h"

enum { WORD_MAX = 63 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t suggest_distance(const char *a, const char *b)
{
    size_t la = strnlen(a, WORD_MAX + 1), lb = strnlen(b, WORD_MAX + 1);
    size_t row[3][WORD_MAX + 1], *before = row[0], *last = row[1], *now = row[2];

    if (la > WORD_MAX || lb > WORD_MAX)
        return WORD_MAX + 1;
    for (size_t j = 0; j <= lb; j++) {
        before[j] = 0;
        last[j] = j;
    }
    for (size_t i = 1; i <= la; i++) {
        now[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            now[j] = least(least(last[j] + 1, now[j - 1] + 1), last[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) && tolower((unsigned char)a[i - 2]) == cb)
                now[j] = least(now[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[lb];
}

void suggest_offer(const char *word, const char *candidate, const char **best)
{
    size_t length = strlen(word), bound = length / 3 ? length / 3 : 1, distance = suggest_distance(word, candidate);

    if (distance > bound || (*best && suggest_distance(word, *best) <= distance))
        return;
    *best = candidate;
}
