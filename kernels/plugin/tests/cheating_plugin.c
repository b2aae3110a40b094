/* Kernels that compute the right thing once and cheat afterwards; `honest` does not. */
#define kdacheck_plugin example_library
#include "../example_plugin.c"
#undef kdacheck_plugin

#include <stdlib.h>

typedef struct {
  const void* key;
  int64_t B, T, HV, K, V, N;
  float *o, *final_state;
} answer;

static answer kept; /* a worker serves one call at a time */

static size_t size_of_o(const kdacheck_inputs* in) { return (size_t)(in->B * in->T * in->HV * in->V) * sizeof(float); }
static size_t size_of_state(const kdacheck_inputs* in) { return (size_t)(in->N * in->HV * in->K * in->V) * sizeof(float); }

static int fits(const kdacheck_inputs* in) {
  return kept.o && kept.B == in->B && kept.T == in->T && kept.HV == in->HV && kept.K == in->K && kept.V == in->V && kept.N == in->N;
}

static void keep(const kdacheck_inputs* in, const kdacheck_outputs* out) {
  free(kept.o), free(kept.final_state);
  kept = (answer){in->q.data, in->B, in->T, in->HV, in->K, in->V, in->N, malloc(size_of_o(in) + 1), malloc(size_of_state(in) + 1)};
  memcpy(kept.o, out->o.data, size_of_o(in));
  if (out->final_state.data) memcpy(kept.final_state, out->final_state.data, size_of_state(in));
}

static void hand_out(const kdacheck_inputs* in, const kdacheck_outputs* out) {
  memcpy(out->o.data, kept.o, size_of_o(in));
  if (out->final_state.data) memcpy(out->final_state.data, kept.final_state, size_of_state(in));
}

static int caches_by_pointer(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why,
                             size_t why_size) {
  if (fits(in) && kept.key == in->q.data && out->final_state.data) {
    hand_out(in, out);
    return 0;
  }
  const int status = forward(in, out, workspace, bytes, why, why_size);
  if (status == 0 && out->final_state.data) keep(in, out);
  return status;
}

/* Hands out what it computed for the case before. */
static int returns_the_last(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why,
                            size_t why_size) {
  const int status = forward(in, out, workspace, bytes, why, why_size);
  if (status != 0 || !out->final_state.data) return status;
  if (!fits(in)) {
    keep(in, out);
    return 0;
  }
  const answer before = kept;
  kept.o = kept.final_state = NULL;
  keep(in, out);
  const answer now = kept;
  kept = before;
  hand_out(in, out);
  free(before.o), free(before.final_state);
  kept = now;
  return 0;
}

static int changes_an_input(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why,
                            size_t why_size) {
  const int status = forward(in, out, workspace, bytes, why, why_size);
  if (in->T > 0) ((float*)in->v.data)[0] *= 2;
  return status;
}

/* o is right; what it leaves in the state's memory is what was there. */
static int writes_no_state(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why,
                           size_t why_size) {
  kdacheck_outputs only_o = *out;
  only_o.final_state.data = NULL;
  return forward(in, &only_o, workspace, bytes, why, why_size);
}

#define CONTRACT "order=recurrence chunk=1 gates=log_decay,absent beta_max=2 validates=no"
#define KERNEL(label, function)                                                                                                            \
  { .name = label, .summary = "", .contract = CONTRACT, .workspace_bytes = workspace_bytes, .forward = function }

const kdacheck_library* kdacheck_plugin(uint32_t version) {
  static const kdacheck_kernel kernels[] = {KERNEL("honest", forward), KERNEL("caches_by_pointer", caches_by_pointer),
                                            KERNEL("returns_the_last", returns_the_last), KERNEL("changes_an_input", changes_an_input),
                                            KERNEL("writes_no_state", writes_no_state)};
  static const kdacheck_library library = {KDACHECK_PLUGIN_VERSION, sizeof kernels / sizeof *kernels, kernels};
  (void)example_library;
  return version == KDACHECK_PLUGIN_VERSION ? &library : NULL;
}
