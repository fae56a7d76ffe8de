/* Products of few rows with a large matrix: y (m o) = x (m i) W^T + b, W (o i) as it is stored.
 *
 * Decoding reads every weight once for a token, so its limit is the memory. What comes near it is
 * one stream read in order: a row of W after the other, a cache line at a time against all rows of
 * x, one line fetched ahead for every line read. (Four rows of W side by side, or two lines fetched
 * at a time, cost 15 to 25 % more.)
 *
 * m rows, 1 to MOST, in fp32 twice as many; i inputs, a multiple of LANES; o outputs. Numbers lie
 * row after row, no gaps.
 */

#include "native.h"

enum { MOST = 8, LANES = 64, AHEAD = 8192 }; /* AHEAD: bytes, half a microsecond of memory */

typedef struct {
    const void *x, *w;              /* m i; o i */
    const void *bias;               /* o, or NULL */
    const float *x_scale, *w_scale; /* m; o: of int8 numbers */
    void *y;                        /* m o */
    int64_t m, i, o;
} Job;

#define FETCH(address) __builtin_prefetch((const char *)(address) + AHEAD, 0, 2)

/* The number of rows has to be a constant where the sums are to stay in registers. */
#define CONSTANT(rows, CALL, ...)                                                                  \
    switch (rows) {                                                                                \
    case 1: CALL(__VA_ARGS__, 1); break;                                                           \
    case 2: CALL(__VA_ARGS__, 2); break;                                                           \
    case 3: CALL(__VA_ARGS__, 3); break;                                                           \
    case 4: CALL(__VA_ARGS__, 4); break;                                                           \
    case 5: CALL(__VA_ARGS__, 5); break;                                                           \
    case 6: CALL(__VA_ARGS__, 6); break;                                                           \
    case 7: CALL(__VA_ARGS__, 7); break;                                                           \
    default: CALL(__VA_ARGS__, 8);                                                                 \
    }
/* A span that does its rows by `body`. */
#define SPAN(name, target, body)                                                                   \
    target static void name(const void *data, int64_t first, int64_t last) {                       \
        const Job *job = data;                                                                     \
        CONSTANT(job->m, body, job, first, last)                                                   \
    }

/* ---------------------------------------------------------------------------------------- fp32 */

INLINE void plain_f32(const Job *job, int64_t first, int64_t last, const int rows) {
    const float *x = job->x, *w = (const float *)job->w + first * job->i, *bias = job->bias;
    for (int64_t o = first; o < last; o++, w += job->i) {
        floats lanes[MOST] = {{0}};
        for (int64_t n = 0; n < job->i; n += 16) {
            FETCH(w + n);
            floats line = load_f32(w + n);
            for (int r = 0; r < rows; r++) lanes[r] += load_f32(x + r * job->i + n) * line;
        }
        for (int r = 0; r < rows; r++)
            ((float *)job->y)[r * job->o + o] = total(lanes[r]) + (bias ? bias[o] : 0);
    }
}

SPAN(span_f32, CLONES, plain_f32)

/* More rows than sums fit in registers for: two groups of them, against a part of two rows of W at
 * a time, so that the part of x stays in the nearest cache. */

enum { PART = 256 };

INLINE void part_f32(const float *x, const float *w, const float *w2, floats sums[][2], int64_t i,
                     int64_t count, const int fetch, const int rows) {
    floats lanes[MOST][2];
    for (int r = 0; r < rows; r++) lanes[r][0] = sums[r][0], lanes[r][1] = sums[r][1];
    for (int64_t n = 0; n < count; n += 16) {
        if (fetch) {
            FETCH(w + 2 * n);
            FETCH(w + 2 * n + 16);
        }
        floats line = load_f32(w + n), line2 = load_f32(w2 + n);
        for (int r = 0; r < rows; r++) {
            floats row = load_f32(x + r * i + n);
            lanes[r][0] += row * line;
            lanes[r][1] += row * line2;
        }
    }
    for (int r = 0; r < rows; r++) sums[r][0] = lanes[r][0], sums[r][1] = lanes[r][1];
}

