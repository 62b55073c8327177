/* What a prompt's many rows need beside products: attention, norms, turns and gates, each on several threads. */
#pragma once

#include "matrix.h"
#include "pool.h"
#include "rows.h"

/* ---- attention of rows that follow each other, each on the keys up to its own
 *
 * STRIP queries of one key head lie side by side, so that a vector of queries meets one number of a key or a value, and
 * neither largest scores nor sums are taken across a vector. Keys come in blocks, whose scores stay in the first cache;
 * what was summed before is scaled down when a larger score comes (arXiv 1805.02867).
 */
#define BLOCK_KEYS 96

typedef struct {
    const float *q;             /* [n_rows, n_heads, head_dim], rows ld_q apart */
    const float *keys, *values; /* [n_kv_heads, n_keys, head_dim], heads `plane` apart; the last keys are the rows' own */
    float *out;                 /* [n_rows, n_heads, head_dim] */
    int64_t ld_q, plane, n_rows, n_keys, window; /* 0: all keys */
    int32_t n_heads, n_kv_heads, head_dim;
    Phase phase;
} Attention;

/* y [rows][STRIP] (+)= panel [n][STRIP] times rows of x. */
static void rows_times_strip(
    int rows, const float *panel, int n, const float *x, int64_t ldx, int64_t step, float *y, int add
) {
    for (int at = 0; at < STRIP; at += STRIP_VECTORS * W)
        for (int r = 0; r < rows; r += BLOCK_ROWS) {
            int some = rows - r < BLOCK_ROWS ? rows - r : BLOCK_ROWS;
            rows_times_panel(some, panel + at, n, x + r * ldx, ldx, step, y + r * STRIP + at, STRIP, add);
        }
}

/* Scores [n][STRIP] become weights; `most` and `total` go on with them, `sums` [d][STRIP] are scaled to the new largest. */
static void weigh(float *scores, int n, float *most, float *total, float *sums, int d) {
    for (int at = 0; at < STRIP; at += W) {
        vf before = vload(most + at), largest = before, sum;
        for (int j = 0; j < n; j++) largest = vmax(largest, vload(scores + j * STRIP + at));
        vf scale = vexp(before - largest);
        sum = vload(total + at) * scale;
        for (int j = 0; j < n; j++) {
            vf weight = vexp(vload(scores + j * STRIP + at) - largest); /* next to nothing where there is no key */
            vstore(scores + j * STRIP + at, weight);
            sum += weight;
        }
        for (int i = 0; i < d; i++) vstore(sums + i * STRIP + at, vload(sums + i * STRIP + at) * scale);
        vstore(most + at, largest);
        vstore(total + at, sum);
    }
}

/* Queries first, first + 1, … of a key head: those of its first row, of the next, … */
static void attend_strip(const Attention *a, int kv, int64_t first) {
    int d = a->head_dim, group = a->n_heads / a->n_kv_heads;
    int64_t left = a->n_rows * group - first;
    int n = left < STRIP ? (int)left : STRIP, low[STRIP], high[STRIP];
    float turned[d * STRIP] __attribute__((aligned(64))), sums[d * STRIP] __attribute__((aligned(64)));
    float scores[BLOCK_KEYS * STRIP] __attribute__((aligned(64))), most[STRIP], total[STRIP];
    float scale = 1.0f / sqrtf((float)d);
    for (int l = 0; l < STRIP; l++) {
        int64_t query = first + (l < n ? l : n - 1), row = query / group;
        const float *q = a->q + row * a->ld_q + (kv * group + query % group) * d;
        high[l] = (int)(a->n_keys - a->n_rows + row + 1);
        low[l] = a->window && high[l] > a->window ? (int)(high[l] - a->window) : 0;
        most[l] = -1e30f;
        total[l] = 0;
        for (int i = 0; i < d; i++) turned[i * STRIP + l] = q[i] * scale;
    }
    memset(sums, 0, d * STRIP * sizeof *sums);
    for (int at = low[0], end = high[STRIP - 1]; at < end; at += BLOCK_KEYS) {
        int n_keys = end - at < BLOCK_KEYS ? end - at : BLOCK_KEYS;
        int64_t from = kv * a->plane + (int64_t)at * d;
        rows_times_strip(n_keys, turned, d, a->keys + from, d, 1, scores, 0);
        if (at < low[STRIP - 1] || at + n_keys > high[0])
            for (int j = 0; j < n_keys; j++)
                for (int l = 0; l < STRIP; l++)
                    if (at + j < low[l] || at + j >= high[l]) scores[j * STRIP + l] = -INFINITY;
        weigh(scores, n_keys, most, total, sums, d);
        rows_times_strip(d, scores, n_keys, a->values + from, 1, d, sums, 1);
    }
    for (int l = 0; l < n; l++) {
        int64_t query = first + l;
        float *out = a->out + (query / group * a->n_heads + kv * group + query % group) * d;
        for (int i = 0; i < d; i++) out[i] = sums[i * STRIP + l] / total[l];
    }
}

