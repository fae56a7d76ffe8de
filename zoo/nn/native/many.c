/* Attention of many queries: reading a prompt, encoders.
 *
 * Queries lie side by side in the lanes of a vector. Their scores for a key, its maximum, exponents
 * and sum then need nothing across lanes, and both products are the same one: numbers that lie in
 * memory as they came (keys, then values), each times a line of lanes (turned queries, then
 * weights). A block of queries meets some keys at a time; what was summed before is scaled when a
 * larger score comes (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv
 * 2205.14135). Keys that a block may not see are not read.
 *
 * b sequences, h heads, g key heads (h / g read the same one), n queries, s keys, c channels. */

#include "native.h"

enum {
    LANES = 16,
    VECTORS = 3, /* of queries in a block: with ROWS they fill the registers of AVX-512 */
    WIDE = LANES * VECTORS,
    ROWS = 8,  /* keys, or channels of values, whose sums are held at once */
    KEYS = 64, /* that are met at a time: they, queries and weights stay in the nearest cache */
    GROUP = 8  /* blocks at most that meet keys before the next ones are fetched */
};

typedef struct {
    const Many *m;
    int64_t group; /* blocks to a unit */
    int failed;    /* there was no memory */
} Job;

/* Queries of one head, turned: c WIDE; so is what they have summed so far. */
typedef struct {
    int64_t first, count;
    float *q, *y;
    floats most[VECTORS], sum[VECTORS]; /* the largest score, and the sum of exponents below it */
} Block;

/* ----------------------------------------------------------------------------- turned sixteens */

/* Changes the lanes that have `step` in b's place with those of a that have not. */
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

INLINE floats some(const float *from, int64_t count) {
    return count == LANES ? load_f32(from) : load_some(from, 0, count, 0);
}

INLINE void read_queries(const Many *m, const float *q, Block *b) {
    floats x[LANES];
    for (int64_t i = 0; i < b->count; i += LANES)
        for (int64_t k = 0; k < m->c; k += LANES) {
            int64_t rows = least(b->count - i, LANES), wide = least(m->c - k, LANES);
            for (int64_t r = 0; r < LANES; r++)
                x[r] = r < rows ? some(q + (i + r) * m->q_n + k, wide) * m->scale : (floats){0};
            turn(x);
            for (int64_t r = 0; r < wide; r++) memcpy(b->q + (k + r) * WIDE + i, x + r, sizeof *x);
        }
}

INLINE void write_means(const Many *m, float *y, const Block *b) {
    floats x[LANES];
    for (int64_t i = 0; i < b->count; i += LANES) {
        floats most = b->most[i / LANES], share = 1 / b->sum[i / LANES];
        share = chosen((integers)(most == -INFINITY), (floats){0}, share); /* who may see nothing */
        for (int64_t k = 0; k < m->c; k += LANES) {
            int64_t rows = least(b->count - i, LANES), wide = least(m->c - k, LANES);
            for (int64_t r = 0; r < LANES; r++)
                x[r] = r < wide ? load_f32(b->y + (k + r) * WIDE + i) * share : (floats){0};
            turn(x);
            for (int64_t r = 0; r < rows; r++) keep(y, (i + r) * m->h * m->c + k, x[r], wide, 0);
        }
    }
}

/* ---------------------------------------------------------------------------- the two products */

/* to (rows vectors) = or += from (rows steps) lanes (steps vectors); `row` and `step` of from. */
INLINE void product(const float *from, int64_t row, int64_t step, const float *lanes, int64_t steps,
                    float *to, const int add, const int rows, const int vectors) {
    floats sums[ROWS][VECTORS], line[VECTORS];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++)
            sums[r][j] = add ? load_f32(to + r * WIDE + j * LANES) : (floats){0};
    for (int64_t n = 0; n < steps; n++, from += step, lanes += WIDE) {
        for (int j = 0; j < vectors; j++) line[j] = load_f32(lanes + j * LANES);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < vectors; j++) sums[r][j] += from[r * row] * line[j];
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++)
            memcpy(to + r * WIDE + j * LANES, &sums[r][j], sizeof(floats));
}

