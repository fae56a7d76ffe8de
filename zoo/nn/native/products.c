/* Products with a large matrix: y (m o) = x (m i) W^T + b.
 *
 * Decoding reads every weight once for a token, so its limit is the memory. What comes near it is
 * one stream read in order, with lines fetched ahead. W lies in panels of sixteen outputs; a line
 * of a panel, one of the processor's cache, holds a word of each: one number of fp32, two of bf16,
 * four of int8. Whatever the type, a line meets one word of each row of x, no sum has to be added
 * up across its lanes, and Intel's tiles read a panel as it lies. A panel serves sixteen rows while
 * it is read, more once it is in the cache. What a row gets does not depend on those beside it, but
 * for bf16 in tiles, whose sums have another order.
 *
 * m rows, i inputs, a multiple of 64, o outputs. Numbers of x and y lie row after row, no gaps. */

#include "native.h"

enum {
    MOST = 16,    /* rows whose sums are held at once */
    WIDE = 16,    /* outputs of a panel */
    LONG = 256,   /* products that fp32 adds up in one go */
    AHEAD = 8192, /* bytes: half a microsecond of memory */
    SOON = 768    /* bytes of rows, which are in the second cache */
};

typedef struct {
    const void *x;                  /* m i, as it is or turned */
    const void *w;                  /* panels */
    const void *bias;               /* o, or NULL */
    const float *x_scale, *w_scale; /* m; o: of int8 numbers */
    void *y;                        /* m o */
    int64_t m, o;
    int64_t words;                  /* of a row */
    int activation;                 /* of y */
} Job;

#define FETCH(address) __builtin_prefetch((const char *)(address) + AHEAD, 0, 2)
#define FETCH_NEAR(address) __builtin_prefetch((const char *)(address) + SOON, 0, 3)
#define SIXTEENS(n) (((n) + 15) / 16)
/* Rows that so many are multiplied as: few kernels would be left to compile if each had its own. */
#define PLACES(rows) ((rows) > MOST / 2 ? MOST : (rows))

/* ---------------------------------------------------------------------------------- how they lie */

/* Rows in sixteens: a word of each of sixteen, then the next of each. */
typedef struct {
    const uint32_t *from;
    uint32_t *to;
    int64_t rows, words;
    int64_t rest; /* places of the last ones, if they are less than sixteen; zeros fill them */
} Move;

static void span_turn(const void *data, int64_t first, int64_t last) {
    const Move *m = data;
    for (int64_t start = first * MOST; start < last * MOST; start += MOST) {
        int64_t rows = least(m->rows - start, MOST), places = rows < MOST ? m->rest : MOST;
        const uint32_t *from = m->from + start * m->words;
        uint32_t *to = m->to + start * m->words;
        for (int64_t n = 0; n < m->words; n++, to += places) {
            for (int64_t r = 0; r < rows; r++) to[r] = from[r * m->words + n];
            for (int64_t r = rows; r < places; r++) to[r] = 0;
        }
    }
}

/* Lays W (o words) in panels: (o / 16, rounded up) words 16. */
void lay(const void *w, void *panels, int64_t o, int64_t words, int threads) {
    Move all = {w, panels, o, words, WIDE};
    run(span_turn, &all, SIXTEENS(o), threads);
}

/* Returns x turned, or x itself where that is the same; NULL when there is no memory. */
static const void *turned(const void *x, int64_t m, int64_t words, int threads) {
    if (m == 1) return x;
    int64_t rest = PLACES(m % MOST), places = m / MOST * MOST + rest;
    Move all = {x, malloc(4 * (size_t)(places * words)), m, words, rest};
    if (all.to) run(span_turn, &all, SIXTEENS(m), threads);
    return all.to;
}

/* ------------------------------------------------------------------------------- what they end in */

/* A panel's numbers, so many of them as there are; sixteen are one instruction, if gcc sees it. */
INLINE void move(void *to, const void *from, int64_t count, const size_t size) {
    if (count == WIDE)
        memcpy(to, from, WIDE * size);
    else
        memcpy(to, from, (size_t)count * size);
}

INLINE floats sixteen(const float *from, int64_t o, int64_t count) { /* from o on; zeros of NULL */
    floats out = {0};
    if (from) move(&out, from + o, count, sizeof *from);
    return out;
}

INLINE void write_f32(const Job *job, int64_t r, int64_t o, floats sums) {
    if (r >= job->m) return;
    int64_t count = least(job->o - o, WIDE);
    sums = activated(sums + sixteen(job->bias, o, count), job->activation);
    move((float *)job->y + r * job->o + o, &sums, count, sizeof(float));
}