static void run_attention(void *what, int thread) {
    Attention *a = what;
    int n_strips = (int)((a->n_rows * (a->n_heads / a->n_kv_heads) + STRIP - 1) / STRIP);
    for (Pieces its = long_pieces(&a->phase, n_strips * a->n_kv_heads); more(&its);)
        attend_strip(a, its.piece % a->n_kv_heads, (int64_t)(its.piece / a->n_kv_heads) * STRIP);
    (void)thread;
}

/* ---- row by row */

typedef struct {
    const float *x, *weight, *cos, *sin;
    float *out;
    int64_t ld, n_rows;
    int32_t n, n_heads, half, activation;
    float eps;
    Phase phase;
} Rows;

static void run_norm(void *what, int thread) {
    Rows *w = what;
    for (Pieces its = pieces(&w->phase, (int)w->n_rows); more(&its);)
        rms_norm(w->x + its.piece * w->ld, w->weight, w->n, w->eps, w->out + (int64_t)its.piece * w->n);
    (void)thread;
}

static void run_rotation(void *what, int thread) {
    Rows *w = what;
    for (Pieces its = pieces(&w->phase, (int)w->n_rows); more(&its);)
        for (int head = 0; head < w->n_heads; head++)
            rotate(w->out + its.piece * w->ld + head * w->n, w->cos + its.piece * w->half, w->sin + its.piece * w->half,
                   w->half);
    (void)thread;
}

static void run_gate(void *what, int thread) {
    Rows *w = what;
    int n = w->n, whole = n / W * W;
    for (Pieces its = pieces(&w->phase, (int)w->n_rows); more(&its);) {
        const float *gate = w->x + its.piece * w->ld;
        float *out = w->out + (int64_t)its.piece * n, rest[2][W] = {0};
        memcpy(out, gate, n * sizeof *out);
        gated(w->activation, out, gate + n, whole);
        memcpy(rest[0], gate + whole, (n - whole) * sizeof *out);
        memcpy(rest[1], gate + n + whole, (n - whole) * sizeof *out);
        gated(w->activation, rest[0], rest[1], W);
        memcpy(out + whole, rest[0], (n - whole) * sizeof *out);
    }
    (void)thread;
}

/* ---- what Python calls */

/* See `Attention`. */
void neuron_attend(
    const float *q, int64_t ld_q, const float *keys, const float *values, int64_t plane, int64_t n_rows, int64_t n_keys,
    int64_t window, int n_heads, int n_kv_heads, int head_dim, float *out, int threads
) {
    Attention a = {.q = q, .keys = keys, .values = values, .out = out, .ld_q = ld_q, .plane = plane, .n_rows = n_rows,
                   .n_keys = n_keys, .window = window, .n_heads = n_heads, .n_kv_heads = n_kv_heads,
                   .head_dim = head_dim};
    run(run_attention, &a, threads);
}

/* out [rows, n] = the RMS norm of x, whose rows are ld apart. */
void neuron_norm(const float *x, int64_t ld, int64_t n_rows, int n, const float *weight, float eps, float *out, int threads) {
    Rows w = {.x = x, .weight = weight, .out = out, .ld = ld, .n_rows = n_rows, .n = n, .eps = eps};
    run(run_norm, &w, threads);
}

/* Turn the first 2 * half numbers of each head [n_rows, n_heads, head_dim] in its place; cos, sin [n_rows, half]. */
void neuron_rotate(
    float *x, int64_t ld, int64_t n_rows, int n_heads, int head_dim, const float *cos, const float *sin, int half, int threads
) {
    Rows w = {.cos = cos, .sin = sin, .out = x, .ld = ld, .n_rows = n_rows, .n = head_dim, .n_heads = n_heads,
              .half = half};
    run(run_rotation, &w, threads);
}

/* out [n_rows, n] = activation(gate) * up; gate_up [n_rows, 2 * n]. */
void neuron_gate(const float *gate_up, int64_t n_rows, int n, int activation, float *out, int threads) {
    Rows w = {.x = gate_up, .out = out, .ld = 2 * (int64_t)n, .n_rows = n_rows, .n = n, .activation = activation};
    run(run_gate, &w, threads);
}
