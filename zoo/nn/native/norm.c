/* Root mean square norm: y (m c) = x / sqrt(mean(x^2) + eps) * weight, added up in fp32; every
 * number is read once, where PyTorch takes six kernels, for bf16 nine, that go through memory. */

#include "native.h"

typedef struct {
    const void *x, *weight; /* m c; c */
    void *y;
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
