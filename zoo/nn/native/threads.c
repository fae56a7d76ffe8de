/* Threads are PyTorch's: two sets of them would wait for each other's cores. Its OpenMP is in the
 * process already, so that whoever loads this finds GOMP_parallel there and hands it over. */

#include "native.h"

typedef void Parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags);

static Parallel *parallel = NULL; /* none was found: one thread does it all */

void use_threads(void *gomp_parallel) { parallel = (Parallel *)gomp_parallel; }

typedef struct {
    Span *span;
    const void *job;
    int64_t units;
    int threads, started;
} Shared;

static void share(void *data) {
    Shared *all = data;
    int64_t mine, parts = all->threads; /* there may be fewer threads than were asked for */
    while ((mine = __atomic_fetch_add(&all->started, 1, __ATOMIC_RELAXED)) < parts)
        all->span(all->job, all->units * mine / parts, all->units * (mine + 1) / parts);
}

void run(Span *span, const void *job, int64_t units, int threads) {
    Shared all = {span, job, units, threads, 0};
    if (threads > 1 && parallel)
        parallel(share, &all, (unsigned)threads, 0);
    else
        span(job, 0, units);
}

/* Returns what all of this was compiled from (sources.py). */
const char *sources(void) { return SOURCES; }
