/* Attention of one query to keys and values that lie in a cache: decoding reads each of them once
 * for a token, and is done with all sequences of a batch in one call, each at its own length.
 *
 * Scores are found for some keys at a time, and what was summed before is scaled when a larger one
 * comes (Milakov and Gimelshein 2018, arXiv 1805.02867).
 *
 * `store` is how new ones come there.
 *
 * b sequences, h heads, g key heads (h / g read the same one), c channels.
 */

#include "native.h"

enum { BLOCK = 256, CHANNELS = 512 }; /* keys whose scores are held at once; channels at most */

#define FETCH(from, n, bf16)                                                                       \
    __builtin_prefetch((const char *)(from) + (n) * ((bf16) ? 2 : 4), 0, 2)

/* sums (c) = sums * kept + the values of n keys, each times its weight. */
INLINE void mix(const Attention *a, int64_t start, int64_t n, const float *weights, float kept,
                float *sums, const int wide, const int k_bf16) {
    floats lanes[4];
    for (int k = 0; k < wide; k++) lanes[k] = load_f32(sums + 16 * k) * kept;
    for (int64_t t = 0; t < n; t++, start += a->token)
        for (int k = 0; k < wide; k++) {
            FETCH(a->k, start + a->head + 16 * k, k_bf16); /* of the next head */
            lanes[k] += weights[t] * load(a->v, start + 16 * k, k_bf16);
        }
    for (int k = 0; k < wide; k++) memcpy(sums + 16 * k, &lanes[k], sizeof lanes[k]);
}

/* The same of the last channels, where they are less than sixteen. */
INLINE void mix_rest(const Attention *a, int64_t start, int64_t n, const float *weights, float kept,
                     float *sums, int64_t rest, const int k_bf16) {
    floats lanes = load_f32(sums) * kept;
    for (int64_t t = 0; t < n; t++, start += a->token)
        lanes += weights[t] * load_some(a->v, start, rest, k_bf16);
    memcpy(sums, &lanes, sizeof lanes);
}

/* One head of one sequence. */
INLINE void attend(const Attention *a, int64_t row, int64_t head, const int q_bf16,
                   const int k_bf16) {
    int64_t start = a->offset[row] + head / (a->h / a->g) * a->head, c = a->c;
    int64_t at = row * a->q_row + head * a->q_head, place = (row * a->h + head) * c;
    const float *bias = a->bias ? a->bias + head * a->bias_head : NULL;
    int64_t whole = c / 16 * 16, rest = c - whole, count = a->length[row];
    if (a->window && count > a->window) {
        start += (count - a->window) * a->token;
        if (bias) bias += count - a->window;
        count = a->window;
    }
    float q[CHANNELS], sums[CHANNELS], scores[BLOCK], most = -INFINITY, sum = 0;
    for (int64_t k = 0; k < c; k += 16) {
        floats part = (k < whole ? load(a->q, at + k, q_bf16) : load_some(a->q, at + k, rest, q_bf16));
        part *= a->scale;
        memcpy(q + k, &part, sizeof part);
    }
    memset(sums, 0, sizeof sums);
    for (int64_t first = 0; first < count; first += BLOCK) {
        int64_t n = least(count - first, BLOCK);
        int64_t from = start + first * a->token, k = 0;
        float before = most;
        for (int64_t t = 0; t < n; t++) {
            floats lanes = {0};
            for (k = 0; k < whole; k += 16) {
                FETCH(a->v, from + t * a->token + k, k_bf16); /* whose turn is next */
                lanes += load_f32(q + k) * load(a->k, from + t * a->token + k, k_bf16);
            }
            if (rest)
                lanes += load_f32(q + k) * load_some(a->k, from + t * a->token + k, rest, k_bf16);
            scores[t] = total(lanes) + (bias ? bias[first + t] : 0);
            most = scores[t] > most ? scores[t] : most;
        }
        for (int64_t t = n; t % 16; t++) scores[t] = -INFINITY;
        floats new = {0};
        for (int64_t t = 0; t < n; t += 16) {
            floats part = exponent(load_f32(scores + t) - most);
            new += part;
            memcpy(scores + t, &part, sizeof part);
        }
        float kept = first ? expf(before - most) : 0;
        sum = sum * kept + total(new);
        for (k = 0; k + 64 <= c; k += 64) mix(a, from + k, n, scores, kept, sums + k, 4, k_bf16);
        for (; k < whole; k += 16) mix(a, from + k, n, scores, kept, sums + k, 1, k_bf16);
        if (rest) mix_rest(a, from + k, n, scores, kept, sums + k, rest, k_bf16);
    }
    for (int64_t k = 0; k < c; k += 16)
        keep(a->y, place + k, load_f32(sums + k) / sum, least(c - k, 16), q_bf16);
}

CLONES static void span_attend(const void *job, int64_t first, int64_t last) {
    const Attention *a = job;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t row = unit / a->h, head = unit % a->h;
        if (a->q_bf16)
            a->k_bf16 ? attend(a, row, head, 1, 1) : attend(a, row, head, 1, 0);
        else
            a->k_bf16 ? attend(a, row, head, 0, 1) : attend(a, row, head, 0, 0);
    }
}

int attend_rows(const Attention *a) {
    run(span_attend, a, a->b * a->h, a->threads);
    return 0;
}

int store(const Store *s) {
    for (int64_t row = 0; row < s->b; row++)
        for (int64_t head = 0; head < s->g; head++)
            for (int64_t token = 0; token < s->n; token++)
                memcpy(s->slots + head * s->slots_g + s->slot[row * s->n + token] * s->slots_s,
                       s->x + row * s->x_b + head * s->x_g + token * s->x_n, (size_t)s->bytes);
    return 0;
}
