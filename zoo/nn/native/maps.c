/* Numbers one by one, wherever they lie: what is left between products and attention in a step. A
 * row of the last axis has no gaps, or one number that serves all of it. */

#include "native.h"

enum { ADD, MULTIPLY };

INLINE floats some(const void *from, int64_t n, int64_t step, int64_t count, const int bf16) {
    if (step) return count == 16 ? load(from, n, bf16) : load_some(from, n, count, bf16);
    return (floats){0} + load_some(from, n, 1, bf16)[0];
}

INLINE void row(const Map *m, int64_t a, int64_t b, int64_t y, const int a_bf16, const int b_bf16,
                const int y_bf16) {
    const int last = AXES - 1;
    for (int64_t n = 0; n < m->size[last]; n += 16) {
        int64_t count = least(m->size[last] - n, 16);
        floats x = some(m->a, a + n * m->a_step[last], m->a_step[last], count, a_bf16);
        if (m->b) {
            floats other = some(m->b, b + n * m->b_step[last], m->b_step[last], count, b_bf16);
            x = m->kind == ADD ? x + m->factor * other : x * (m->factor * other);
        } else
            x *= m->factor;
        keep(m->y, y + n, activated(x, m->activation), count, y_bf16);
    }
}

CLONES static void whole_map(const Map *m) {
    const int64_t *size = m->size, *of_a = m->a_step, *of_b = m->b_step, *of_y = m->y_step;
    const int64_t start = m->turn ? *m->turn * m->turn_step : 0;
    const int kinds = m->a_bf16 | m->b_bf16 << 1 | m->y_bf16 << 2;
    for (int64_t i = 0; i < size[0]; i++)
        for (int64_t j = 0; j < size[1]; j++)
            for (int64_t k = 0; k < size[2]; k++) {
                int64_t a = i * of_a[0] + j * of_a[1] + k * of_a[2];
                int64_t b = i * of_b[0] + j * of_b[1] + k * of_b[2];
                int64_t y = start + i * of_y[0] + j * of_y[1] + k * of_y[2];
                switch (kinds) {
                case 0: row(m, a, b, y, 0, 0, 0); break;
                case 7: row(m, a, b, y, 1, 1, 1); break;
                default: row(m, a, b, y, m->a_bf16, m->b_bf16, m->y_bf16);
                }
            }
}

int map(const Map *m) { return whole_map(m), 0; }
