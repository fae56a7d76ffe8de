/* Many calls as one: what Python says between them takes longer than small ones do. */

#include "native.h"

typedef struct {
    Call *call;
    const void *given;
} Entry;

/* Returns how many of the calls were done: all of them, unless memory was short. */
int64_t play(const Entry *tape, int64_t count) {
    for (int64_t n = 0; n < count; n++)
        if (tape[n].call(tape[n].given)) return n;
    return count;
}

/* Bytes of what functions are given: a test holds calls.py against them. */
const int64_t sizes[] = {sizeof(Product), sizeof(Attention), sizeof(Norm), sizeof(Map),
                         sizeof(Store), sizeof(Many)};