INLINE void write_bf16(const Job *job, int64_t r, int64_t o, floats sums) {
    if (r >= job->m) return;
    int64_t count = least(job->o - o, WIDE);
    halves out = {0};
    if (job->bias) {
        move(&out, (const uint16_t *)job->bias + o, count, sizeof(uint16_t));
        sums += (floats)(__builtin_convertvector(out, words) << 16);
    }
    out = rounded(activated(sums, job->activation));
    move((uint16_t *)job->y + r * job->o + o, &out, count, sizeof(uint16_t));
}

INLINE void write_int8(const Job *job, int64_t r, int64_t o, integers sums) {
    if (r >= job->m) return;
    int64_t count = least(job->o - o, WIDE);
    floats y = __builtin_convertvector(sums, floats) * job->x_scale[r];
    y = y * sixteen(job->w_scale, o, count) + sixteen(job->bias, o, count);
    y = activated(y, job->activation);
    move((float *)job->y + r * job->o + o, &y, count, sizeof(float));
}

CLONES static void span_finish(const void *data, int64_t first, int64_t last) {
    const Job *job = data;
    for (int64_t r = first; r < last; r++)
        for (int64_t n = 0; n < job->o; n += WIDE) {
            float *y = (float *)job->y + r * job->o + n;
            int64_t count = least(job->o - n, WIDE);
            floats sums = sixteen(y, 0, count) + sixteen(job->bias, n, count);
            sums = activated(sums, job->activation);
            move(y, &sums, count, sizeof *y);
        }
}

/* Adds a bias (o, or NULL) to what another library's product has left, and applies an activation. */
void finish(float *y, const float *bias, int64_t m, int64_t o, int activation, int threads) {
    Job job = {NULL, NULL, bias, NULL, NULL, y, m, o, 0, activation};
    run(span_finish, &job, m, threads);
}

/* ------------------------------------------------------------------------------------ in registers */

/* The number of rows has to be a constant where their sums are to stay in registers. */
#define CASE(body, n)                                                                              \
    case n: body(job, panel, start, n); break;
#define SPAN(name, target, body)                                                                   \
    target static void name(const void *data, int64_t first, int64_t last) {                       \
        const Job *job = data;                                                                     \
        for (int64_t panel = first; panel < last; panel++)                                         \
            for (int64_t start = 0; start < job->m; start += MOST)                                 \
                switch (least(job->m - start, MOST)) {                                             \
                    CASE(body, 1) CASE(body, 2) CASE(body, 3) CASE(body, 4)                        \
                    CASE(body, 5) CASE(body, 6) CASE(body, 7) CASE(body, 8)                        \
                default: body(job, panel, start, MOST);                                            \
                }                                                                                  \
    }
/* Lets `line` be each line of a panel, and `x` the words of the rows that it meets. */
#define LINES(rows)                                                                                \
    const uint32_t *x = (const uint32_t *)job->x + start * job->words,                             \
                   *line = (const uint32_t *)job->w + panel * job->words * WIDE;                   \
    for (int64_t n = 0; n < job->words; n++, x += rows, line += WIDE)

INLINE void fetch(const uint32_t *line, const uint32_t *x, const int rows) {
    FETCH(line);
    if (rows == MOST) FETCH_NEAR(x); /* so many do not stay in the nearest cache */
}

INLINE void panel_f32(const Job *job, int64_t panel, int64_t start, const int rows) {
    floats sums[MOST] = {{0}}, part[MOST] = {{0}};
    LINES(rows) {
        fetch(line, x, rows);
        floats w = load_f32((const float *)line);
        for (int r = 0; r < rows; r++) part[r] += ((const float *)x)[r] * w;
        if ((n + 1) % LONG == 0 || n + 1 == job->words) /* or errors would grow with the length */
            for (int r = 0; r < rows; r++) sums[r] += part[r], part[r] = (floats){0};
    }
    for (int r = 0; r < rows; r++) write_f32(job, start + r, panel * WIDE, sums[r]);
}

SPAN(span_f32, CLONES, panel_f32)