INLINE void products(const float *from, int64_t row, int64_t step, const float *lanes,
                     int64_t steps, float *to, const int add, int64_t rows, const int vectors) {
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        product(from + r * row, row, step, lanes, steps, to + r * WIDE, add, ROWS, vectors);
    for (; r < rows; r++)
        product(from + r * row, row, step, lanes, steps, to + r * WIDE, add, 1, vectors);
}

/* --------------------------------------------------------------------------- what lies between */

/* Adds to n scores what is added to them, and hides keys: the first of them is `at`. */
INLINE void change(const Many *m, int64_t row, int64_t head, int64_t at, int64_t n, const Block *b,
                   float *scores, const int vectors) {
    const floats lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const floats hidden = (floats){0} - INFINITY;
    const float centre = (float)(m->before - m->after) / 2; /* of what a query sees: one comparison */
    const float reach = (float)(m->before + m->after) / 2;
    int64_t last = b->first + b->count - 1 + m->s - m->n; /* where the last query stands */
    int64_t first = b->first + m->s - m->n;
    int edges = at < last - m->before || at + n - 1 > first + m->after;
    const float *bias = m->bias + row * m->bias_b + head * m->bias_h + at * m->bias_s;
    const uint8_t *real = m->real ? m->real + row * m->real_b + at : NULL;
    if (!m->bias && !edges && !real) return;
    for (int64_t t = 0; t < n; t++)
        for (int j = 0; j < vectors; j++) {
            float *place = scores + t * WIDE + j * LANES;
            int64_t query = j * LANES;
            floats x = load_f32(place);
            if (m->bias && m->bias_n)
                x += some(bias + t * m->bias_s + b->first + query, least(b->count - query, LANES));
            else if (m->bias)
                x += bias[t * m->bias_s];
            if (edges) {
                floats off = lane + ((float)(first + query - at - t) - centre); /* since the key */
                x = chosen((floats)((integers)off & 0x7fffffff) > reach, hidden, x);
            }
            if (real && !real[t]) x = hidden;
            memcpy(place, &x, sizeof x);
        }
}

/* Makes weights of n scores, and scales what was summed before. */
INLINE void weigh(const Many *m, int64_t n, Block *b, float *scores, const int vectors) {
    for (int j = 0; j < vectors; j++) {
        float *place = scores + j * LANES;
        floats before = b->most[j], most = before, sum = {0};
        for (int64_t t = 0; t < n; t++) {
            floats x = load_f32(place + t * WIDE);
            most = chosen((integers)(x > most), x, most);
        }
        floats base = chosen((integers)(most == -INFINITY), (floats){0}, most);
        for (int64_t t = 0; t < n; t++) {
            floats x = exponent(load_f32(place + t * WIDE) - base);
            sum += x;
            memcpy(place + t * WIDE, &x, sizeof x);
        }
        floats kept = exponent(before - base);
        b->most[j] = most;
        b->sum[j] = b->sum[j] * kept + sum;
        for (int64_t k = 0; k < m->c; k++) {
            floats x = load_f32(b->y + k * WIDE + j * LANES) * kept;
            memcpy(b->y + k * WIDE + j * LANES, &x, sizeof x);
        }
    }
}

/* A block meets n keys and values, of which the first is `at`. */
INLINE void meet(const Many *m, int64_t row, int64_t head, int64_t at, int64_t n, const float *k,
                 int64_t k_s, const float *v, int64_t v_s, Block *b, float *scores,
                 const int vectors) {
    products(k, k_s, 1, b->q, m->c, scores, 0, n, vectors);
    change(m, row, head, at, n, b, scores, vectors);
    weigh(m, n, b, scores, vectors);
    products(v, 1, v_s, scores, n, b->y, 1, m->c, vectors);
}

