/* The next token out of scores: the likeliest, or one drawn by a race of exponential clocks (docs/adr/0009).
 *
 * The clock of an id depends on the seed, on how often was drawn with it and on the id alone, so what becomes of the other
 * ids does not change it.
 */
#pragma once

#include <stdlib.h>

#include "pool.h"
#include "vectors.h"

typedef struct {
    float temperature, top_p, min_p;
    int32_t top_k; /* 0: all */
    uint64_t seed, count;
} Draw;

typedef struct {
    float ratio; /* to the likeliest's probability */
    int32_t id;
} Candidate;

#define DRAW_BLOCK 256

/* Natural logarithm of a positive normal number, within 2 units in the last place. */
static float log_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t exponent = (int32_t)(bits >> 23) - 127;
    bits = (bits & 0x7fffff) | 0x3f800000;
    float m, z, y;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.41421356f) m *= 0.5f, exponent++;
    m -= 1;
    z = m * m;
    y = 7.0376836e-2f;
    y = y * m - 1.1514610e-1f;
    y = y * m + 1.1676998e-1f;
    y = y * m - 1.2420140e-1f;
    y = y * m + 1.4249322e-1f;
    y = y * m - 1.6668057e-1f;
    y = y * m + 2.0000714e-1f;
    y = y * m - 2.4999993e-1f;
    y = y * m + 3.3333331e-1f;
    y = y * m * z - 2.12194440e-4f * (float)exponent - 0.5f * z;
    return m + y + 0.693359375f * (float)exponent;
}

INLINE uint32_t mixed(uint32_t x) { /* the finaliser of MurmurHash3 */
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ x >> 16;
}

INLINE uint64_t mixed_64(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* From Exp(1), for the ids from `first` on. */
static void clocks(const Draw *d, int32_t first, int n, float *out) {
    uint64_t key = mixed_64(mixed_64(d->seed) ^ d->count);
    uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);
    for (int i = 0; i < n; i++) {
        uint32_t bits = mixed(mixed((uint32_t)(first + i) ^ low) + high);
        out[i] = -log_of(((float)(bits >> 8) + 0.5f) * 0x1p-24f);
    }
}

static float largest(const float *x, int64_t n) {
    vf most = vset(-INFINITY);
    int64_t i = 0;
    for (; i + W <= n; i += W) most = vmax(most, vload(x + i));
    float each[W], out = -INFINITY;
    vstore(each, most);
    for (int l = 0; l < W; l++) out = each[l] > out ? each[l] : out;
    for (; i < n; i++) out = x[i] > out ? x[i] : out;
    return out;
}

static int64_t first_of(const float *x, float value) {
    int64_t i = 0;
    while (x[i] != value) i++;
    return i;
}

/* exp((x - most) / temperature) of a block; behind its end nothing. */
static void ratios(const float *x, int n, float most, float temperature, float *out) {
    float padded[DRAW_BLOCK];
    for (int i = 0; i < n; i++) padded[i] = (x[i] - most) / temperature;
    for (int i = n; i < DRAW_BLOCK; i++) padded[i] = -INFINITY;
    for (int i = 0; i < DRAW_BLOCK; i += W) vstore(out + i, vexp(vload(padded + i)));
    for (int i = 0; i < n; i++)
        if (padded[i] < -87) out[i] = 0;
}

/* Every id runs. */
static int64_t race_of_all(const float *x, int64_t n, const Draw *d, float most) {
    float p[DRAW_BLOCK], clock[DRAW_BLOCK], best = -1;
    int64_t winner = 0;
    for (int64_t at = 0; at < n; at += DRAW_BLOCK) {
        int some = n - at < DRAW_BLOCK ? (int)(n - at) : DRAW_BLOCK;
        ratios(x + at, some, most, d->temperature, p);
        clocks(d, (int32_t)at, some, clock);
        for (int i = 0; i < some; i++) {
            float speed = p[i] >= d->min_p ? p[i] / clock[i] : 0;
            if (speed > best) best = speed, winner = at + i;
        }
    }
    return winner;
}

static int better_first(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->ratio != y->ratio) return x->ratio < y->ratio ? 1 : -1;
    return x->id - y->id;
}