INLINE void panel_bf16(const Job *job, int64_t panel, int64_t start, const int rows) {
    floats sums[MOST] = {{0}};
    LINES(rows) {
        fetch(line, x, rows);
        words w;
        memcpy(&w, line, sizeof w);
        floats even = (floats)(w << 16), odd = (floats)(w & 0xffff0000u);
        for (int r = 0; r < rows; r++)
            sums[r] += widened((uint16_t)x[r]) * even + widened((uint16_t)(x[r] >> 16)) * odd;
    }
    for (int r = 0; r < rows; r++) write_bf16(job, start + r, panel * WIDE, sums[r]);
}

SPAN(span_bf16, CLONES, panel_bf16)

INLINE void panel_int8(const Job *job, int64_t panel, int64_t start, const int rows) {
    integers sums[MOST] = {{0}};
    LINES(rows) {
        fetch(line, x, rows);
        integers w;
        memcpy(&w, line, sizeof w);
        for (int k = 0; k < 4; k++) { /* the four numbers of each word */
            integers part = w << (24 - 8 * k) >> 24;
            for (int r = 0; r < rows; r++) sums[r] += (int8_t)(x[r] >> 8 * k) * part;
        }
    }
    for (int r = 0; r < rows; r++) write_int8(job, start + r, panel * WIDE, sums[r]);
}

SPAN(span_int8, CLONES, panel_int8)

#if X86
#define AVX2 __attribute__((target("avx2")))
#define BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

BF16 INLINE void fast_bf16(const Job *job, int64_t panel, int64_t start, const int rows) {
    __m512 sums[MOST] = {{0}};
    LINES(rows) {
        fetch(line, x, rows);
        __m512bh w = (__m512bh)_mm512_loadu_si512(line);
        for (int r = 0; r < rows; r++)
            sums[r] = _mm512_dpbf16_ps(sums[r], w, (__m512bh)_mm512_set1_epi32((int)x[r]));
    }
    for (int r = 0; r < rows; r++) write_bf16(job, start + r, panel * WIDE, (floats)sums[r]);
}

SPAN(span_bf16_avx512, BF16, fast_bf16)

/* Pairs of 16 bits: the even numbers of the words, then the odd ones. */
AVX2 INLINE __m256i pairs(__m256i even, __m256i odd, __m256i x) {
    __m256i low = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), high = _mm256_srai_epi16(x, 8);
    return _mm256_add_epi32(_mm256_madd_epi16(even, low), _mm256_madd_epi16(odd, high));
}

AVX2 INLINE void half_int8(const Job *job, int64_t panel, int64_t start, const int rows) {
    __m256i sums[MOST][2] = {{{0}}};
    LINES(rows) {
        fetch(line, x, rows);
        for (int half = 0; half < 2; half++) {
            __m256i w = _mm256_loadu_si256((const __m256i *)line + half);
            __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
            __m256i odd = _mm256_srai_epi16(w, 8);
            for (int r = 0; r < rows; r++)
                sums[r][half] = _mm256_add_epi32(
                    sums[r][half], pairs(even, odd, _mm256_set1_epi32((int)x[r])));
        }
    }
    for (int r = 0; r < rows; r++) {
        integers all;
        memcpy(&all, sums[r], sizeof all);
        write_int8(job, start + r, panel * WIDE, all);
    }
}

SPAN(span_int8_avx2, AVX2, half_int8)

/* The instruction multiplies unsigned with signed numbers: x + 128, less 128 times the sum of w. */
VNNI INLINE void fast_int8(const Job *job, int64_t panel, int64_t start, const int rows) {
    const __m512i high = _mm512_set1_epi8((char)0x80);
    __m512i sums[MOST] = {{0}}, excess = {0};
    LINES(rows) {
        fetch(line, x, rows);
        __m512i w = _mm512_loadu_si512(line);
        excess = _mm512_dpbusd_epi32(excess, high, w);
        for (int r = 0; r < rows; r++) {
            __m512i both = _mm512_xor_si512(high, _mm512_set1_epi32((int)x[r]));
            sums[r] = _mm512_dpbusd_epi32(sums[r], both, w);
        }
    }
    for (int r = 0; r < rows; r++)
        write_int8(job, start + r, panel * WIDE, (integers)_mm512_sub_epi32(sums[r], excess));
}

SPAN(span_int8_avx512, VNNI, fast_int8)

/* --------------------------------------------------------------------------------------- in tiles */

/* Intel's tiles are registers of sixteen lines: sixteen words of sixteen rows of x, as they lie,
 * meet sixteen lines of a panel. */

enum { NEAR = 1 << 20 }; /* bytes of x that the second cache keeps while panels pass by */

