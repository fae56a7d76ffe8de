/* What the kernels share: vectors, bf16, threads. Functions take addresses and are called through
 * ctypes; nothing here knows Python or PyTorch, so that one binary serves all their versions. */

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

/* e^x for x <= 88, to 2e-7 of it (Cephes' polynomial). */
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

/* Does units from first to last - 1 of a job. */
typedef void Span(const void *job, int64_t first, int64_t last);

/* Does all of a job's units, on so many threads. */
void run(Span *span, const void *job, int64_t units, int threads);

#endif
