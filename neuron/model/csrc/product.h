/* What Python does with one matrix: products with any number of rows on several threads, packing, looking rows up. */
#pragma once

#include <stdlib.h>

#include "integers.h"
#include "pool.h"

typedef struct {
    const Matrix *matrix;
    const float *x;
    float *y;
    int64_t rows, ldy;
    Rounded rounded; /* values null: the product is in float32 */
    Phase rounding, phase;
} Product;

#define CHUNK_ROWS 240 /* of the input in one piece of work: a multiple of every BLOCK_ROWS */

static void run_product(void *what, int thread) {
    Product *p = what;
    const Matrix *m = p->matrix;
    int n_chunks = (int)((p->rows + CHUNK_ROWS - 1) / CHUNK_ROWS);
    float out[CHUNK_ROWS * STRIP] __attribute__((aligned(64)));
    int few = p->rows <= FEW_ROWS, rounded = p->rounded.values != 0;
    float x_sums[few ? p->rows * (m->n_in / GROUP) + 1 : 1];
    if (few) sum_groups(p->x, p->rows, m->n_in, x_sums);
    for (Pieces its = pieces(&p->rounding, rounded ? (int)p->rows : 0); more(&its);)
        round_row(p->x + (int64_t)its.piece * m->n_in, &p->rounded, its.piece);
    for (Pieces its = pieces(&p->phase, n_strips(m) * n_chunks); more(&its);) {
        int piece = its.piece;
        int64_t row = (int64_t)(piece % n_chunks) * CHUNK_ROWS;
        int strip = piece / n_chunks, at = strip * STRIP;
        int rows = p->rows - row < CHUNK_ROWS ? (int)(p->rows - row) : CHUNK_ROWS;
        int n = m->n_out - at < STRIP ? m->n_out - at : STRIP;
        if (rounded) strip_times_rounded(m, strip, &p->rounded, row, rows, out);
        else strip_times_rows(m, strip, rows, p->x + row * m->n_in, m->n_in, few ? x_sums : 0, out);
        for (int r = 0; r < rows; r++) {
            float *to = p->y + (row + r) * p->ldy + at;
            for (int i = 0; i < n; i++) to[i] = out[r * STRIP + i] + (m->bias ? m->bias[at + i] : 0);
        }
    }
    (void)thread;
}

/* y [rows, ldy] = x [rows, n_in] times the matrix, plus its bias; 0, or -1 without memory. */
int neuron_product(const Matrix *matrix, const float *x, int64_t rows, float *y, int64_t ldy, int threads) {
    Product p = {.matrix = matrix, .x = x, .y = y, .rows = rows, .ldy = ldy};
    void *memory = 0;
    if (rows > FEW_ROWS && in_pairs(matrix, rounds)) {
        memory = calloc(1, rounded_bytes(rows, matrix->n_in));
        if (!memory) return -1;
        p.rounded = rounded_in(memory, rows, matrix->n_in);
    }
    run(run_product, &p, threads);
    free(memory);
    return 0;
}

/* Whether a prompt's rows are rounded for quantised weights: see integers.h. */
int neuron_rounds(void) { return rounds; }

/* Have them computed in float32, or rounded again where the processor can: what begins from now on. */
void neuron_set_exact(int exact) { rounds = HAS_PAIRS && !exact; }

#define PACK(T)                                                                                              \
    for (int64_t u = 0; u < units; u++)                                                                      \
        for (int l = 0; l < LANES; l++) ((T *)to)[u * LANES + l] = l < n ? ((const T *)from)[l * units + u] : 0

/* tiles = rows [n_out][units of unit_bytes] of a file, as matrix.h lays them out. */
void neuron_pack(const uint8_t *rows, int64_t n_out, int64_t units, int64_t unit_bytes, uint8_t *tiles) {
    for (int64_t first = 0; first < n_out; first += LANES) {
        int64_t n = n_out - first < LANES ? n_out - first : LANES;
        const uint8_t *from = rows + first * units * unit_bytes;
        uint8_t *to = tiles + first * units * unit_bytes;
        if (unit_bytes == 4) PACK(uint32_t);
        else if (unit_bytes == 2) PACK(uint16_t);
        else PACK(uint8_t);
    }
}

/* out [n, n_in] = rows of the matrix. */
void neuron_rows(const Matrix *matrix, const int64_t *rows, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) matrix_row(matrix, (int)rows[i], out + i * matrix->n_in);
}
