/* Attention of many queries: reading a prompt, encoders.
 *
 * Queries lie side by side in the lanes of a vector. Their scores for a key, its maximum, exponents
 * and sum then need nothing across lanes, and both products are the same one: numbers that lie in
 * memory as they came (keys, then values), each times a line of lanes (turned queries, then
 * weights). A block of queries meets some keys at a time; what was summed before is scaled when a
 * larger score comes (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv
 * 2205.14135). Keys that a block may not see are not read.
 *
 * bf16 is multiplied in Intel's tiles, a word of two channels or of two keys at a time; elsewhere
 * as fp32. Sums and softmax are fp32's.
 *
 * b sequences, h heads, g key heads (h / g read the same one), n queries, s keys, c channels. */

#include "native.h"

enum {
    LANES = 16,
    VECTORS = 3, /* of queries in a block: with ROWS they fill the registers of AVX-512 */
    WIDE = LANES * VECTORS,
    ROWS = 8,   /* keys, or channels of values, whose sums are held at once */
    KEYS = 128, /* that are met at a time: they, queries and weights stay in the near caches */
    GROUP = 8,  /* blocks at most that meet keys before the next ones are fetched */
    TILE = 32   /* numbers of bf16 in a tile's line */
};

enum { FP32, BF16, TILES }; /* how numbers lie, and are multiplied */

typedef struct {
    const Many *m;
    int64_t wide;  /* queries in a block */
    int64_t group; /* blocks in a unit */
    int64_t units; /* of a head */
    int failed;    /* there was no memory */
} Job;

/* Queries of one head, turned: c WIDE, for tiles words of two; and c WIDE that they have summed. */
typedef struct {
    int64_t first, count;
    float *q, *y;
    floats most[VECTORS], sum[VECTORS]; /* the largest score, and the sum of powers below it */
} Block;

/* Rows that the next unit reads, and this one writes: they lie far apart, where the processor does
 * not see them coming. */
typedef struct {
    const char *at;
    int64_t step, bytes, rows, done; /* bytes of a row; of those that were asked for */
} Ahead;

/* What the blocks of a unit meet: n keys, from `at` on. */
typedef struct {
    const Many *m;
    int64_t row, head, at, n;
    const void *k, *v; /* rows of c; for tiles c rows of KEYS values */
    int64_t k_s, v_s;  /* steps from one to the next */
    float *scores;     /* KEYS WIDE; then weights, for tiles words of two */
    Ahead *ahead, *end;
} Meeting;

static int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* ------------------------------------------------------------------------------ turned sixteens */

/* Changes the lanes that have `step` in a's place with those of b that have not. */
INLINE void cross(floats *a, floats *b, const int step) {
    integers low, high;
    for (int lane = 0; lane < LANES; lane++) {
        low[lane] = lane & step ? LANES + lane - step : lane;
        high[lane] = lane & step ? LANES + lane : lane + step;
    }
    floats first = __builtin_shuffle(*a, *b, low);
    *b = __builtin_shuffle(*a, *b, high);
    *a = first;
}

#define CROSS(step)                                                                                \
    _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++)                                       \
        if (!(i & (step))) cross(x + i, x + i + (step), step);

/* Turns sixteen rows of sixteen (Eklundh 1972). */
INLINE void turn(floats *x) {
    CROSS(1) CROSS(2) CROSS(4) CROSS(8)
}

INLINE floats some(const void *from, int64_t n, int64_t count, const int bf16) {
    return count == LANES ? load(from, n, bf16) : load_some(from, n, count, bf16);
}

