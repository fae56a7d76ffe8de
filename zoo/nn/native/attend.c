/* Attention of one query to keys and values that lie in a cache: decoding reads each of them once
 * for a token, and is done with all sequences of a batch in one call, each at its own length.
 *
 * Scores are found for some keys at a time, and what was summed before is scaled when a larger one
 * comes (Milakov and Gimelshein 2018, arXiv 1805.02867).
 *
 * b sequences, h heads, g key heads (h / g read the same one), c channels: a multiple of 16.
 */

#include "native.h"

enum { BLOCK = 256, CHANNELS = 512 }; /* keys whose scores are held at once; channels at most */

typedef struct {
    const void *q;                  /* b h c, floats or bf16 */
    const void *k, *v;              /* where a sequence's first key lies: offset[b], in numbers */
    const float *bias;              /* h n, added to the scores; or NULL */
    const int64_t *offset, *length; /* b */
    void *y;                        /* b h c, without gaps */
    int64_t q_row, q_head;          /* from one sequence, one head to the next, in numbers */
    int64_t head, token;            /* the same of keys and values */
    int64_t bias_head;
    int64_t h, g, c;
    float scale;
    int q_bf16, k_bf16;
} Attention;

#define FETCH(from, n, bf16)                                                                       \
    __builtin_prefetch((const char *)(from) + (n) * ((bf16) ? 2 : 4), 0, 2)

INLINE floats load(const void *from, int64_t n, const int bf16) {
    return bf16 ? load_bf16((const uint16_t *)from + n) : load_f32((const float *)from + n);
}

/* e^x for x <= 0, to 2e-7 of it (Cephes' polynomial). */
INLINE floats exponent(floats x) {
    integers far = x < -87.0f; /* all ones where that is so */
    x = (floats)(((integers)x & ~far) | ((integers)((floats){0} - 87.0f) & far));
    integers whole = __builtin_convertvector(x * 1.44269504f - 0.5f, integers); /* rounded */
    floats turns = __builtin_convertvector(whole, floats);
    floats rest = x - turns * 0.693359375f + turns * 2.12194440e-4f;
    floats y = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    y = y * rest * rest + rest + 1.0f;
    return (floats)((words)y + (words)(whole << 23));
}

/* sums (c) = sums * keep + the values of n keys, each times its weight. */
INLINE void mix(const Attention *a, int64_t start, int64_t n, const float *weights, float keep,
                float *sums, const int wide, const int k_bf16) {
    floats lanes[4];
    for (int k = 0; k < wide; k++) lanes[k] = load_f32(sums + 16 * k) * keep;
    for (int64_t t = 0; t < n; t++, start += a->token)
        for (int k = 0; k < wide; k++) {
            FETCH(a->k, start + a->head + 16 * k, k_bf16); /* of the next head */
            lanes[k] += weights[t] * load(a->v, start + 16 * k, k_bf16);
        }
    for (int k = 0; k < wide; k++) memcpy(sums + 16 * k, &lanes[k], sizeof lanes[k]);
}

/* One head of one sequence. */
INLINE void attend(const Attention *a, int64_t row, int64_t head, const int q_bf16,
                   const int k_bf16) {
    int64_t start = a->offset[row] + head / (a->h / a->g) * a->head, c = a->c;
    int64_t at = row * a->q_row + head * a->q_head, place = (row * a->h + head) * c;
    const float *bias = a->bias ? a->bias + head * a->bias_head : NULL;
    float q[CHANNELS], sums[CHANNELS], scores[BLOCK], most = -INFINITY, sum = 0;
    for (int64_t k = 0; k < c; k += 16) {
        floats part = load(a->q, at + k, q_bf16) * a->scale;
        memcpy(q + k, &part, sizeof part);
    }
    memset(sums, 0, sizeof(float) * (size_t)c);
    for (int64_t first = 0; first < a->length[row]; first += BLOCK) {
        int64_t n = a->length[row] - first < BLOCK ? a->length[row] - first : BLOCK;
        int64_t from = start + first * a->token, k = 0;
        float before = most;
        for (int64_t t = 0; t < n; t++) {
            floats lanes = {0};
            for (k = 0; k < c; k += 16) {
                FETCH(a->v, from + t * a->token + k, k_bf16); /* whose turn is next */
                lanes += load_f32(q + k) * load(a->k, from + t * a->token + k, k_bf16);
            }
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
        float keep = first ? expf(before - most) : 0;
        sum = sum * keep + total(new);
        for (k = 0; k + 64 <= c; k += 64) mix(a, from + k, n, scores, keep, sums + k, 4, k_bf16);
        for (; k < c; k += 16) mix(a, from + k, n, scores, keep, sums + k, 1, k_bf16);
    }
    for (int64_t k = 0; k < c; k += 16) {
        floats part = load_f32(sums + k) / sum;
        halves low = rounded(part);
        if (q_bf16)
            memcpy((uint16_t *)a->y + place + k, &low, sizeof low);
        else
            memcpy((float *)a->y + place + k, &part, sizeof part);
    }
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

void attend_rows(const void *q, const void *k, const void *v, const float *bias,
                 const int64_t *offset, const int64_t *length, void *y, int64_t b, int64_t h,
                 int64_t g, int64_t c, int64_t q_row, int64_t q_head, int64_t head, int64_t token,
                 int64_t bias_head, float scale, int q_bf16, int k_bf16, int threads) {
    Attention a = {q, k, v, bias, offset, length, y, q_row, q_head, head, token, bias_head,
                   h, g, c, scale, q_bf16, k_bf16};
    run(span_attend, &a, b * h, threads);
}
