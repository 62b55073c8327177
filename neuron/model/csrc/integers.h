/* Products of a prompt's many rows with quantised weights, in 16-bit integers.
 *
 * The numbers of a row are rounded to 16 bits in the groups of the weights, each with a scale of its own: off by at most
 * 1/65534 of the largest of a group. Pairs of them are multiplied with pairs of weights and summed exactly, at twice
 * the pace of float32, by processors that have the instruction (VNNI); what a group sums to is scaled in float32.
 */
#pragma once

#include "matrix.h"

#if W == 16
#define HAS_PAIRS __builtin_cpu_supports("avx512vnni")
#define WITH_PAIRS __attribute__((target("avx512vnni")))
#define DOT_PAIRS(sums, a, b) ((vi)_mm512_dpwssd_epi32((__m512i)(sums), (__m512i)(a), (__m512i)(b)))
#elif W == 8 && (__GNUC__ >= 11 || __clang_major__ >= 12)
#define HAS_PAIRS has_avx_vnni()
#define WITH_PAIRS __attribute__((target("avxvnni")))
#define DOT_PAIRS(sums, a, b) ((vi)_mm256_dpwssd_avx_epi32((__m256i)(sums), (__m256i)(a), (__m256i)(b)))
#include <cpuid.h>
static int has_avx_vnni(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}
#else
#define HAS_PAIRS 0
#define WITH_PAIRS
#define DOT_PAIRS(sums, a, b) ((void)(a), (void)(b), (sums))
#endif

typedef int16_t vs __attribute__((vector_size(4 * W)));

#define PAIRS (GROUP / 2) /* of a group: input i and input i + PAIRS, as the four-bit formats store them */
#define PAIRED_ROWS (W == 16 ? 6 : 3) /* rows that are computed at a time */
#define MOST_GROUPS (PANEL_INPUTS / GROUP)

/* Rows of a product's input, rounded, PAIRED_ROWS of them side by side. */
typedef struct {
    int n_groups;
    int32_t *values;      /* [blocks of rows, n_groups, PAIRS, PAIRED_ROWS]: the first of a pair in the low half */
    float *scales, *sums; /* [blocks of rows, n_groups, PAIRED_ROWS]; the sums are of the numbers as they were */
} Rounded;

/* Weights of some groups of a strip. */
typedef struct {
    int32_t values[MOST_GROUPS * PAIRS * STRIP];
    float scales[MOST_GROUPS * STRIP], minima[MOST_GROUPS * STRIP];
} Pairs;

static int rounds; /* whether rows of a prompt are rounded: where the processor can, unless it is turned off */

__attribute__((constructor)) static void find_pairs(void) { rounds = !!HAS_PAIRS; }

static int in_pairs(const Matrix *m, int rounding) { return rounding && m->format > BF16; }

INLINE vi pair(vi low, vi high) { return (low & 0xffff) | high << 16; }

/* Round one row; a group that holds something that is no number is none. */
static void round_row(const float *x, const Rounded *to, int64_t row) {
    int64_t first = row / PAIRED_ROWS * to->n_groups;
    for (int64_t g = first; g < first + to->n_groups; g++, x += GROUP) {
        vf most = vset(0), sum = vset(0);
        for (int i = 0; i < GROUP; i += W) {
            most = vmax(most, vmax(vload(x + i), -vload(x + i)));
            sum += vload(x + i);
        }
        float largest = vmost(most), total = vsum(sum);
        int64_t at = g * PAIRED_ROWS + row % PAIRED_ROWS;
        to->sums[at] = total;
        to->scales[at] = isfinite(total) ? largest / 32767 : NAN;
        vf scale = vset(largest > 0 ? 32767 / largest : 0);
        int32_t *values = to->values + g * PAIRS * PAIRED_ROWS + row % PAIRED_ROWS;
        for (int i = 0; i < PAIRS; i += W) {
            vi both = pair(to_integers(vload(x + i) * scale), to_integers(vload(x + i + PAIRS) * scale));
            for (int l = 0; l < W; l++) values[(i + l) * PAIRED_ROWS] = both[l];
        }
    }
}

/* Groups of a tile, whose lanes come `at` in the strip. */
INLINE void unpack_pairs(const int format, const uint8_t *group, int n_groups, Pairs *to, int at) {
    for (int g = 0; g < n_groups; g++, group += GROUP_BYTES[format] * LANES) {
        const uint8_t *values = group + (format == Q4_1 ? 4 : 2) * LANES;
        vstore(to->scales + g * STRIP + at, load_split_f16(group));
        if (format == Q4_1) vstore(to->minima + g * STRIP + at, load_split_f16(group + 2 * LANES));
        for (int i = 0; i < PAIRS; i++) {
            vi both;
            if (format == Q8_0) {
                both = pair(load_s8(values + i * LANES), load_s8(values + (i + PAIRS) * LANES));
            } else {
                vi bytes = load_u8(values + i * LANES);
                both = (bytes | bytes << 12) & 0x000f000f;
                if (format == Q4_0) both = (vi)((vs)both - 8);
            }
            memcpy(to->values + (g * PAIRS + i) * STRIP + at, &both, sizeof both);
        }
    }
}

