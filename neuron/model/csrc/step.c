/* One step of a decoder on the processor: few rows, each a new token of some sequence at its own position.
 *
 * The same function as the torch code of this package (decoder.py, attention.py, mlp.py), in float32. Each layer is
 * a handful of phases; within one the threads take pieces of work, between two they meet.
 */
#include <stdlib.h>

#include "draw.h"
#include "integers.h"
#include "matrix.h"
#include "pool.h"
#include "product.h"
#include "prompt.h"
#include "rows.h"

#define CHUNK_KEYS 256 /* of one piece of attention; a multiple of W */
#define MANY_QUERIES 24 /* of a key head: for so many it pays to compute a strip of them side by side */

typedef struct {
    Matrix q, k, v, o, gate, up, down;
    const float *attention_norm, *mlp_norm, *q_norm, *k_norm; /* the last two may be null */
    int32_t rope, window;                                     /* -1: none; 0: all keys */
} Layer;

typedef struct {
    int32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, inner, activation, n_ropes;
    float norm_eps;
    const int32_t *rope_halves; /* [n_ropes]: half of the rotated part of a head */
    const Layer *layers;
    const float *norm;
    Matrix embedding, head;
} Model;

typedef struct {
    int32_t n_rows, n_logits, n_threads, most_keys, n_exact; /* behind so many rows they may be rounded: integers.h */
    const int64_t *tokens, *positions; /* [n_rows] */
    float *const *caches;              /* [n_rows]: [layers, 2, kv heads, capacity, head_dim] of its sequence */
    const int64_t *capacities;         /* [n_rows], in tokens */
    const float *const *cos, *const *sin; /* [n_ropes] of [positions, half] */
    const int64_t *logit_rows;         /* [n_logits] */
    float *logits;                     /* [n_logits, vocabulary] */
} Batch;

/* Rows that follow each other in one sequence, and the parts that their attention is computed in. */
typedef struct {
    int32_t first, n, is_long, first_part, n_parts;
} Run;

typedef struct {
    const Model *m;
    const Batch *b;
    float *x, *q, *k, *v, *heads, *h, *partial, *stats, *normed; /* see `carve` */
    Phase *phases;
    int n_chunks, n_runs, has_long, rounding;
    Run *runs;
    void *rounded; /* the other rows of what is multiplied */
} Step;

typedef struct {
    const Step *s;
    int thread, phase;
} Here;

/* ---- phases */

static Phase *next_phase(Here *here) { return &here->s->phases[here->phase++]; }

static float *norm_rows(const Here *here, const float *weight) {
    const Step *s = here->s;
    int n = s->m->hidden;
    float *out = s->normed + (int64_t)here->thread * s->b->n_rows * n;
    for (int r = 0; r < s->b->n_rows; r++) rms_norm(s->x + r * n, weight, n, s->m->norm_eps, out + r * n);
    return out;
}

static void put(const Matrix *m, int strip, int rows, const float *from, float *y, int add) {
    int first = strip * STRIP, n = m->n_out - first < STRIP ? m->n_out - first : STRIP;
    for (int r = 0; r < rows; r++) {
        float *to = y + (int64_t)r * m->n_out + first;
        for (int i = 0; i < n; i++) {
            float value = from[r * STRIP + i] + (m->bias ? m->bias[first + i] : 0);
            to[i] = add ? to[i] + value : value;
        }
    }
}

/* Rows that are multiplied with matrices of quantised weights in float32 up to `n_exact`, rounded behind it. */
typedef struct {
    const float *x, *sums; /* [rows, n_in], [rows, n_in / GROUP] */
    int rows, n_in, n_exact;
    Rounded rounded;
} Input;

/* The input of products; its sums are put into memory of the caller's. */
static Input input_of(
    Here *here, const Matrix *const *matrices, int n_matrices, const float *x, int rows, int n_exact, float *sums
) {
    int n_in = matrices[0]->n_in, any = 0;
    for (int i = 0; i < n_matrices; i++) any |= in_pairs(matrices[i], here->s->rounding);
    if (!any) n_exact = rows;
    Input in = {x, sums, rows, n_in, n_exact, rounded_in(here->s->rounded, rows - n_exact, n_in)};
    sum_groups(x, rows, n_in, sums);
    if (n_exact < rows)
        for (Pieces its = pieces(next_phase(here), rows - n_exact); more(&its);)
            round_row(x + (int64_t)(n_exact + its.piece) * n_in, &in.rounded, its.piece);
    return in;
}

