/* Weights as they are stored, and products with them.
 *
 * A matrix [n_out, n_in] lies in tiles of LANES outputs; within a tile the outputs are neighbours, so that a vector of
 * weights meets one number of the input, and nothing is summed across a vector. A quantised tile is its blocks of 32
 * inputs, each byte of a block LANES times: byte b of the block of output l is at [group][b][l]. Behind the last output
 * a tile holds zeros. All sums are float32.
 */
#pragma once

#include "vectors.h"

enum { F32, F16, BF16, Q8_0, Q4_0, Q4_1 };
#define GROUP 32
static const int GROUP_BYTES[] = {4 * GROUP, 2 * GROUP, 2 * GROUP, 34, 18, 20};

typedef struct {
    int32_t format, n_out, n_in, unused;
    const uint8_t *data;
    const float *bias; /* [n_out], or null */
} Matrix;

INLINE const uint8_t *tile_at(const Matrix *m, int tile) {
    static const int bits[] = {32, 16, 16, 0, 0, 0};
    int64_t bytes = m->format <= BF16 ? (int64_t)m->n_in * bits[m->format] / 8
                                      : (int64_t)(m->n_in / GROUP) * GROUP_BYTES[m->format];
    return m->data + tile * bytes * LANES;
}

/* W weights of input k in a plain tile; `lane` is the first of the outputs. */
INLINE vf plain_weights(const int format, const uint8_t *tile, int64_t k, int lane) {
    int64_t at = k * LANES + lane;
    if (format == F32) return vload((const float *)tile + at);
    if (format == F16) return load_f16((const uint16_t *)tile + at);
    return load_bf16((const uint16_t *)tile + at);
}

#define MOST_ROWS (W == 16 ? 5 : 4) /* of the input at a time: more sums do not fit beside the weights in the registers */
#define FEW_ROWS 32 /* up to so many, weights are unpacked again for every MOST_ROWS */
#define AHEAD 10240 /* bytes: what is fetched while a tile is used again, which the processor can't foresee */

INLINE void fetch(const uint8_t *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + AHEAD + i, 0, 2);
}

/* sums[r] += weights of one group of 32 inputs times row r of x, for W outputs from `lane` on. `x_sums` [rows, ld_sums]: of
 * the group in each row, for formats with a minimum.
 */
INLINE void add_group(
    const int format, const int rows, const uint8_t *group, const float *x, int64_t ldx, const float *x_sums,
    int64_t ld_sums, vf *sums
) {
    vf even[MOST_ROWS], odd[MOST_ROWS], total[MOST_ROWS], a, b;
    for (int r = 0; r < rows; r++) even[r] = odd[r] = total[r] = vset(0);
    if (format == Q8_0) {
        for (int k = 0; k < GROUP; k += 2) {
            a = to_floats(load_s8(group + (2 + k) * LANES));
            b = to_floats(load_s8(group + (3 + k) * LANES));
            for (int r = 0; r < rows; r++) {
                even[r] += a * vset(x[r * ldx + k]);
                odd[r] += b * vset(x[r * ldx + k + 1]);
            }
        }
    } else {
        const uint8_t *values = group + (format == Q4_0 ? 2 : 4) * LANES;
        for (int k = 0; k < GROUP / 2; k++) {
            load_nibbles(values + k * LANES, format == Q4_0 ? 8 : 0, &a, &b);
            for (int r = 0; r < rows; r++) {
                even[r] += a * vset(x[r * ldx + k]);
                odd[r] += b * vset(x[r * ldx + k + GROUP / 2]);
            }
        }
    }
    vf scale = load_split_f16(group);
    for (int r = 0; r < rows; r++) sums[r] += scale * (even[r] + odd[r]);
    if (format == Q4_1) {
        vf minimum = load_split_f16(group + 2 * LANES);
        for (int r = 0; r < rows; r++) sums[r] += minimum * vset(x_sums[r * ld_sums]);
    }
}

