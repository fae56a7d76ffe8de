/* What is done to each row by itself, where PyTorch goes through memory more often or one number at
 * a time. m rows of c numbers. */

#include "native.h"

/* Root mean square norm: x / sqrt(mean(x^2) + eps) * weight, added up in fp32. PyTorch takes six
 * kernels, for bf16 nine. */

typedef struct {
    const void *x, *weight; /* m c; c */
    void *y;                /* m c */
    int64_t c;
    float eps;
    int x_bf16, weight_bf16;
} Norm;

INLINE float number(const void *from, int64_t n, const int bf16) {
    return bf16 ? widened(((const uint16_t *)from)[n]) : ((const float *)from)[n];
}

INLINE void rows(const Norm *norm, int64_t first, int64_t last, const int x_bf16,
                 const int weight_bf16) {
    int64_t c = norm->c, whole = c / 16 * 16;
    for (int64_t at = first * c; at < last * c; at += c) {
        floats lanes = {0};
        float sum = 0;
        for (int64_t n = 0; n < whole; n += 16) {
            floats part = load(norm->x, at + n, x_bf16);
            lanes += part * part;
        }
        for (int64_t n = whole; n < c; n++)
            sum += number(norm->x, at + n, x_bf16) * number(norm->x, at + n, x_bf16);
        float factor = 1 / sqrtf((sum + total(lanes)) / (float)c + norm->eps);
        for (int64_t n = 0; n < c; n += 16) {
            floats part = {0}, weight = {0};
            if (n < whole) {
                part = load(norm->x, at + n, x_bf16);
                weight = load(norm->weight, n, weight_bf16);
            } else
                for (int64_t k = n; k < c; k++) {
                    part[k - n] = number(norm->x, at + k, x_bf16);
                    weight[k - n] = number(norm->weight, k, weight_bf16);
                }
            part *= factor * weight;
            halves low = rounded(part);
            size_t count = (size_t)(n < whole ? 16 : c - n);
            if (x_bf16)
                memcpy((uint16_t *)norm->y + at + n, &low, count == 16 ? 32 : 2 * count);
            else
                memcpy((float *)norm->y + at + n, &part, count == 16 ? 64 : 4 * count);
        }
    }
}

CLONES static void span_norm(const void *job, int64_t first, int64_t last) {
    const Norm *norm = job;
    if (norm->x_bf16)
        norm->weight_bf16 ? rows(norm, first, last, 1, 1) : rows(norm, first, last, 1, 0);
    else
        norm->weight_bf16 ? rows(norm, first, last, 0, 1) : rows(norm, first, last, 0, 0);
}

void rms_norm(const void *x, const void *weight, void *y, int64_t m, int64_t c, float eps,
              int x_bf16, int weight_bf16, int threads) {
    Norm norm = {x, weight, y, c, eps, x_bf16, weight_bf16};
    run(span_norm, &norm, m, threads);
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
