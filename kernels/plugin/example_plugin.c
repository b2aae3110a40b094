/* An example plug-in, complete: the token recurrence in plain C. Build it and judge it:
 *   cc -O2 -shared -fPIC -ffp-contract=off -o libexample.so example_plugin.c -lm
 *   ./kdacheck verify --plugin ./libexample.so */
#include "kdacheck_plugin.h"

#include <math.h>
#include <string.h>

static const float* row(const kdacheck_tensor* x, int64_t b, int64_t t, int64_t h) {
  return (const float*)x->data + b * x->stride[0] + t * x->stride[1] + h * x->stride[2];
}

/* One token: S [K,V] is decayed, read with k, corrected, and read with q. `held` [V] is scratch. */
static void step(const kdacheck_inputs* in, int64_t b, int64_t t, int64_t head, float* S, float* held, float* o) {
  const int64_t K = in->K, V = in->V, key_head = head / (in->HV / in->H);
  const float *q = row(&in->q, b, t, key_head), *k = row(&in->k, b, t, key_head), *v = row(&in->v, b, t, head);
  const float* g = in->g.data ? row(&in->g, b, t, head) : NULL;
  const float beta = *row(&in->beta, b, t, head);
  for (int64_t j = 0; j < V; ++j) held[j] = 0;
  for (int64_t c = 0; c < K; ++c) {
    const float alpha = g ? expf(g[c]) : 1.0f;
    for (int64_t j = 0; j < V; ++j) held[j] += k[c] * (S[c * V + j] *= alpha);
  }
  for (int64_t j = 0; j < V; ++j) {
    held[j] = beta * (v[j] - held[j]);
    o[j] = 0;
  }
  for (int64_t c = 0; c < K; ++c)
    for (int64_t j = 0; j < V; ++j) o[j] += in->scale * q[c] * (S[c * V + j] += k[c] * held[j]);
}

static int forward(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  const int64_t size = in->K * in->V;
  float *S = workspace, *held = S + size;
  if (in->rule != KDACHECK_RULE_KDA || in->l2norm || in->beta_form != KDACHECK_BETA_VALUE) {
    strncpy(why, "only plain KDA with given decays, beta as a value and normalised keys", why_size - 1);
    return 1;
  }
  (void)bytes;
  for (int64_t n = 0; n < in->N; ++n)
    for (int64_t head = 0; head < in->HV; ++head) {
      const int64_t first = in->cu_seqlens ? in->cu_seqlens[n] : 0, last = in->cu_seqlens ? in->cu_seqlens[n + 1] : in->T;
      const int64_t b = in->cu_seqlens ? 0 : n, state = (n * in->HV + head) * size;
      if (in->initial_state.data)
        memcpy(S, (const float*)in->initial_state.data + state, (size_t)size * sizeof(float));
      else
        memset(S, 0, (size_t)size * sizeof(float));
      for (int64_t t = first; t < last; ++t) step(in, b, t, head, S, held, (float*)row(&out->o, b, t, head));
      if (out->final_state.data) memcpy((float*)out->final_state.data + state, S, (size_t)size * sizeof(float));
    }
  return 0;
}

static size_t workspace_bytes(const kdacheck_inputs* in, int backward) {
  (void)backward;
  return (size_t)((in->K + 1) * in->V) * sizeof(float);
}

const kdacheck_library* kdacheck_plugin(uint32_t version) {
  static const kdacheck_kernel kernels[] = {
      {.name = "example.recurrence",
       .summary = "token recurrence in plain C, fp32",
       .contract = "order=recurrence chunk=1 decode=1..4 gates=log_decay,absent beta_max=2 strided=yes validates=no",
       .workspace_bytes = workspace_bytes,
       .forward = forward,
       .decode = forward}}; /* it reads a head's state before it writes it: in place or not is all the same */
  static const kdacheck_library library = {KDACHECK_PLUGIN_VERSION, 1, kernels};
  return version == KDACHECK_PLUGIN_VERSION ? &library : NULL;
}