/* y[r] = W outputs of a tile from `lane` on, for a few rows of x; the weights go from memory to registers. */
INLINE void few_rows(
    const int format, const int rows, const uint8_t *tile, int n_in, int lane, const float *x, int64_t ldx,
    const float *x_sums, vf *y
) {
    for (int r = 0; r < rows; r++) y[r] = vset(0);
    if (format > BF16) {
        const uint8_t *group = tile + lane;
        for (int k = 0; k < n_in; k += GROUP, group += GROUP_BYTES[format] * LANES) {
            if (rows > 1 && lane == 0) fetch(group, GROUP_BYTES[format] * LANES);
            add_group(format, rows, group, x + k, ldx, x_sums + k / GROUP, n_in / GROUP, y);
        }
        return;
    }
    vf more[3][MOST_ROWS];
    int k = 0;
    for (int r = 0; r < rows; r++) more[0][r] = more[1][r] = more[2][r] = vset(0);
    for (; k + 4 <= n_in; k += 4) {
        int bytes = GROUP_BYTES[format] / GROUP * LANES;
        if (rows > 1 && lane == 0) fetch(tile + k * bytes, 4 * bytes);
        vf a = plain_weights(format, tile, k, lane), b = plain_weights(format, tile, k + 1, lane);
        vf c = plain_weights(format, tile, k + 2, lane), d = plain_weights(format, tile, k + 3, lane);
        for (int r = 0; r < rows; r++) {
            const float *at = x + r * ldx + k;
            y[r] += a * vset(at[0]);
            more[0][r] += b * vset(at[1]);
            more[1][r] += c * vset(at[2]);
            more[2][r] += d * vset(at[3]);
        }
    }
    for (; k < n_in; k++)
        for (int r = 0; r < rows; r++) y[r] += plain_weights(format, tile, k, lane) * vset(x[r * ldx + k]);
    for (int r = 0; r < rows; r++) y[r] += more[0][r] + (more[1][r] + more[2][r]);
}

/* Weights of the inputs from k to `end` of a tile as floats [end - k][stride]; k is a multiple of GROUP. */
INLINE void unpack_tile(const int format, const uint8_t *tile, int k, int end, float *out, int stride) {
    for (int lane = 0; lane < LANES; lane += W) {
        float *to = out + lane;
        if (format <= BF16) {
            for (int i = k; i < end; i++, to += stride) vstore(to, plain_weights(format, tile, i, lane));
            continue;
        }
        const uint8_t *group = tile + (int64_t)(k / GROUP) * GROUP_BYTES[format] * LANES + lane;
        for (int g = k; g < end; g += GROUP, to += GROUP * stride, group += GROUP_BYTES[format] * LANES) {
            vf scale = load_split_f16(group), a, b;
            if (format == Q8_0) {
                for (int i = 0; i < GROUP; i++) vstore(to + i * stride, scale * to_floats(load_s8(group + (2 + i) * LANES)));
                continue;
            }
            vf minimum = format == Q4_1 ? load_split_f16(group + 2 * LANES) : vset(0);
            const uint8_t *values = group + (format == Q4_0 ? 2 : 4) * LANES;
            for (int i = 0; i < GROUP / 2; i++) {
                load_nibbles(values + i * LANES, format == Q4_0 ? 8 : 0, &a, &b);
                vstore(to + i * stride, scale * a + minimum);
                vstore(to + (i + GROUP / 2) * stride, scale * b + minimum);
            }
        }
    }
}

#define STRIP (2 * LANES) /* outputs of one piece of work */
#define BLOCK_ROWS (W == 16 ? 12 : 6)
#define STRIP_VECTORS (W == 16 ? 2 : LANES / W)
#define PANEL_INPUTS 512

/* y[r][0..] (+)= unpacked weights [n][STRIP] times rows of x, whose numbers are `step` apart, for the vectors of one or
 * both tiles.
 */