/* y [rows][STRIP] = the outputs of one strip, without bias. */
static void strip_times(const Step *s, const Matrix *m, int strip, const Input *in, float *y) {
    int n = in_pairs(m, s->rounding) ? in->n_exact : in->rows;
    if (n) strip_times_rows(m, strip, n, in->x, in->n_in, in->sums, y);
    if (n < in->rows) strip_times_rounded(m, strip, &in->rounded, 0, in->rows - n, y + n * STRIP);
}

/* y[i] (+)= x times the i-th matrix, for matrices that share their input. */
static void products(
    Here *here, const Matrix *const *matrices, float *const *y, int n_matrices, const float *x, int rows, int n_exact,
    int add
) {
    int n_pieces = 0;
    float out[rows * STRIP], x_sums[rows * (matrices[0]->n_in / GROUP) + 1];
    Input in = input_of(here, matrices, n_matrices, x, rows, n_exact, x_sums);
    for (int i = 0; i < n_matrices; i++) n_pieces += n_strips(matrices[i]);
    for (Pieces its = pieces(next_phase(here), n_pieces); more(&its);) {
        int piece = its.piece;
        int strip = piece, i = 0;
        while (strip >= n_strips(matrices[i])) strip -= n_strips(matrices[i++]);
        strip_times(here->s, matrices[i], strip, &in, out);
        put(matrices[i], strip, rows, out, y[i], add);
    }
}

/* h = activation(gate) * up */
static void gate_and_up(Here *here, const Layer *layer, const float *x) {
    const Step *s = here->s;
    const Matrix *gate = &layer->gate, *up = &layer->up;
    Matrix bare_gate = *gate;
    bare_gate.bias = 0;
    int rows = s->b->n_rows;
    float g[rows * STRIP], u[rows * STRIP], x_sums[rows * (gate->n_in / GROUP) + 1];
    Input in = input_of(here, (const Matrix *[]){gate, up}, 2, x, rows, s->b->n_exact, x_sums);
    for (Pieces its = pieces(next_phase(here), n_strips(gate)); more(&its);) {
        int strip = its.piece;
        strip_times(s, gate, strip, &in, g);
        strip_times(s, up, strip, &in, u);
        int at = strip * STRIP, n = gate->n_out - at < STRIP ? gate->n_out - at : STRIP;
        for (int r = 0; r < rows; r++) {
            for (int i = 0; i < n; i++) {
                if (gate->bias) g[r * STRIP + i] += gate->bias[at + i];
                if (up->bias) u[r * STRIP + i] += up->bias[at + i];
            }
            for (int i = n; i < STRIP; i++) g[r * STRIP + i] = u[r * STRIP + i] = 0;
        }
        gated(s->m->activation, g, u, rows * STRIP);
        put(&bare_gate, strip, rows, g, s->h, 0);
    }
}

/* Norm and rotate the heads of each row, and write keys and values into the caches. */
static void fill_caches(Here *here, const Layer *layer, int index) {
    const Step *s = here->s;
    const Model *m = s->m;
    const Batch *b = s->b;
    int d = m->head_dim, n_heads = m->n_heads, n_kv = m->n_kv_heads;
    for (Pieces its = pieces(next_phase(here), b->n_rows * (n_heads + n_kv)); more(&its);) {
        int piece = its.piece;
        int row = piece / (n_heads + n_kv), head = piece % (n_heads + n_kv), kv = head - n_heads;
        float *x = kv < 0 ? s->q + (row * n_heads + head) * d : s->k + (row * n_kv + kv) * d;
        const float *norm = kv < 0 ? layer->q_norm : layer->k_norm;
        if (norm) rms_norm(x, norm, d, m->norm_eps, x);
        if (layer->rope >= 0) {
            int64_t half = m->rope_halves[layer->rope], at = b->positions[row] * half;
            rotate(x, b->cos[layer->rope] + at, b->sin[layer->rope] + at, (int)half);
        }
        if (kv < 0) continue;
        int64_t plane = b->capacities[row] * d;
        float *keys = b->caches[row] + ((int64_t)index * 2 * n_kv + kv) * plane + b->positions[row] * d;
        memcpy(keys, x, d * sizeof *x);
        memcpy(keys + n_kv * plane, s->v + (row * n_kv + kv) * d, d * sizeof *x);
    }
}

