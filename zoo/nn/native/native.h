/* What the kernels share: vectors, bf16, activations, threads, and what they are given. Functions
 * take addresses and are called through ctypes; nothing here knows Python or PyTorch, so that one
 * binary serves all their versions. */

#ifndef ZOO_NATIVE_H
#define ZOO_NATIVE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define X86 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
/* compiled once for each kind of processor; the dynamic loader chooses */
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define X86 0
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

/* Sixteen at a time, in as many registers as the processor needs for them. */
typedef float floats __attribute__((vector_size(64)));
typedef float eight __attribute__((vector_size(32)));
typedef float four __attribute__((vector_size(16)));
typedef int32_t integers __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));

INLINE floats load_f32(const float *from) {
    floats out;
    memcpy(&out, from, sizeof out);
    return out;
}

INLINE floats load_bf16(const uint16_t *from) { /* a float without its lower half */
    halves out;
    memcpy(&out, from, sizeof out);
    return (floats)(__builtin_convertvector(out, words) << 16);
}

INLINE floats load(const void *from, int64_t n, const int bf16) {
    return bf16 ? load_bf16((const uint16_t *)from + n) : load_f32((const float *)from + n);
}

INLINE floats load_some(const void *from, int64_t n, int64_t count, const int bf16) { /* and zeros */
    floats out = {0};
    halves low = {0};
    if (!bf16) {
        memcpy(&out, (const float *)from + n, (size_t)count * sizeof(float));
        return out;
    }
    memcpy(&low, (const uint16_t *)from + n, (size_t)count * sizeof(uint16_t));
    return (floats)(__builtin_convertvector(low, words) << 16);
}

INLINE float total(floats x) { /* by halves, which stay in registers */
    eight low, high;
    memcpy(&low, &x, sizeof low);
    memcpy(&high, (const char *)&x + sizeof low, sizeof high);
    low += high;
    four a, b;
    memcpy(&a, &low, sizeof a);
    memcpy(&b, (const char *)&low + sizeof a, sizeof b);
    a += b;
    return (a[0] + a[2]) + (a[1] + a[3]);
}