CLONES static void span_f32_more(const void *data, int64_t first, int64_t last) {
    const Job *job = data;
    const float *bias = job->bias;
    int64_t i = job->i, rest = job->m - MOST;
    for (int64_t o = first; o < last; o += 2) {
        const float *w = (const float *)job->w + o * i, *w2 = o + 1 < last ? w + i : w;
        floats sums[2 * MOST][2];
        memset(sums, 0, sizeof sums);
        for (int64_t n = 0; n < i; n += PART) {
            int64_t count = i - n < PART ? i - n : PART;
            const float *x = (const float *)job->x + n, *more = x + MOST * i;
            part_f32(x, w + n, w2 + n, sums, i, count, 1, MOST);
            CONSTANT(rest, part_f32, more, w + n, w2 + n, sums + MOST, i, count, 0)
        }
        for (int64_t r = 0; r < job->m; r++) {
            float *y = (float *)job->y + r * job->o + o;
            y[0] = total(sums[r][0]) + (bias ? bias[o] : 0);
            if (w2 != w) y[1] = total(sums[r][1]) + (bias ? bias[o + 1] : 0);
        }
    }
}

void linear_f32(const void *x, const void *w, const void *bias, void *y, int64_t m, int64_t i,
                int64_t o, int threads) {
    Job job = {x, w, bias, NULL, NULL, y, m, i, o};
    run(m > MOST ? span_f32_more : span_f32, &job, o, threads);
}

/* ---------------------------------------------------------------------------------------- bf16 */

INLINE void write_bf16(const Job *job, int64_t o, const float *sums, int rows) {
    float bias = job->bias ? widened(((const uint16_t *)job->bias)[o]) : 0;
    for (int r = 0; r < rows; r++) ((uint16_t *)job->y)[r * job->o + o] = rounded(sums[r] + bias);
}

INLINE void plain_bf16(const Job *job, int64_t first, int64_t last, const int rows) {
    const uint16_t *x = job->x, *w = (const uint16_t *)job->w + first * job->i;
    for (int64_t o = first; o < last; o++, w += job->i) {
        floats lanes[MOST] = {{0}};
        float sums[MOST];
        for (int64_t n = 0; n < job->i; n += 32) {
            FETCH(w + n);
            floats low = load_bf16(w + n), high = load_bf16(w + n + 16);
            for (int r = 0; r < rows; r++) {
                const uint16_t *row = x + r * job->i + n;
                lanes[r] += load_bf16(row) * low + load_bf16(row + 16) * high;
            }
        }
        for (int r = 0; r < rows; r++) sums[r] = total(lanes[r]);
        write_bf16(job, o, sums, rows);
    }
}

SPAN(span_bf16, CLONES, plain_bf16)

#if X86
#define BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

BF16 INLINE void fast_bf16(const Job *job, int64_t first, int64_t last, const int rows) {
    const uint16_t *x = job->x, *w = (const uint16_t *)job->w + first * job->i;
    for (int64_t o = first; o < last; o++, w += job->i) {
        __m512 lanes[MOST] = {{0}};
        float sums[MOST];
        for (int64_t n = 0; n < job->i; n += 32) {
            FETCH(w + n);
            __m512bh line = (__m512bh)_mm512_loadu_si512(w + n);
            for (int r = 0; r < rows; r++) {
                __m512bh row = (__m512bh)_mm512_loadu_si512(x + r * job->i + n);
                lanes[r] = _mm512_dpbf16_ps(lanes[r], line, row);
            }
        }
        for (int r = 0; r < rows; r++) sums[r] = _mm512_reduce_add_ps(lanes[r]);
        write_bf16(job, o, sums, rows);
    }
}

SPAN(span_bf16_avx512, BF16, fast_bf16)
#endif

void linear_bf16(const void *x, const void *w, const void *bias, void *y, int64_t m, int64_t i,
                 int64_t o, int threads) {
    Job job = {x, w, bias, NULL, NULL, y, m, i, o};
    Span *span = span_bf16;
#if X86
    if (__builtin_cpu_supports("avx512bf16")) span = span_bf16_avx512;
#endif
    run(span, &job, o, threads);
}

/* ---------------------------------------------------------------------------------------- int8 */

INLINE void write_int8(const Job *job, int64_t o, const int32_t *sums, int rows) {
    for (int r = 0; r < rows; r++) ((int32_t *)job->y)[r * job->o + o] = sums[r];
}

INLINE void plain_int8(const Job *job, int64_t first, int64_t last, const int rows) {
    const int8_t *x = job->x, *w = (const int8_t *)job->w + first * job->i;
    for (int64_t o = first; o < last; o++, w += job->i) {
        int32_t sums[MOST] = {0};
        for (int64_t n = 0; n < job->i; n += LANES) {
            FETCH(w + n);
            for (int r = 0; r < rows; r++)
                for (int k = 0; k < LANES; k++) sums[r] += x[r * job->i + n + k] * w[n + k];
        }
        write_int8(job, o, sums, rows);
    }
}

SPAN(span_int8, CLONES, plain_int8)

