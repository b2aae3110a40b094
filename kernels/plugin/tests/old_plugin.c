/* A library built with version 1 of the interface: two kernels, so that the length of a description matters. */
#include "kdacheck_plugin_1.h"

#include <string.h>

/* beta v in o and nothing in the state: enough to see that calls arrive. */
static int forward(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  (void)workspace, (void)bytes, (void)why, (void)why_size;
  for (int64_t i = 0; i < in->B * in->T * in->HV; ++i)
    for (int64_t j = 0; j < in->V; ++j)
      ((float*)out->o.data)[i * in->V + j] = ((const float*)in->beta.data)[i] * ((const float*)in->v.data)[i * in->V + j];
  if (out->final_state.data) memset(out->final_state.data, 0, (size_t)(in->N * in->HV * in->K * in->V) * sizeof(float));
  return 0;
}

static int refuses(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  (void)in, (void)out, (void)workspace, (void)bytes;
  strncpy(why, "as in the old days", why_size - 1);
  return 1;
}

const kdacheck_library* kdacheck_plugin(uint32_t version) {
  static const kdacheck_kernel kernels[] = {{"old.first", "", "chunk=1", 0, forward, 0}, {"old.second", "", "chunk=1", 0, refuses, 0}};
  static const kdacheck_library library = {KDACHECK_PLUGIN_VERSION, 2, kernels};
  return version == KDACHECK_PLUGIN_VERSION ? &library : NULL;
}