/* out[d] = sum over j of weights[j] * values[j][d] */
INLINE void weighted(const float *weights, const float *values, int n, int d, float *out) {
    int at = 0;
    for (; at + 4 * W <= d; at += 4 * W) {
        vf a = vset(0), b = a, c = a, e = a;
        for (int j = 0; j < n; j++) {
            vf w = vset(weights[j]);
            const float *v = values + (int64_t)j * d + at;
            a += w * vload(v);
            b += w * vload(v + W);
            c += w * vload(v + 2 * W);
            e += w * vload(v + 3 * W);
        }
        vstore(out + at, a);
        vstore(out + at + W, b);
        vstore(out + at + 2 * W, c);
        vstore(out + at + 3 * W, e);
    }
    for (; at + W <= d; at += W) {
        vf a = vset(0);
        for (int j = 0; j < n; j++) a += vset(weights[j]) * vload(values + (int64_t)j * d + at);
        vstore(out + at, a);
    }
    for (; at < d; at++) {
        float a = 0;
        for (int j = 0; j < n; j++) a += weights[j] * values[(int64_t)j * d + at];
        out[at] = a;
    }
}

/* A query head on the keys from `low` to `high` of a chunk: out [d] unscaled; stats: the largest score and the sum of the
 * weights.
 */
static void attend(
    const float *q, const float *keys, const float *values, int low, int high, int d, float *out, float *stats
) {
    float weights[CHUNK_KEYS + W], most = -INFINITY, scale = 1.0f / sqrtf((float)d);
    for (int j = low; j < high; j++) {
        weights[j] = dot(q, keys + (int64_t)j * d, d) * scale;
        most = weights[j] > most ? weights[j] : most;
    }
    for (int j = low / W * W; j < low; j++) weights[j] = -INFINITY;
    for (int j = high; j % W; j++) weights[j] = -INFINITY;
    vf sum = vset(0);
    for (int j = low / W * W; j < high; j += W) {
        vf w = vexp(vload(weights + j) - vset(most)); /* next to nothing where there is no key */
        sum += w;
        vstore(weights + j, w);
    }
    weighted(weights + low, values + (int64_t)low * d, high - low, d, out);
    stats[0] = most;
    stats[1] = vsum(sum);
}

static int first_key(const Layer *layer, int64_t position) {
    return layer->window && position >= layer->window ? (int)(position + 1 - layer->window) : 0;
}

/* The rows of a run on one chunk of the keys of one key head. */
static void attend_chunk(const Step *s, const Layer *layer, int index, const Run *run, int chunk, int kv) {
    const Model *m = s->m;
    const Batch *b = s->b;
    int d = m->head_dim, n_heads = m->n_heads, group = n_heads / m->n_kv_heads, start = chunk * CHUNK_KEYS;
    int64_t plane = b->capacities[run->first] * d;
    const float *keys = b->caches[run->first] + ((int64_t)index * 2 * m->n_kv_heads + kv) * plane + (int64_t)start * d;
    const float *values = keys + m->n_kv_heads * plane;
    for (int row = run->first; row < run->first + run->n; row++)
        for (int head = kv * group; head < (kv + 1) * group; head++) {
            int64_t position = b->positions[row], piece = ((int64_t)row * s->n_chunks + chunk) * n_heads + head;
            int low = first_key(layer, position) - start, high = (int)position + 1 - start;
            low = low > 0 ? low : 0;
            high = high < CHUNK_KEYS ? high : CHUNK_KEYS;
            float *stats = s->stats + 2 * piece;
            stats[1] = 0;
            if (low < high)
                attend(s->q + (row * n_heads + head) * d, keys, values, low, high, d, s->partial + piece * d, stats);
        }
}