#define TIMES(sums, x, w)                                                                          \
    if (bf16)                                                                                      \
        _tile_dpbf16ps(sums, x, w);                                                                \
    else                                                                                           \
        _tile_dpbssd(sums, x, w)
#define WRITE(tile, start, panel)                                                                  \
    _tile_stored(tile, sums, 64);                                                                  \
    for (int64_t r = 0; r < rows; r++)                                                             \
        if (bf16)                                                                                  \
            write_bf16(job, start + r, (panel) * WIDE, (floats)sums[r]);                           \
        else                                                                                       \
            write_int8(job, start + r, (panel) * WIDE, sums[r])

/* 0 to 3 hold sums, 4 and 5 rows of x, 6 and 7 lines of panels. */
AMX INLINE void in_tiles(const Job *job, int64_t first, int64_t last, const int bf16) {
    int64_t rows = least(job->m, MOST), size = job->words, stride = 4 * size;
    const uint32_t *x = job->x;
    integers sums[MOST];
    Shapes shapes;
    memset(&shapes, 0, sizeof shapes);
    shapes.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        shapes.bytes[tile] = 64;
        shapes.lines[tile] = tile < 6 ? (uint8_t)rows : 16;
    }
    __asm__ volatile("" : : "m"(shapes)); /* all of it is read, which gcc does not know */
    _tile_loadconfig(&shapes);
    if (job->m <= MOST) { /* one stream */
        const uint32_t *line = (const uint32_t *)job->w + first * size * WIDE;
        for (int64_t panel = first; panel < last; panel++) {
            _tile_zero(0);
            for (int64_t n = 0; n < size; n += 16, line += 16 * WIDE) {
                for (int k = 0; k < 16; k++) FETCH(line + k * WIDE);
                _tile_loadd(4, x + n, stride);
                _tile_loadd(6, line, 64);
                TIMES(0, 4, 6);
            }
            WRITE(0, 0, panel);
        }
        _tile_release();
        return;
    }
    /* Two by two of them share what they read; at the end some rows or a panel are done twice. */
    int64_t block = NEAR / stride / (2 * MOST) * (2 * MOST);
    if (block < 2 * MOST) block = 2 * MOST;
    for (int64_t begin = 0; begin < job->m; begin += block)
        for (int64_t panel = first; panel < last; panel += 2) {
            int64_t next = least(panel + 1, last - 1), end = least(begin + block, job->m);
            const uint32_t *line = (const uint32_t *)job->w + panel * size * WIDE;
            const uint32_t *line2 = (const uint32_t *)job->w + next * size * WIDE;
            for (int64_t start = begin; start < end; start += 2 * MOST) {
                int64_t a = least(start, job->m - MOST), b = least(start + MOST, job->m - MOST);
                const uint32_t *of_a = x + a * size, *of_b = x + b * size;
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
                for (int64_t n = 0; n < size; n += 16) {
                    if (start == begin)
                        for (int k = 0; k < 16; k++) {
                            FETCH(line + (n + k) * WIDE);
                            FETCH(line2 + (n + k) * WIDE);
                        }
                    _tile_loadd(4, of_a + n, stride);
                    _tile_loadd(6, line + n * WIDE, 64);
                    TIMES(0, 4, 6);
                    _tile_loadd(5, of_b + n, stride);
                    TIMES(1, 5, 6);
                    _tile_loadd(7, line2 + n * WIDE, 64);
                    TIMES(2, 4, 7);
                    TIMES(3, 5, 7);
                }
                WRITE(0, a, panel);
                WRITE(1, b, panel);
                WRITE(2, a, next);
                WRITE(3, b, next);
            }
        }
    _tile_release();
}

AMX static void span_bf16_tiles(const void *data, int64_t first, int64_t last) {
    in_tiles(data, first, last, 1);
}

AMX static void span_int8_tiles(const void *data, int64_t first, int64_t last) {
    in_tiles(data, first, last, 0);
}

#endif

/* ------------------------------------------------------------------------------ what is chosen */

enum { PLAIN, AVX2_AT_MOST, AVX512_AT_MOST, ALL };

static int allowed = ALL;

/* Leaves kinds of instructions out, which this processor may have: for tests. */
void allow(int kinds) { allowed = kinds; }

enum { FEW = 4 }; /* rows that are faster in registers than in tiles */

/* Asks the system, once, whether tiles may be used: their state is large, so it wants to know. */
int uses_tiles(void) {
    static int known = 0;
#if X86
    if (!known)
        known = __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-int8") &&
                        !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tiles */)
                    ? 1
                    : -1;