static void unpack_strip(const Matrix *m, int first_tile, int n_tiles, int group, int n_groups, Pairs *to) {
    for (int t = 0; t < n_tiles; t++)
        for (int lane = 0; lane < LANES; lane += W) {
            const uint8_t *data = tile_at(m, first_tile + t) + (int64_t)group * GROUP_BYTES[m->format] * LANES + lane;
            if (m->format == Q8_0) unpack_pairs(Q8_0, data, n_groups, to, t * LANES + lane);
            if (m->format == Q4_0) unpack_pairs(Q4_0, data, n_groups, to, t * LANES + lane);
            if (m->format == Q4_1) unpack_pairs(Q4_1, data, n_groups, to, t * LANES + lane);
        }
}

/* y[r] (+)= weights of some groups, whose lanes are those from `at` on, times one block of rows; the first n are stored. */
INLINE WITH_PAIRS void paired_rows(
    const int has_minima, const Pairs *w, int n_groups, int at, const int32_t *values, const float *scales,
    const float *sums, float *y, int n, int add
) {
    vf total[PAIRED_ROWS][STRIP_VECTORS];
    for (int r = 0; r < PAIRED_ROWS; r++)
        for (int v = 0; v < STRIP_VECTORS; v++) total[r][v] = add && r < n ? vload(y + r * STRIP + v * W) : vset(0);
    for (int g = 0; g < n_groups; g++, scales += PAIRED_ROWS, sums += PAIRED_ROWS) {
        const int32_t *weights = w->values + g * PAIRS * STRIP + at;
        vi whole[PAIRED_ROWS][STRIP_VECTORS];
        for (int r = 0; r < PAIRED_ROWS; r++)
            for (int v = 0; v < STRIP_VECTORS; v++) whole[r][v] = (vi){0};
        for (int i = 0; i < PAIRS; i++, weights += STRIP, values += PAIRED_ROWS) {
            vi ws[STRIP_VECTORS];
            memcpy(ws, weights, sizeof ws);
            for (int r = 0; r < PAIRED_ROWS; r++) {
                vi one = (vi){0} + values[r];
                for (int v = 0; v < STRIP_VECTORS; v++) whole[r][v] = DOT_PAIRS(whole[r][v], ws[v], one);
            }
        }
        for (int v = 0; v < STRIP_VECTORS; v++) {
            vf scale = vload(w->scales + g * STRIP + at + v * W);
            vf minimum = has_minima ? vload(w->minima + g * STRIP + at + v * W) : vset(0);
            for (int r = 0; r < PAIRED_ROWS; r++) {
                total[r][v] += to_floats(whole[r][v]) * scale * vset(scales[r]);
                if (has_minima) total[r][v] += minimum * vset(sums[r]);
            }
        }
    }
    for (int r = 0; r < n; r++)
        for (int v = 0; v < STRIP_VECTORS; v++) vstore(y + r * STRIP + v * W, total[r][v]);
}

WITH_PAIRS static void block_times_pairs(
    int has_minima, const Pairs *w, int n_groups, int at, const Rounded *x, int64_t group, float *y, int n, int add
) {
    const int32_t *values = x->values + group * PAIRS * PAIRED_ROWS;
    const float *scales = x->scales + group * PAIRED_ROWS, *sums = x->sums + group * PAIRED_ROWS;
    if (has_minima) paired_rows(1, w, n_groups, at, values, scales, sums, y, n, add);
    else paired_rows(0, w, n_groups, at, values, scales, sums, y, n, add);
}

/* y [rows][STRIP] = the outputs of one strip for rows from `row` on, which begins a block, without bias. */
static void strip_times_rounded(const Matrix *m, int strip, const Rounded *x, int64_t row, int rows, float *y) {
    Pairs w __attribute__((aligned(64)));
    int first = strip * 2, n_tiles = (m->n_out + LANES - 1) / LANES - first >= 2 ? 2 : 1;
    for (int group = 0; group < x->n_groups; group += MOST_GROUPS) {
        int n_groups = x->n_groups - group < MOST_GROUPS ? x->n_groups - group : MOST_GROUPS;
        unpack_strip(m, first, n_tiles, group, n_groups, &w);
        for (int at = 0; at < n_tiles * LANES; at += STRIP_VECTORS * W)
            for (int r = 0; r < rows; r += PAIRED_ROWS) {
                int n = rows - r < PAIRED_ROWS ? rows - r : PAIRED_ROWS;
                int64_t from = (row + r) / PAIRED_ROWS * x->n_groups + group;
                block_times_pairs(m->format == Q4_1, &w, n_groups, at, x, from, y + r * STRIP + at, n, group > 0);
            }
    }
}

static int64_t rounded_numbers(int64_t rows, int n_in) {
    return (rows + PAIRED_ROWS - 1) / PAIRED_ROWS * PAIRED_ROWS * (n_in / GROUP);
}

/* Bytes of so many rounded rows. */
static size_t rounded_bytes(int64_t rows, int n_in) { return rounded_numbers(rows, n_in) * (PAIRS + 2) * 4; }

/* Rounded rows in memory of the caller's, which is zero at first. */
static Rounded rounded_in(void *memory, int64_t rows, int n_in) {
    int64_t n = rounded_numbers(rows, n_in);
    int32_t *values = memory;
    float *scales = (float *)(values + n * PAIRS);
    return (Rounded){n_in / GROUP, values, scales, scales + n};
}