/* The heads of a row are the weighted sum of its chunks. */
static void join_chunks(const Step *s, int row, int head) {
    int d = s->m->head_dim, n_heads = s->m->n_heads;
    float *out = s->heads + ((int64_t)row * n_heads + head) * d, most = -INFINITY, sum = 0;
    int64_t at = (int64_t)row * s->n_chunks * n_heads + head;
    for (int c = 0; c < s->n_chunks; c++) {
        const float *stats = s->stats + 2 * (at + c * n_heads);
        if (stats[1] > 0 && stats[0] > most) most = stats[0];
    }
    for (int i = 0; i < d; i++) out[i] = 0;
    for (int c = 0; c < s->n_chunks; c++) {
        const float *stats = s->stats + 2 * (at + c * n_heads);
        if (stats[1] == 0) continue;
        float weight = expf(stats[0] - most);
        const float *part = s->partial + (at + (int64_t)c * n_heads) * d;
        sum += weight * stats[1];
        for (int i = 0; i < d; i++) out[i] += weight * part[i];
    }
    for (int i = 0; i < d; i++) out[i] /= sum;
}

/* A strip of the queries of a run that has many, on all of their keys. */
static void attend_many(const Step *s, const Layer *layer, int index, const Run *run, int strip, int kv) {
    const Model *m = s->m;
    const Batch *b = s->b;
    int64_t ld = m->n_heads * m->head_dim, plane = b->capacities[run->first] * m->head_dim;
    const float *keys = b->caches[run->first] + (int64_t)index * 2 * m->n_kv_heads * plane;
    Attention a = {.q = s->q + run->first * ld, .keys = keys, .values = keys + m->n_kv_heads * plane,
                   .out = s->heads + run->first * ld, .ld_q = ld, .plane = plane, .n_rows = run->n,
                   .n_keys = b->positions[run->first + run->n - 1] + 1, .window = layer->window,
                   .n_heads = m->n_heads, .n_kv_heads = m->n_kv_heads, .head_dim = m->head_dim};
    attend_strip(&a, kv, (int64_t)strip * STRIP);
}

/* Runs of many queries strip by strip, the others chunk by chunk of their keys; then the chunks together. */
static void attention(Here *here, const Layer *layer, int index) {
    const Step *s = here->s;
    int n_heads = s->m->n_heads, n_kv = s->m->n_kv_heads;
    const Run *last = s->runs + s->n_runs - 1, *run = s->runs;
    Pieces its = (s->has_long ? long_pieces : pieces)(next_phase(here), (last->first_part + last->n_parts) * n_kv);
    while (more(&its)) {
        int part = its.piece / n_kv, kv = its.piece % n_kv;
        while (part < run->first_part) run--;
        while (part >= run->first_part + run->n_parts) run++;
        (run->is_long ? attend_many : attend_chunk)(s, layer, index, run, part - run->first_part, kv);
    }
    run = s->runs;
    for (Pieces its = pieces(next_phase(here), s->b->n_rows * n_heads); more(&its);) {
        int row = its.piece / n_heads;
        while (row < run->first) run--;
        while (row >= run->first + run->n) run++;
        if (!run->is_long) join_chunks(s, row, its.piece % n_heads);
    }
}

static void run_layer(Here *here, int index) {
    const Step *s = here->s;
    const Layer *layer = &s->m->layers[index];
    int rows = s->b->n_rows;
    const float *normed = norm_rows(here, layer->attention_norm);
    products(here, (const Matrix *[]){&layer->q, &layer->k, &layer->v}, (float *[]){s->q, s->k, s->v}, 3, normed,
             rows, s->b->n_exact, 0);
    fill_caches(here, layer, index);
    attention(here, layer, index);
    products(here, (const Matrix *[]){&layer->o}, (float *[]){s->x}, 1, s->heads, rows, s->b->n_exact, 1);
    gate_and_up(here, layer, norm_rows(here, layer->mlp_norm));
    products(here, (const Matrix *[]){&layer->down}, (float *[]){s->x}, 1, s->h, rows, s->b->n_exact, 1);
}