/* Rows of n by `step` without gaps: many steps are multiples of what a cache has sets for. */
INLINE void gather(float *to, const float *from, int64_t step, int64_t n, int64_t c) {
    for (int64_t t = 0; t < n; t++, from += step, to += c)
        for (int64_t k = 0; k < c; k += LANES) {
            int64_t wide = least(c - k, LANES);
            keep(to, k, some(from + k, wide), wide, 0);
        }
}

static int64_t groups(const Many *m, int64_t group) { /* units of a head */
    return (m->n + group * WIDE - 1) / (group * WIDE);
}

CLONES static void span_many(const void *given, int64_t first, int64_t last) {
    const Job *job = given;
    const Many *m = job->m;
    int64_t c = m->c, units = groups(m, job->group), past = m->s - m->n;
    int64_t size = 2 * KEYS * c + WIDE * (KEYS + 2 * job->group * c);
    float *room = aligned_alloc(64, sizeof(float) * (size_t)((size + 15) / 16 * 16));
    if (!room) {
        __atomic_store_n(&((Job *)given)->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    float *keys = room, *values = keys + KEYS * c, *scores = values + KEYS * c;
    Block blocks[GROUP];
    for (int64_t i = 0; i < job->group; i++) {
        blocks[i].q = scores + WIDE * (KEYS + 2 * i * c);
        blocks[i].y = blocks[i].q + WIDE * c;
    }
    for (int64_t unit = first; unit < last; unit++) {
        int64_t head = unit / units % m->h, row = unit / units / m->h;
        int64_t at = unit % units * job->group * WIDE, count = 0;
        const float *q = m->q + row * m->q_b + head * m->q_h;
        const float *k = m->k + row * m->k_b + head / (m->h / m->g) * m->k_g;
        const float *v = m->v + row * m->v_b + head / (m->h / m->g) * m->v_g;
        for (; count < job->group && at < m->n; count++, at += WIDE) {
            Block *b = blocks + count;
            b->first = at, b->count = least(m->n - at, WIDE);
            read_queries(m, q + at * m->q_n, b);
            memset(b->y, 0, sizeof(float) * (size_t)(WIDE * c));
            for (int j = 0; j < VECTORS; j++) {
                b->most[j] = (floats){0} - INFINITY;
                b->sum[j] = (floats){0};
            }
        }
        int64_t start = blocks[0].first + past - m->before, end = least(m->s, at + past + m->after);
        for (start = start > 0 ? start : 0; start < end; start += KEYS) {
            int64_t n = least(end - start, KEYS);
            const float *near_k = k + start * m->k_s, *near_v = v + start * m->v_s;
            int64_t k_s = m->k_s, v_s = m->v_s;
            if (count > 1) {
                gather(keys, near_k, k_s, n, c), near_k = keys, k_s = c;
                gather(values, near_v, v_s, n, c), near_v = values, v_s = c;
            }
            for (int64_t i = 0; i < count; i++) {
                Block *b = blocks + i;
                int64_t from = b->first + past - m->before - start;
                int64_t to = least(n, b->first + b->count + past + m->after - start);
                from = from > 0 ? from : 0;
                if (from >= to) continue;
#define MEET(vectors)                                                                              \
    meet(m, row, head, start + from, to - from, near_k + from * k_s, k_s, near_v + from * v_s,    \
         v_s, b, scores, vectors)
                switch ((b->count + LANES - 1) / LANES) {
                case 1: MEET(1); break;
                case 2: MEET(2); break;
                default: MEET(3);
                }
            }
        }
        float *y = m->y + (row * m->n * m->h + head) * c;
        for (int64_t i = 0; i < count; i++)
            write_means(m, y + blocks[i].first * m->h * c, blocks + i);
    }
    free(room);
}

int attend_many(const Many *m) {
    Job job = {m, least(GROUP, groups(m, 1)), 0};
    while (job.group > 1 && m->b * m->h * groups(m, job.group) < 2 * m->threads) job.group /= 2;
    run(span_many, &job, m->b * m->h * groups(m, job.group), m->threads);
    return job.failed;
}