INLINE void block_of_rows(
    const int rows, const float *panel, int n, const float *x, int64_t ldx, int64_t step, float *y, int64_t ldy, int add
) {
    vf sums[BLOCK_ROWS][STRIP_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < STRIP_VECTORS; v++) sums[r][v] = add ? vload(y + r * ldy + v * W) : vset(0);
    for (int k = 0; k < n; k++) {
        vf w[STRIP_VECTORS];
        for (int v = 0; v < STRIP_VECTORS; v++) w[v] = vload(panel + k * STRIP + v * W);
        for (int r = 0; r < rows; r++) {
            vf xs = vset(x[r * ldx + k * step]);
            for (int v = 0; v < STRIP_VECTORS; v++) sums[r][v] += w[v] * xs;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < STRIP_VECTORS; v++) vstore(y + r * ldy + v * W, sums[r][v]);
}

#define FOR_EACH_COUNT(M) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12)
static void rows_times_panel(
    int rows, const float *panel, int n, const float *x, int64_t ldx, int64_t step, float *y, int64_t ldy, int add
) {
    switch (rows) {
#define CASE(R)                                                                                              \
    case R:                                                                                                  \
        if (R <= BLOCK_ROWS) block_of_rows(R <= BLOCK_ROWS ? R : 1, panel, n, x, ldx, step, y, ldy, add);          \
        break;
        FOR_EACH_COUNT(CASE)
#undef CASE
    }
}

static void unpack(const Matrix *m, int tile, int k, int end, float *out) {
    const uint8_t *data = tile_at(m, tile);
    switch (m->format) {
#define CASE(F)                                                                                              \
    case F: unpack_tile(F, data, k, end, out, STRIP); break;
        CASE(F32) CASE(F16) CASE(BF16) CASE(Q8_0) CASE(Q4_0) CASE(Q4_1)
#undef CASE
    }
}

INLINE void few_rows_of_tile(
    const int format, const int rows, const uint8_t *tile, int n_in, const float *x, int64_t ldx, const float *x_sums,
    float *y, int64_t ldy
) {
    for (int lane = 0; lane < LANES; lane += W) {
        vf sums[MOST_ROWS];
        few_rows(format, rows, tile, n_in, lane, x, ldx, x_sums, sums);
        for (int r = 0; r < rows; r++) vstore(y + r * ldy + lane, sums[r]);
    }
}

static void tile_times_rows(
    const Matrix *m, int tile, int rows, const float *x, int64_t ldx, const float *x_sums, float *y, int64_t ldy
) {
    const uint8_t *data = tile_at(m, tile);
    switch (m->format * 8 + rows) {
#define ROWS(F, R)                                                                                           \
    case F * 8 + R:                                                                                          \
        if (R <= MOST_ROWS)                                                                                  \
            few_rows_of_tile(F, R <= MOST_ROWS ? R : 1, data, m->n_in, x, ldx, x_sums, y, ldy);              \
        break;
#define CASE(F)                                                                                              \
    ROWS(F, 1) ROWS(F, 2) ROWS(F, 3) ROWS(F, 4) ROWS(F, 5)
        CASE(F32) CASE(F16) CASE(BF16) CASE(Q8_0) CASE(Q4_0) CASE(Q4_1)
#undef CASE
#undef ROWS
    }
}

static int n_strips(const Matrix *m) { return (m->n_out + STRIP - 1) / STRIP; }

/* x_sums [rows, n / GROUP] = sums of the groups of x. */
static void sum_groups(const float *x, int64_t rows, int n, float *x_sums) {
    for (int64_t g = 0; g < rows * (n / GROUP); g++) {
        const float *at = x + g / (n / GROUP) * n + g % (n / GROUP) * GROUP;
        vf sum = vset(0);
        for (int i = 0; i < GROUP; i += W) sum += vload(at + i);
        x_sums[g] = vsum(sum);
    }
}

/* y [rows][STRIP] = the outputs of one strip for rows of x, without bias; y is the caller's own. For more than
 * FEW_ROWS, x_sums may be null.
 */
static void strip_times_rows(
    const Matrix *m, int strip, int rows, const float *x, int64_t ldx, const float *x_sums, float *y
) {
    int first = strip * 2, n_tiles = (m->n_out + LANES - 1) / LANES - first >= 2 ? 2 : 1;
    if (x_sums && rows <= (W == 16 || m->format > BF16 ? FEW_ROWS : 2 * MOST_ROWS)) {
        int n_blocks = (rows + MOST_ROWS - 1) / MOST_ROWS, most = (rows + n_blocks - 1) / n_blocks;
        for (int t = 0; t < n_tiles; t++)
            for (int r = 0; r < rows; r += most) {
                int n = rows - r < most ? rows - r : most;
                const float *sums = x_sums + (int64_t)r * (m->n_in / GROUP);
                tile_times_rows(m, first + t, n, x + r * ldx, ldx, sums, y + r * STRIP + t * LANES, STRIP);
            }
        return;
    }
    float panel[PANEL_INPUTS * STRIP] __attribute__((aligned(64)));
    for (int k = 0; k < m->n_in; k += PANEL_INPUTS) {
        int end = k + PANEL_INPUTS < m->n_in ? k + PANEL_INPUTS : m->n_in;
        for (int t = 0; t < n_tiles; t++) unpack(m, first + t, k, end, panel + t * LANES);
        for (int t = 0; t < n_tiles; t += STRIP_VECTORS * W / LANES)
            for (int r = 0; r < rows; r += BLOCK_ROWS) {
                int n = rows - r < BLOCK_ROWS ? rows - r : BLOCK_ROWS;
                float *to = y + (int64_t)r * STRIP + t * LANES;
                rows_times_panel(n, panel + t * LANES, end - k, x + r * ldx + k, ldx, 1, to, STRIP, k > 0);
            }
    }
}

/* One row of the matrix as floats [n_in]: what an embedding looks up. */
static void matrix_row(const Matrix *m, int row, float *out) {
    float panel[GROUP * LANES];
    int lane = row % LANES;
    for (int k = 0; k < m->n_in; k += GROUP) {
        int end = k + GROUP < m->n_in ? k + GROUP : m->n_in;
        const uint8_t *tile = tile_at(m, row / LANES);
        switch (m->format) {
#define CASE(F)                                                                                              \
    case F: unpack_tile(F, tile, k, end, panel, LANES); break;
            CASE(F32) CASE(F16) CASE(BF16) CASE(Q8_0) CASE(Q4_0) CASE(Q4_1)
#undef CASE
        }
        for (int i = k; i < end; i++) out[i] = panel[(i - k) * LANES + lane];
    }
}