static void run_step(void *what, int thread) {
    const Step *s = what;
    const Model *m = s->m;
    const Batch *b = s->b;
    Here here = {s, thread, 0};
    for (Pieces its = pieces(next_phase(&here), b->n_rows); more(&its);)
        matrix_row(&m->embedding, (int)b->tokens[its.piece], s->x + (int64_t)its.piece * m->hidden);
    for (int i = 0; i < m->n_layers; i++) run_layer(&here, i);
    if (!b->n_logits) return;
    float *normed = s->normed + (int64_t)thread * b->n_rows * m->hidden;
    for (int i = 0; i < b->n_logits; i++)
        rms_norm(s->x + b->logit_rows[i] * m->hidden, m->norm, m->hidden, m->norm_eps, normed + i * m->hidden);
    products(&here, (const Matrix *[]){&m->head}, (float *[]){b->logits}, 1, normed, b->n_logits, b->n_logits, 0);
}

/* ---- what Python calls */

const int neuron_kernels_version = 6; /* as in native.py: another one is a build of other sources */

/* Most phases of a step: eleven a layer, where the inputs of its four products are rounded, and those around. */
static size_t n_phases(const Model *m) { return 11 * (size_t)m->n_layers + 2; }

static int widest_input(const Model *m) {
    int heads = m->n_heads * m->head_dim, most = m->hidden > heads ? m->hidden : heads;
    return most > m->inner ? most : m->inner;
}

/* Hand out scratch; with no memory yet, only count it. Returns bytes. */
static size_t carve(Step *s, char *memory) {
    const Model *m = s->m;
    const Batch *b = s->b;
    size_t rows = (size_t)b->n_rows, used = 0, heads = rows * m->n_heads * m->head_dim;
    size_t kv = rows * m->n_kv_heads * m->head_dim, parts = rows * s->n_chunks * m->n_heads;
    struct {
        void **at;
        size_t bytes;
    } parts_of[] = {
        {(void **)&s->phases, n_phases(m) * sizeof *s->phases},
        {(void **)&s->runs, rows * sizeof *s->runs},
        {(void **)&s->x, rows * m->hidden * 4},
        {(void **)&s->q, heads * 4},
        {(void **)&s->k, kv * 4},
        {(void **)&s->v, kv * 4},
        {(void **)&s->heads, heads * 4},
        {(void **)&s->h, rows * m->inner * 4},
        {(void **)&s->partial, parts * m->head_dim * 4},
        {(void **)&s->stats, parts * 2 * 4},
        {&s->rounded, rounded_bytes(b->n_rows, widest_input(m))},
        {(void **)&s->normed, b->n_threads * rows * m->hidden * 4},
    };
    for (size_t i = 0; i < sizeof parts_of / sizeof *parts_of; i++) {
        *parts_of[i].at = memory + used;
        used += (parts_of[i].bytes + 63) / 64 * 64;
    }
    return used;
}

static void find_runs(Step *s) {
    const Batch *b = s->b;
    for (int row = 0; row < b->n_rows; row++) {
        if (row && b->caches[row] == b->caches[row - 1])
            s->runs[s->n_runs - 1].n++;
        else
            s->runs[s->n_runs++] = (Run){.first = row, .n = 1};
    }
    for (int i = 0, n_parts = 0; i < s->n_runs; n_parts += s->runs[i++].n_parts) {
        Run *run = s->runs + i;
        int n_queries = run->n * (s->m->n_heads / s->m->n_kv_heads);
        run->is_long = n_queries >= MANY_QUERIES;
        s->has_long |= run->is_long;
        run->first_part = n_parts;
        run->n_parts = run->is_long ? (n_queries + STRIP - 1) / STRIP : s->n_chunks;
    }
}

/* Compute a batch; 0, or -1 without memory. */
int neuron_step(const Model *model, const Batch *batch) {
    Step s = {.m = model, .b = batch, .rounding = rounds, .n_chunks = (batch->most_keys + CHUNK_KEYS - 1) / CHUNK_KEYS};
    size_t bytes = carve(&s, 0);
    char *memory = aligned_alloc(64, bytes);
    if (!memory) return -1;
    carve(&s, memory);
    memset(s.phases, 0, n_phases(model) * sizeof *s.phases);
    memset(s.rounded, 0, rounded_bytes(batch->n_rows, widest_input(model)));
    find_runs(&s);
    run(run_step, &s, batch->n_threads);
    free(memory);
    return 0;
}