/* Turns a block's queries. Words for tiles move as floats do: nothing is added to them. */
INLINE void read_queries(const Meeting *x, Block *b, const int kind) {
    const Many *m = x->m;
    int64_t per = kind == TILES ? 2 : 1, width = m->c / per;
    int64_t from = (x->row * m->q_b + x->head * m->q_h + b->first * m->q_n) / per;
    floats rows[LANES];
    for (int64_t i = 0; i < b->count; i += LANES)
        for (int64_t k = 0; k < width; k += LANES) {
            int64_t count = least(b->count - i, LANES), wide = least(width - k, LANES);
            for (int64_t r = 0; r < LANES; r++) {
                rows[r] = (floats){0};
                if (r < count)
                    rows[r] = some(m->q, from + (i + r) * m->q_n / per + k, wide, kind == BF16);
            }
            turn(rows);
            for (int64_t r = 0; r < wide; r++)
                memcpy(b->q + (k + r) * WIDE + i, rows + r, sizeof *rows);
        }
}

/* Turns back what a block has summed, and writes it. */
INLINE void write_means(const Meeting *x, const Block *b, const int kind) {
    const Many *m = x->m;
    int64_t step = m->h * m->c, to = (x->row * m->n + b->first) * step + x->head * m->c;
    floats rows[LANES];
    for (int64_t i = 0; i < b->count; i += LANES) {
        floats most = b->most[i / LANES], share = 1 / b->sum[i / LANES];
        share = chosen((integers)(most == -INFINITY), (floats){0}, share); /* who may see nothing */
        for (int64_t k = 0; k < m->c; k += LANES) {
            int64_t count = least(b->count - i, LANES), wide = least(m->c - k, LANES);
            for (int64_t r = 0; r < LANES; r++)
                rows[r] = r < wide ? load_f32(b->y + (k + r) * WIDE + i) * share : (floats){0};
            turn(rows);
            for (int64_t r = 0; r < count; r++)
                keep(m->y, to + (i + r) * step + k, rows[r], wide, kind != FP32);
        }
    }
}

/* Rows of n by `step` without gaps, as floats: many steps are multiples of what a cache has sets
 * for. */
INLINE void gather(float *to, const void *from, int64_t step, int64_t n, int64_t c,
                   const int kind) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t k = 0; k < c; k += LANES) {
            int64_t wide = least(c - k, LANES);
            keep(to, t * c + k, some(from, t * step + k, wide, kind == BF16), wide, 0);
        }
}

/* Rows of n words by `step`, as they are, and zeros behind them. */
INLINE void gather_words(float *to, const float *from, int64_t step, int64_t n, int64_t width) {
    for (int64_t t = 0; t < rounded_up(n, LANES); t++)
        for (int64_t k = 0; k < width; k += LANES) {
            floats x = t < n ? load_f32(from + t * step + k) : (floats){0};
            memcpy(to + t * width + k, &x, sizeof x);
        }
}

/* Turned rows of n words by `step`: 2 `width` rows of KEYS numbers, with zeros behind the n. */
INLINE void gather_turned(uint16_t *to, const float *from, int64_t step, int64_t n, int64_t width) {
    floats rows[LANES];
    for (int64_t t = 0; t < rounded_up(n, TILE); t += LANES)
        for (int64_t k = 0; k < width; k += LANES) {
            for (int64_t r = 0; r < LANES; r++)
                rows[r] = t + r < n ? load_f32(from + (t + r) * step + k) : (floats){0};
            turn(rows);
            for (int64_t r = 0; r < LANES; r++) {
                words both = (words)rows[r];
                halves even = __builtin_convertvector(both & 0xffff, halves);
                halves odd = __builtin_convertvector(both >> 16, halves);
                memcpy(to + 2 * (k + r) * KEYS + t, &even, sizeof even);
                memcpy(to + (2 * (k + r) + 1) * KEYS + t, &odd, sizeof odd);
            }
        }
}

/* ----------------------------------------------------------------------------- the two products */