#endif
    return known == 1 && allowed == ALL;
}

static int tiles_serve(int64_t rows) { return rows > FEW && uses_tiles(); }

static Span *for_bf16(int64_t rows) {
#if X86
    if (tiles_serve(rows)) return span_bf16_tiles;
    if (allowed >= AVX512_AT_MOST && __builtin_cpu_supports("avx512bf16"))
        return span_bf16_avx512;
#endif
    (void)rows;
    return span_bf16;
}

static Span *for_int8(int64_t rows) {
#if X86
    if (tiles_serve(rows)) return span_int8_tiles;
    if (allowed >= AVX512_AT_MOST && __builtin_cpu_supports("avx512vnni"))
        return span_int8_avx512;
    if (allowed >= AVX2_AT_MOST && __builtin_cpu_supports("avx2")) return span_int8_avx2;
#endif
    (void)rows;
    return span_int8;
}

/* ------------------------------------------------------------------------------ what is called */

/* Does a job, with x turned if the span reads it so. Returns 0, or 1 when there is no memory. */
static int done(Job job, Span *span, int turns, int threads) {
    const void *x = job.x;
    if (turns) job.x = turned(x, job.m, job.words, threads);
    if (!job.x) return 1;
    run(span, &job, SIXTEENS(job.o), threads);
    if (job.x != x) free((void *)job.x);
    return 0;
}

static Job as_job(const Product *p, int64_t words) {
    return (Job){p->x, p->w, p->bias, NULL, p->scale, p->y, p->m, p->o, words, p->activation};
}

int linear_f32(const Product *p) { return done(as_job(p, p->i), span_f32, 1, p->threads); }

int linear_bf16(const Product *p) {
    return done(as_job(p, p->i / 2), for_bf16(p->m), !tiles_serve(p->m), p->threads);
}

/* Rows of x to numbers, each with its own scale. */
CLONES static void span_quantise(const void *data, int64_t first, int64_t last) {
    const Job *job = data;
    int64_t i = 4 * job->words;
    for (int64_t r = first; r < last; r++) {
        const float *x = (const float *)job->x + r * i;
        int8_t *numbers = (int8_t *)job->y + r * i;
        int32_t peak = 0; /* of positive floats the larger has the larger bits; NaN's are largest */
        for (int64_t n = 0; n < i; n++) {
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
        for (int64_t n = 0; n < i; n++) numbers[n] = (int8_t)rintf(x[n] * turn);
    }
}

/* x is quantised on the way: x (m i) is about numbers (m i) * scale (m). */
int linear_int8(const Product *p) {
    float *scale = malloc((size_t)p->m * (sizeof(float) + (size_t)p->i));
    if (!scale) return 1;
    Job job = as_job(p, p->i / 4);
    job.x_scale = scale, job.y = scale + p->m;
    run(span_quantise, &job, p->m, p->m > MOST ? p->threads : 1);
    job.x = job.y, job.y = p->y;
    int failed = done(job, for_int8(p->m), !tiles_serve(p->m), p->threads);
    free(scale);
    return failed;
}

/* ---------------------------------------------------------------------------------- small products */

/* W (o i) as it is, which stays in the cache; any number of inputs. */
INLINE void dots(const Product *p, const int bf16) {
    int64_t whole = p->i / WIDE * WIDE, rest = p->i - whole;
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t o = 0; o < p->o; o += WIDE) {
            int64_t count = least(p->o - o, WIDE);
            floats sums = {0};
            for (int64_t k = 0; k < count; k++) {
                int64_t x = r * p->i, w = (o + k) * p->i;
                floats lanes = {0};
                for (int64_t n = 0; n < whole; n += WIDE)
                    lanes += load(p->x, x + n, bf16) * load(p->w, w + n, bf16);
                if (rest)
                    lanes += load_some(p->x, x + whole, rest, bf16) *
                             load_some(p->w, w + whole, rest, bf16);
                sums[k] = total(lanes);
            }
            if (p->bias) sums += load_some(p->bias, o, count, bf16);
            keep(p->y, r * p->o + o, activated(sums, p->activation), count, bf16);
        }
}

CLONES static void all_dots(const Product *p, const int bf16) { bf16 ? dots(p, 1) : dots(p, 0); }

int small_f32(const Product *p) { return all_dots(p, 0), 0; }
int small_bf16(const Product *p) { return all_dots(p, 1), 0; }