/* Ids whose ratio is at least `least`, best first; their number. */
static int64_t candidates(const float *x, int64_t n, const Draw *d, float most, float least, Candidate *out) {
    float p[DRAW_BLOCK];
    int64_t found = 0;
    for (int64_t at = 0; at < n; at += DRAW_BLOCK) {
        int some = n - at < DRAW_BLOCK ? (int)(n - at) : DRAW_BLOCK;
        ratios(x + at, some, most, d->temperature, p);
        for (int i = 0; i < some; i++)
            if (p[i] >= least) out[found++] = (Candidate){p[i], (int32_t)(at + i)};
    }
    qsort(out, (size_t)found, sizeof *out, better_first);
    return found;
}

static double sum_of_ratios(const float *x, int64_t n, const Draw *d, float most) {
    float p[DRAW_BLOCK];
    double sum = 0;
    for (int64_t at = 0; at < n; at += DRAW_BLOCK) {
        vf part = vset(0);
        ratios(x + at, n - at < DRAW_BLOCK ? (int)(n - at) : DRAW_BLOCK, most, d->temperature, p);
        for (int i = 0; i < DRAW_BLOCK; i += W) part += vload(p + i);
        sum += vsum(part);
    }
    return sum;
}

/* How many of the sorted candidates top-k and top-p leave; -1: more candidates are needed to know. */
static int64_t kept(const Candidate *c, int64_t found, int64_t n, const Draw *d, double all) {
    int64_t most = d->top_k && d->top_k < n ? d->top_k : n;
    if (most < n && found < most) return -1;
    if (d->top_p >= 1) return most < found ? most : found < n ? -1 : found;
    double whole = all, before = 0;
    if (most < n) {
        whole = 0;
        for (int64_t i = 0; i < most; i++) whole += c[i].ratio;
    }
    for (int64_t i = 0; i < found && i < most; i++) {
        if (before >= d->top_p * whole && i > 0) return i;
        before += c[i].ratio;
    }
    return found >= most || found == n || before >= d->top_p * whole ? (found < most ? found : most) : -1;
}

static int64_t draw_one(const float *x, int64_t n, const Draw *d, Candidate *c) {
    float most = largest(x, n), clock;
    int64_t left = -1, found = 0, winner = 0;
    if (d->temperature < 1e-30f) return first_of(x, most);
    if (d->top_p >= 1 && (!d->top_k || d->top_k >= n)) return race_of_all(x, n, d, most);
    double all = d->top_p < 1 && (!d->top_k || d->top_k >= n) ? sum_of_ratios(x, n, d, most) : 0;
    for (float least = 1e-3f; left < 0; least = least > 1e-30f ? least * least : 0) {
        found = candidates(x, n, d, most, least, c);
        left = least == 0 && kept(c, found, n, d, all) < 0 ? found : kept(c, found, n, d, all);
    }
    float best = -1;
    for (int64_t i = 0; i < left; i++) {
        if (c[i].ratio < d->min_p) break;
        clocks(d, c[i].id, 1, &clock);
        if (c[i].ratio / clock > best) best = c[i].ratio / clock, winner = c[i].id;
    }
    return winner;
}

typedef struct {
    const float *scores;
    const Draw *draws;
    Candidate *candidates; /* [rows, n] */
    int64_t rows, n, *ids;
    Phase phase;
} Draws;

static void run_draws(void *what, int thread) {
    Draws *s = what;
    for (Pieces its = pieces(&s->phase, (int)s->rows); more(&its);) {
        int64_t r = its.piece;
        s->ids[r] = draw_one(s->scores + r * s->n, s->n, s->draws + r, s->candidates + r * s->n);
    }
    (void)thread;
}

/* An id for each row of scores [rows, n]; -1 without memory. */
int neuron_draw(const float *scores, int64_t rows, int64_t n, const Draw *draws, int64_t *ids, int threads) {
    Draws s = {.scores = scores, .draws = draws, .rows = rows, .n = n, .ids = ids};
    s.candidates = malloc((size_t)(rows * n) * sizeof *s.candidates);
    if (!s.candidates) return -1;
    run(run_draws, &s, rows < threads ? (int)rows : threads);
    free(s.candidates);
    return 0;
}

/* Where the largest number of each row is first; -1 where one is not finite. */
void neuron_best(const float *x, int64_t rows, int64_t n, int64_t *where) {
    for (int64_t r = 0; r < rows; r++) {
        const float *row = x + r * n;
        float most = largest(row, n), nothing;
        vf odd = vset(0);
        int64_t i = 0;
        for (; i + W <= n; i += W) odd += vload(row + i) * vset(0); /* NaN from the first that is not finite */
        for (nothing = vsum(odd); i < n; i++) nothing += row[i] * 0;
        where[r] = nothing == 0 ? first_of(row, most) : -1;
    }
}