/* to (rows vectors) = or += from (rows steps) lanes (steps vectors); `row` and `step` of from. */
INLINE void product(const float *from, int64_t row, int64_t step, const float *lanes, int64_t steps,
                    float *to, const int add, const int rows, const int vectors) {
    floats sums[ROWS][VECTORS] = {{{0}}}, line[VECTORS];
    for (int64_t n = 0; n < steps; n++, from += step, lanes += WIDE) {
        for (int j = 0; j < vectors; j++) line[j] = load_f32(lanes + j * LANES);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < vectors; j++) sums[r][j] += from[r * row] * line[j];
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) { /* added last, or errors would grow with the keys */
            if (add) sums[r][j] += load_f32(to + r * WIDE + j * LANES);
            memcpy(to + r * WIDE + j * LANES, &sums[r][j], sizeof(floats));
        }
}

enum { LINES = 16 }; /* asked for at a time: as many as can be on their way */

INLINE void look_ahead(Meeting *x) {
    for (int n = 0; n < LINES && x->ahead < x->end; n++) {
        Ahead *a = x->ahead;
        __builtin_prefetch(a->at + a->done, 0, 2);
        a->done += 64;
        if (a->done < a->bytes) continue;
        a->done = 0, a->at += a->step;
        if (--a->rows <= 0) x->ahead++;
    }
}

INLINE void products(Meeting *x, const float *from, int64_t row, int64_t step, const float *lanes,
                     int64_t steps, float *to, const int add, int64_t rows, const int vectors) {
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS) {
        look_ahead(x);
        product(from + r * row, row, step, lanes, steps, to + r * WIDE, add, ROWS, vectors);
    }
    for (; r < rows; r++)
        product(from + r * row, row, step, lanes, steps, to + r * WIDE, add, 1, vectors);
}

#if X86
AMX static void begin_tiles(void) {
    static const Shapes whole = {
        .palette = 1,
        .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .lines = {LANES, LANES, LANES, LANES, LANES, LANES, LANES, LANES},
    };
    _tile_loadconfig(&whole);
}

AMX static void end_tiles(void) { _tile_release(); }

/* The same for words of two: rows in sixteens, `row` bytes from one to the next, sixteen words at a
 * time. 0 to 3 hold sums; an odd row of tiles, or a column, is done twice. */
