/* What is done to one row by itself. */
#pragma once

#include "vectors.h"

enum { SILU, GELU, GELU_TANH, RELU };

INLINE float dot(const float *a, const float *b, int n) {
    vf sum = vset(0);
    float rest = 0;
    int i = 0;
    for (; i + W <= n; i += W) sum += vload(a + i) * vload(b + i);
    for (; i < n; i++) rest += a[i] * b[i];
    return vsum(sum) + rest;
}

static void rms_norm(const float *x, const float *weight, int n, float eps, float *out) {
    float scale = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    for (int i = 0; i < n; i++) out[i] = x[i] * scale * weight[i];
}

static void rotate(float *x, const float *cos, const float *sin, int half) {
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

/* gate = activation(gate) * up, n a multiple of W. */
static void gated(int activation, float *gate, const float *up, int n) {
    if (activation == SILU) {
        for (int i = 0; i < n; i += W) {
            vf g = vload(gate + i);
            vstore(gate + i, g / (vset(1) + vexp(-g)) * vload(up + i));
        }
        return;
    }
    for (int i = 0; i < n; i++) {
        float g = gate[i];
        if (activation == RELU) g = g > 0 ? g : 0;
        if (activation == GELU) g = 0.5f * g * (1 + erff(g * 0.70710678f));
        if (activation == GELU_TANH) g = 0.5f * g * (1 + tanhf(0.79788456f * (g + 0.044715f * g * g * g)));
        gate[i] = g * up[i];
    }
}