INLINE float widened(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

INLINE halves rounded(floats x) { /* to bf16: the nearest, ties to even; NaN stays NaN */
    words bits = (words)x, nan = (words)(x != x), even = bits + 0x7fff + (bits >> 16 & 1);
    return __builtin_convertvector(((even & ~nan) | ((bits | 0x400000) & nan)) >> 16, halves);
}

INLINE void keep(void *to, int64_t n, floats x, int64_t count, const int bf16) { /* `count` of x */
    halves low = rounded(x);
    if (bf16 && count == 16) /* a store, where a size that is not known is a loop */
        memcpy((uint16_t *)to + n, &low, sizeof low);
    else if (bf16)
        memcpy((uint16_t *)to + n, &low, 2 * (size_t)count);
    else if (count == 16)
        memcpy((float *)to + n, &x, sizeof x);
    else
        memcpy((float *)to + n, &x, 4 * (size_t)count);
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE floats chosen(integers which, floats a, floats b) { /* a where all ones, b where zeros */
    return (floats)(((integers)a & which) | ((integers)b & ~which));
}

/* e^x for x <= 88, to 2e-7 of it (Cephes' polynomial). */
INLINE floats exponent(floats x) {
    x = chosen(x < -87.0f, (floats){0} - 87.0f, x);
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

/* 2^x for x <= 0, to 2e-7 of it, or roughly to 1e-4 (minimax polynomials). Of 0 it is 1, and it is 0
 * below -100, where products with it would be too small for the processor to be fast. */
INLINE floats power(floats x, const int roughly) {
    integers whole = __builtin_convertvector(x - 0.5f, integers); /* rounded */
    floats rest = x - __builtin_convertvector(whole, floats), y;
    if (roughly) {
        y = rest * 0.05500892922f + 0.2422109693f;
        y = y * rest + 0.6932829022f;
    } else {
        y = rest * 1.326472731e-3f + 9.671512991e-3f;
        y = y * rest + 0.05550733581f;
        y = y * rest + 0.2402224243f;
        y = y * rest + 0.6931470037f;
    }
    y = y * rest + 1.0f;
    return chosen(x < -100.0f, (floats){0}, (floats)((words)y + (words)(whole << 23)));
}

enum { LINEAR, RELU, SILU, GELU_TANH, GELU };

INLINE floats activated(floats x, int activation) {
    const floats one = (floats){0} + 1;
    floats inner = x, size = (floats)((integers)x & 0x7fffffff);
    switch (activation) {
    case LINEAR: return x;
    case RELU: return (floats)((integers)x & ~(integers)(x < 0));
    case GELU: { /* x / 2 (1 + erf(x / sqrt(2))), to 1e-7 (Abramowitz and Stegun 7.1.26) */
        floats t = 1 / (1 + 0.3275911f * 0.70710678f * size);
        floats tail = t * 1.061405429f - 1.453152027f;
        tail = tail * t + 1.421413741f;
        tail = tail * t - 0.284496736f;
        tail = (tail * t + 0.254829592f) * t * exponent(-0.5f * x * x) * 0.5f;
        return x * chosen(x < 0, tail, 1 - tail);
    }
    case GELU_TANH: inner = 1.5957691216f * (x + 0.044715f * x * x * x); /* 2 sqrt(2 / pi) */
    }
    /* x * sigmoid(inner), by what does not overflow */
    floats power = exponent((floats)((integers)inner | (integers)((words){0} + 0x80000000u)));
    return x * chosen(inner < 0, power, one) / (1 + power);
}

/* ------------------------------------------------------------------------- what functions are given
 * Mirrored in calls.py. Steps are in numbers, from one row, head or token to the next. */

typedef struct {          /* products.c: y = activation(x W^T + b) */
    const void *x;        /* m i */
    const void *w;        /* panels; of small products o i, row after row */
    const float *scale;   /* o, of int8 numbers */
    const void *bias;     /* o, or NULL */
    void *y;              /* m o */
    int64_t m, i, o;
    int activation, threads;
} Product;

typedef struct {                    /* attend.c: y = softmax(q k^T * scale + bias) v */
    const void *q;                  /* b h c, floats or bf16 */
    const void *k, *v;              /* where a sequence's first key lies: offset[b], in numbers */
    const float *bias;              /* h n, added to the scores; or NULL */
    const int64_t *offset, *length; /* b */
    void *y;                        /* b h c, without gaps */
    int64_t q_row, q_head, head, token, bias_head;
    int64_t b, h, g, c;
    int64_t window;                 /* keys that are read, the last ones; 0: all */
    float scale;
    int q_bf16, k_bf16, threads;
} Attention;

typedef struct {            /* many.c: y = softmax(q k^T * scale + bias) v, of many queries */
    const void *q, *k, *v;  /* b h n c; b g s c: floats, or all bf16 */
    const float *bias;      /* added to the scores; or NULL */
    const uint8_t *real;    /* b s: 0 where nobody may look; or NULL */
    void *y;                /* b n h c, without gaps */
    int64_t q_b, q_h, q_n, k_b, k_g, k_s, v_b, v_g, v_s;
    int64_t bias_b, bias_h, bias_n, bias_s; /* bias_n is 1, or 0: the same for all queries */
    int64_t real_b;
    int64_t b, h, g, n, s, c;
    int64_t before, after; /* keys that a query sees beside its own; the last query's is the last */
    float scale;           /* more than 0 */
    int bf16, threads;
} Many;

typedef struct {          /* attend.c: rows of x (b g n) to slots (g s), the token n of b to its own */
    const char *x;
    char *slots;
    const int64_t *slot;  /* b n */
    int64_t b, g, n;
    int64_t bytes;        /* of a row; so are the steps */
    int64_t x_b, x_g, x_n, slots_g, slots_s;
} Store;

typedef struct {                  /* rows.c: norms of rows */
    const void *x;                /* m c */
    const void *weight, *bias;    /* c; the bias or NULL */
    void *y;                      /* m c */
    int64_t m, c;
    float eps;
    int x_bf16, weight_bf16, threads;
} Norm;

enum { AXES = 4 };

typedef struct {          /* maps.c: y = a and b, number by number */
    const void *a, *b;
    void *y;
    const int64_t *turn;  /* how often `turn_step` is to be added to y; or NULL */
    int64_t turn_step, size[AXES], a_step[AXES], b_step[AXES], y_step[AXES];
    float factor;         /* of b; where there is none, of a */
    int kind, activation, a_bf16, b_bf16, y_bf16;
} Map;

#if X86
#define AMX                                                                                        \
    __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512bf16")))

typedef struct { /* what the processor is told of its tiles */
    uint8_t palette, first, reserved[14];
    uint16_t bytes[16]; /* of a line */
    uint8_t lines[16];
} Shapes;
#endif

/* Returns whether Intel's tiles may be used. */
int uses_tiles(void);

/* Returns 0, or 1 when there is no memory. */
typedef int Call(const void *given);

/* Does units from first to last - 1 of a job. */
typedef void Span(const void *job, int64_t first, int64_t last);

/* Does all of a job's units, on so many threads. */
void run(Span *span, const void *job, int64_t units, int threads);

#endif
