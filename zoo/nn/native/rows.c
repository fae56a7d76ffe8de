/* What is done to each row by itself, where PyTorch goes through memory more often or one number at
 * a time. m rows of c numbers. */

#include "native.h"

INLINE float number(const void *from, int64_t n, const int bf16) {
    return bf16 ? widened(((const uint16_t *)from)[n]) : ((const float *)from)[n];
}

/* Norms: (x - mean) / sqrt(variance + eps) * weight + bias, or without a mean x / sqrt(mean(x^2) +
 * eps) * weight, added up in fp32; PyTorch takes six kernels for that one, for bf16 nine. */

/* Returns the sum of (x - mean)^power over a row. */
INLINE float moment(const Norm *norm, int64_t at, float mean, const int power, const int bf16) {
    int64_t whole = norm->c / 16 * 16, rest = norm->c - whole;
    floats lanes = {0};
    for (int64_t n = 0; n < whole; n += 16) {
        floats part = load(norm->x, at + n, bf16) - mean;
        lanes += power == 2 ? part * part : part;
    }
    float sum = total(lanes);
    for (int64_t n = whole; n < whole + rest; n++) {
        float part = number(norm->x, at + n, bf16) - mean;
        sum += power == 2 ? part * part : part;
    }
    return sum;
}

INLINE void rows(const Norm *norm, int64_t first, int64_t last, const int centred, const int x_bf16,
                 const int weight_bf16) {
    int64_t c = norm->c;
    for (int64_t at = first * c; at < last * c; at += c) {
        float mean = centred ? moment(norm, at, 0, 1, x_bf16) / (float)c : 0;
        float factor = 1 / sqrtf(moment(norm, at, mean, 2, x_bf16) / (float)c + norm->eps);
        for (int64_t n = 0; n < c; n += 16) {
            int64_t count = least(c - n, 16);
            floats part, weight, bias = {0};
            if (count == 16) {
                part = load(norm->x, at + n, x_bf16), weight = load(norm->weight, n, weight_bf16);
                if (norm->bias) bias = load(norm->bias, n, weight_bf16);
            } else {
                part = load_some(norm->x, at + n, count, x_bf16);
                weight = load_some(norm->weight, n, count, weight_bf16);
                if (norm->bias) bias = load_some(norm->bias, n, count, weight_bf16);
            }
            keep(norm->y, at + n, (part - mean) * (factor * weight) + bias, count, x_bf16);
        }
    }
}

#define SPAN_NORM(name, centred)                                                                   \
    CLONES static void name(const void *data, int64_t first, int64_t last) {                       \
        const Norm *norm = data;                                                                   \
        if (norm->x_bf16)                                                                          \
            norm->weight_bf16 ? rows(norm, first, last, centred, 1, 1)                             \
                              : rows(norm, first, last, centred, 1, 0);                            \
        else                                                                                       \
            norm->weight_bf16 ? rows(norm, first, last, centred, 0, 1)                             \
                              : rows(norm, first, last, centred, 0, 0);                            \
    }

SPAN_NORM(span_rms_norm, 0)
SPAN_NORM(span_layer_norm, 1)

int rms_norm(const Norm *norm) {
    run(span_rms_norm, norm, norm->m, norm->threads);
    return 0;
}

int layer_norm(const Norm *norm) {
    run(span_layer_norm, norm, norm->m, norm->threads);
    return 0;
}

/* The place of the first of the largest numbers of each row; of the first NaN if there is one. */

typedef struct {
    const void *x;
    int64_t *place; /* m */
    int64_t step, c;
    int bf16;
} Largest;

INLINE int64_t place_of(const void *x, int64_t at, int64_t c, const int bf16) {
    int64_t whole = c / 16 * 16;
    floats lanes = (floats){0} - INFINITY;
    integers strange = {0};
    for (int64_t n = 0; n < whole; n += 16) {
        floats part = load(x, at + n, bf16);
        integers more = part > lanes;
        lanes = (floats)(((integers)part & more) | ((integers)lanes & ~more));
        strange |= part != part;
    }
    float most = -INFINITY;
    int nan = 0;
    for (int k = 0; k < 16; k++) {
        most = lanes[k] > most ? lanes[k] : most;
        nan |= strange[k];
    }
    for (int64_t n = whole; n < c; n++) {
        float one = number(x, at + n, bf16);
        most = one > most ? one : most;
        nan |= one != one;
    }
    for (int64_t n = 0; n < whole; n += 16) {
        floats part = load(x, at + n, bf16);
        integers found = nan ? part != part : part == most;
        int any = 0;
        for (int k = 0; k < 16; k++) any |= found[k];
        if (any)
            for (int k = 0; k < 16; k++)
                if (found[k]) return n + k;
    }
    for (int64_t n = whole; n < c; n++) {
        float one = number(x, at + n, bf16);
        if (nan ? one != one : one == most) return n;
    }
    return 0;
}

CLONES static void span_largest(const void *job, int64_t first, int64_t last) {
    const Largest *l = job;
    for (int64_t r = first; r < last; r++)
        l->place[r] = l->bf16 ? place_of(l->x, r * l->step, l->c, 1)
                              : place_of(l->x, r * l->step, l->c, 0);
}

void largest(const void *x, int64_t *place, int64_t m, int64_t step, int64_t c, int bf16,
             int threads) {
    Largest job = {x, place, step, c, bf16};
    run(span_largest, &job, m, threads);
}