AMX static void in_tiles(const void *from, int64_t row, const float *lanes, int64_t words,
                         float *to, int add, int64_t rows, int vectors) {
    const int64_t wide = sizeof(float) * WIDE;
    for (int64_t r = 0; r < rows; r += 2 * LANES)
        for (int j = 0; j < vectors; j += 2) {
            int64_t next = least(r + LANES, rows - LANES), across = least(j + 1, vectors - 1);
            float *to_0 = to + r * WIDE + j * LANES, *to_1 = to + next * WIDE + j * LANES;
            float *to_2 = to + r * WIDE + across * LANES, *to_3 = to + next * WIDE + across * LANES;
            if (add) {
                _tile_loadd(0, to_0, wide);
                _tile_loadd(1, to_1, wide);
                _tile_loadd(2, to_2, wide);
                _tile_loadd(3, to_3, wide);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int64_t n = 0; n < words; n += LANES) {
                _tile_loadd(4, (const char *)from + r * row + 4 * n, row);
                _tile_loadd(6, lanes + n * WIDE + j * LANES, wide);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(5, (const char *)from + next * row + 4 * n, row);
                _tile_dpbf16ps(1, 5, 6);
                _tile_loadd(7, lanes + n * WIDE + across * LANES, wide);
                _tile_dpbf16ps(2, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, to_0, wide);
            _tile_stored(1, to_1, wide);
            _tile_stored(2, to_2, wide);
            _tile_stored(3, to_3, wide);
        }
}
#else
static void begin_tiles(void) {}
static void end_tiles(void) {}
static void in_tiles(const void *from, int64_t row, const float *lanes, int64_t words, float *to,
                     int add, int64_t rows, int vectors) {}
#endif

/* ---------------------------------------------------------------------------- what lies between */

/* Scales n scores from `at` on, adds what is added to them, and hides keys. Returns whether there
 * was anything to do: otherwise they still have to be scaled. */
INLINE int change(const Meeting *x, const Block *b, int64_t at, int64_t n, const int vectors) {
    const Many *m = x->m;
    const floats lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const floats hidden = (floats){0} - INFINITY;
    const float centre = (float)(m->before - m->after) / 2; /* of what is seen: one comparison */
    const float reach = (float)(m->before + m->after) / 2;
    int64_t first = b->first + m->s - m->n, last = first + b->count - 1; /* where queries stand */
    int edges = at < last - m->before || at + n - 1 > first + m->after;
    const float *bias = m->bias + x->row * m->bias_b + x->head * m->bias_h + at * m->bias_s;
    const uint8_t *real = m->real ? m->real + x->row * m->real_b + at : NULL;
    if (!m->bias && !edges && !real) return 0;
    for (int64_t t = 0; t < n; t++)
        for (int j = 0; j < vectors; j++) {
            float *place = x->scores + t * WIDE + j * LANES;
            int64_t query = j * LANES;
            floats score = load_f32(place) * m->scale;
            if (m->bias && m->bias_n)
                score += some(bias, t * m->bias_s + b->first + query,
                              least(b->count - query, LANES), 0);
            else if (m->bias)
                score += bias[t * m->bias_s];
            if (edges) {
                floats off = lane + ((float)(first + query - at - t) - centre); /* since the key */
                score = chosen((floats)((integers)off & 0x7fffffff) > reach, hidden, score);
            }
            if (real && !real[t]) score = hidden;
            memcpy(place, &score, sizeof score);
        }
    return 1;
}

/* Makes weights of n scores, each to be scaled: powers of two, for which the scores are times
 * log2(e). Scales what was summed before. */
INLINE void weigh(Meeting *x, Block *b, int64_t n, float scale, const int kind,
                  const int vectors) {
    floats largest[VECTORS];
    scale *= 1.44269504f;
    for (int j = 0; j < vectors; j++) largest[j] = (floats){0} - INFINITY;
    for (int64_t t = 0; t < n; t++)
        for (int j = 0; j < vectors; j++) {
            floats score = load_f32(x->scores + t * WIDE + j * LANES);
            largest[j] = chosen((integers)(score > largest[j]), score, largest[j]);
        }
    for (int j = 0; j < vectors; j++) {
        float *place = x->scores + j * LANES;
        floats before = b->most[j], most = largest[j] * scale, sum = {0};
        most = chosen((integers)(before > most), before, most);
        floats base = chosen((integers)(most == -INFINITY), (floats){0}, most);
        if (kind == TILES)
            for (int64_t t = 0; t < rounded_up(n, TILE); t += 2) { /* two make a word */
                floats even = {0}, odd = {0};
                if (t < n) even = power(load_f32(place + t * WIDE) * scale - base, 1);
                if (t + 1 < n) odd = power(load_f32(place + (t + 1) * WIDE) * scale - base, 1);
                sum += even + odd;
                words both = ((words)even + 0x8000) >> 16 | (((words)odd + 0x8000) & 0xffff0000u);
                memcpy(place + t / 2 * WIDE, &both, sizeof both);
                if (t % 16 == 0) look_ahead(x);
            }
        else
            for (int64_t t = 0; t < n; t++) {
                floats weight = power(load_f32(place + t * WIDE) * scale - base, 0);
                sum += weight;
                memcpy(place + t * WIDE, &weight, sizeof weight);
            }
        floats kept = power(before - base, 0);
        b->most[j] = most;
        b->sum[j] = b->sum[j] * kept + sum;
        if (total(kept) == LANES) continue; /* none of them is larger */
        for (int64_t k = 0; k < x->m->c; k++) {
            floats y = load_f32(b->y + k * WIDE + j * LANES) * kept;
            memcpy(b->y + k * WIDE + j * LANES, &y, sizeof y);
        }
    }
}

/* ------------------------------------------------------------------------------------ all of it */

/* A block meets keys from one to another, counted from the meeting's first. */
INLINE void meet(Meeting *x, Block *b, int64_t from, int64_t to, const int kind,
                 const int vectors) {
    const Many *m = x->m;
    int64_t c = m->c, n = to - from;
    const uint16_t *k = x->k, *v = x->v;
    const float *wide_k = x->k, *wide_v = x->v;
    if (kind == TILES)
        in_tiles(k + from * c, 2 * c, b->q, c / 2, x->scores, 0, rounded_up(n, LANES), vectors);
    else
        products(x, wide_k + from * x->k_s, x->k_s, 1, b->q, c, x->scores, 0, n, vectors);
    int scaled = change(x, b, x->at + from, n, vectors);
    weigh(x, b, n, scaled ? 1 : m->scale, kind, vectors);
    if (kind == TILES)
        in_tiles(v + from, 2 * KEYS, x->scores, rounded_up(n, TILE) / 2, b->y, 1, c, vectors);
    else
        products(x, wide_v + from * x->v_s, 1, x->v_s, x->scores, n, b->y, 1, c, vectors);
}

/* Fetches the n keys and values of a meeting; one block reads floats where they are. */
INLINE void fetch(Meeting *x, float *keys, float *values, int64_t blocks, const int kind) {
    const Many *m = x->m;
    int64_t size = kind == FP32 ? 4 : 2, group = x->head / (m->h / m->g);
    int64_t k_at = x->row * m->k_b + group * m->k_g + x->at * m->k_s;
    int64_t v_at = x->row * m->v_b + group * m->v_g + x->at * m->v_s;
    x->k = (const char *)m->k + size * k_at, x->k_s = m->k_s;
    x->v = (const char *)m->v + size * v_at, x->v_s = m->v_s;
    if (kind == FP32 && blocks == 1) return;
    if (kind == TILES) {
        gather_words(keys, x->k, m->k_s / 2, x->n, m->c / 2);
        gather_turned((uint16_t *)values, x->v, m->v_s / 2, x->n, m->c / 2);
    } else {
        gather(keys, x->k, m->k_s, x->n, m->c, kind);
        gather(values, x->v, m->v_s, x->n, m->c, kind);
    }
    x->k = keys, x->v = values, x->k_s = x->v_s = m->c;
}

/* Those that read one bias, or one key head, follow each other. */
INLINE void find(const Many *m, int64_t pair, int64_t *row, int64_t *head) {
    *row = m->bias ? pair % m->b : pair / m->h;
    *head = m->bias ? pair / m->b : pair % m->h;
}

INLINE void expect(Meeting *x, const void *from, int64_t n, int64_t step, int64_t rows,
                   const int kind) {
    int64_t size = kind == FP32 ? 4 : 2;
    *x->end++ = (Ahead){(const char *)from + n * size, step * size, x->m->c * size, rows, 0};
}

/* Expects what a unit writes, and what the next one of this thread reads, if there is one. */
INLINE void look_for(const Job *job, Meeting *x, int64_t unit, int64_t last, const int kind) {
    const Many *m = job->m;
    int64_t row, head, wide = job->group * job->wide, at = unit % job->units * wide;
    int64_t first = ((x->row * m->n + at) * m->h + x->head) * m->c;
    expect(x, m->y, first, m->h * m->c, least(m->n - at, wide), kind);
    if (unit + 1 == last) return;
    find(m, (unit + 1) / job->units, &row, &head);
    at = (unit + 1) % job->units * wide;
    first = row * m->q_b + head * m->q_h + at * m->q_n;
    expect(x, m->q, first, m->q_n, least(m->n - at, wide), kind);
    if (at) return; /* the same keys again */
    head /= m->h / m->g;
    expect(x, m->k, row * m->k_b + head * m->k_g, m->k_s, least(m->s, KEYS), kind);
    expect(x, m->v, row * m->v_b + head * m->v_g, m->v_s, least(m->s, KEYS), kind);
}

/* A unit: some blocks of queries of one head. */
INLINE void attend(const Job *job, int64_t unit, int64_t last, float *room, const int kind) {
    const Many *m = job->m;
    Ahead ahead[4];
    int64_t units = job->units, wide = job->wide, c = m->c, past = m->s - m->n, count = 0;
    int64_t at = unit % units * job->group * wide;
    float *keys = room, *values = keys + KEYS * c, *own = values + KEYS * c + KEYS * WIDE;
    Meeting x = {.m = m, .ahead = ahead, .end = ahead};
    find(m, unit / units, &x.row, &x.head);
    x.scores = values + KEYS * c;
    look_for(job, &x, unit, last, kind);
    Block blocks[GROUP];
    for (; count < job->group && at < m->n; count++, at += wide, own += 2 * c * WIDE) {
        Block *b = blocks + count;
        b->first = at, b->count = least(m->n - at, wide);
        b->q = own, b->y = own + c * WIDE;
        read_queries(&x, b, kind);
        memset(b->y, 0, sizeof(float) * (size_t)(WIDE * c));
        for (int j = 0; j < VECTORS; j++) {
            b->most[j] = (floats){0} - INFINITY;
            b->sum[j] = (floats){0};
        }
    }
    int64_t start = blocks[0].first + past - m->before, end = least(m->s, at + past + m->after);
    const int64_t most = kind == TILES ? KEYS : KEYS / 2;
    for (x.at = start > 0 ? start : 0; x.at < end; x.at += most) {
        x.n = least(end - x.at, most);
        fetch(&x, keys, values, count, kind);
        for (int64_t i = 0; i < count; i++) {
            Block *b = blocks + i;
            int64_t from = b->first + past - m->before - x.at;
            int64_t to = least(x.n, b->first + b->count + past + m->after - x.at);
            from = from > 0 ? from : 0;
            if (kind == TILES) from = from / TILE * TILE;
            if (from >= to) continue;
            switch ((b->count + LANES - 1) / LANES) {
            case 1: meet(&x, b, from, to, kind, 1); break;
            case 2: meet(&x, b, from, to, kind, 2); break;
            default: meet(&x, b, from, to, kind, 3);
            }
        }
    }
    for (int64_t i = 0; i < count; i++) write_means(&x, blocks + i, kind);
}

INLINE void span(const Job *job, int64_t first, int64_t last, const int kind) {
    int64_t c = job->m->c, size = 2 * KEYS * c + KEYS * WIDE + 2 * job->group * c * WIDE;
    float *room = aligned_alloc(64, sizeof(float) * (size_t)rounded_up(size, LANES));
    if (!room) {
        __atomic_store_n(&((Job *)job)->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    if (kind == TILES) begin_tiles();
    for (int64_t unit = first; unit < last; unit++) attend(job, unit, last, room, kind);
    if (kind == TILES) end_tiles();
    free(room);
}

CLONES static void span_f32(const void *job, int64_t first, int64_t last) {
    span(job, first, last, FP32);
}

CLONES static void span_bf16(const void *job, int64_t first, int64_t last) {
    span(job, first, last, BF16);
}

CLONES static void span_tiles(const void *job, int64_t first, int64_t last) {
    span(job, first, last, TILES);
}

/* Tiles take words of two as they lie. */
static int fits_tiles(const Many *m) {
    int64_t steps = m->q_b | m->q_h | m->q_n | m->k_b | m->k_g | m->k_s | m->v_b | m->v_g | m->v_s;
    return m->bf16 && m->c % TILE == 0 && steps % 2 == 0 && uses_tiles();
}

int attend_many(const Many *m) {
    if (!m->n) return 0;
    int tiles = fits_tiles(m);
    int64_t wide = tiles ? 2 * LANES : WIDE; /* tiles are done two by two */
    int64_t heads = m->b * m->h, blocks = (m->n + wide - 1) / wide, group = least(GROUP, blocks);
    while (group > 1 && heads * ((blocks + group - 1) / group) < 2 * m->threads) group /= 2;
    Job job = {m, wide, group, (blocks + group - 1) / group, 0};
    run(tiles ? span_tiles : m->bf16 ? span_bf16 : span_f32, &job, heads * job.units, m->threads);
    return job.failed;
}