#if X86
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

/* The instruction multiplies unsigned with signed numbers: x + 128, less 128 times the sum of w. */
VNNI INLINE void fast_int8(const Job *job, int64_t first, int64_t last, const int rows) {
    const int8_t *x = job->x, *w = (const int8_t *)job->w + first * job->i;
    const __m512i high = _mm512_set1_epi8((char)0x80);
    for (int64_t o = first; o < last; o++, w += job->i) {
        __m512i lanes[MOST] = {{0}}, excess = {0};
        int32_t sums[MOST];
        for (int64_t n = 0; n < job->i; n += 64) {
            FETCH(w + n);
            __m512i line = _mm512_loadu_si512(w + n);
            excess = _mm512_dpbusd_epi32(excess, high, line);
            for (int r = 0; r < rows; r++) {
                __m512i row = _mm512_xor_si512(high, _mm512_loadu_si512(x + r * job->i + n));
                lanes[r] = _mm512_dpbusd_epi32(lanes[r], row, line);
            }
        }
        for (int r = 0; r < rows; r++)
            sums[r] = _mm512_reduce_add_epi32(_mm512_sub_epi32(lanes[r], excess));
        write_int8(job, o, sums, rows);
    }
}

SPAN(span_int8_avx512, VNNI, fast_int8)
#endif

/* Scales are found and sums are scaled by the same functions however many rows there are, so that
 * what a row gets does not depend on those beside it. */

CLONES static void span_quantise(const void *data, int64_t first, int64_t last) {
    const Job *job = data;
    for (int64_t r = first; r < last; r++) {
        const float *x = (const float *)job->x + r * job->i;
        int8_t *numbers = (int8_t *)job->y + r * job->i;
        int32_t peak = 0; /* of positive floats the larger has the larger bits; NaN's are largest */
        for (int64_t n = 0; n < job->i; n++) {
            int32_t bits;
            memcpy(&bits, x + n, 4);
            bits &= 0x7fffffff;
            peak = bits > peak ? bits : peak;
        }
        float largest;
        memcpy(&largest, &peak, 4);
        if (largest < 1e-8f) largest = 1e-8f;
        ((float *)job->x_scale)[r] = largest / 127;
        float turn = 127 / largest;
        for (int64_t n = 0; n < job->i; n++) numbers[n] = (int8_t)rintf(x[n] * turn);
    }
}

/* x (m i) is about numbers (m i) * scale (m); any number of rows and inputs. */
void quantise(const float *x, int8_t *numbers, float *scale, int64_t m, int64_t i, int threads) {
    Job job = {x, NULL, NULL, scale, NULL, numbers, m, i, 0};
    run(span_quantise, &job, m, threads);
}

CLONES static void span_scale(const void *data, int64_t first, int64_t last) {
    const Job *job = data;
    const float *bias = job->bias, *w_scale = job->w_scale;
    for (int64_t r = first; r < last; r++) {
        const int32_t *sums = (const int32_t *)job->x + r * job->o;
        float *y = (float *)job->y + r * job->o, scale = job->x_scale[r];
        if (bias)
            for (int64_t n = 0; n < job->o; n++)
                y[n] = (float)sums[n] * scale * w_scale[n] + bias[n];
        else
            for (int64_t n = 0; n < job->o; n++) y[n] = (float)sums[n] * scale * w_scale[n];
    }
}

/* y (m o) = sums (m o) * x_scale (m) * w_scale (o) + bias; any number of rows, y may be sums. */
void scale_sums(const int32_t *sums, const float *x_scale, const float *w_scale, const float *bias,
                float *y, int64_t m, int64_t o, int threads) {
    Job job = {sums, NULL, bias, x_scale, w_scale, y, m, 0, o};
    run(span_scale, &job, m, threads);
}

/* x is quantised on the way. Returns 0, or 1 when there is no memory. */
int linear_int8(const float *x, const void *w, const float *w_scale, const float *bias, float *y,
                int64_t m, int64_t i, int64_t o, int threads) {
    float x_scale[MOST];
    int8_t *numbers = malloc((size_t)(m * i));
    if (!numbers) return 1;
    quantise(x, numbers, x_scale, m, i, 1);
    Job job = {numbers, w, NULL, NULL, NULL, y, m, i, o};
    Span *span = span_int8;
#if X86
    if (__builtin_cpu_supports("avx512vnni")) span = span_int8_avx512;
#endif
    run(span, &job, o, threads);
    scale_sums((const int32_t *)y, x_scale, w_scale, bias, y, m, o, 1);
    free(numbers);
    return 0;
}
