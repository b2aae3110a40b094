/* Kernels that keep to the domain they declare, compute more than it, or refuse all of it. */
#define kdacheck_plugin example_library
#include "../example_plugin.c"
#undef kdacheck_plugin

static int strict(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  if (in->HV % in->H != 0 || in->cu_seqlens || in->gate != KDACHECK_GATE_LOG_DECAY || in->scale != (float)(1 / sqrt((double)in->K))) {
    strncpy(why, "not what the contract says", why_size - 1);
    return 1;
  }
  return forward(in, out, workspace, bytes, why, why_size);
}

static int lax(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  kdacheck_inputs plain = *in;
  plain.l2norm = 0, plain.beta_form = KDACHECK_BETA_VALUE;
  if (in->HV % in->H != 0) return strict(in, out, workspace, bytes, why, why_size);
  return forward(&plain, out, workspace, bytes, why, why_size);
}

static int shy(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  (void)in, (void)out, (void)workspace, (void)bytes;
  strncpy(why, "not on a Monday", why_size - 1);
  return 1;
}

#define CONTRACT "order=recurrence chunk=1 gates=log_decay beta_max=2 packed=no scale=rsqrt_K"
#define KERNEL(label, function)                                                                                                            \
  { .name = label, .summary = "", .contract = CONTRACT, .workspace_bytes = workspace_bytes, .forward = function }

const kdacheck_library* kdacheck_plugin(uint32_t version) {
  static const kdacheck_kernel kernels[] = {KERNEL("negotiating.strict", strict), KERNEL("negotiating.lax", lax),
                                            KERNEL("negotiating.shy", shy)};
  static const kdacheck_library library = {KDACHECK_PLUGIN_VERSION, sizeof kernels / sizeof *kernels, kernels};
  (void)example_library;
  return version == KDACHECK_PLUGIN_VERSION ? &library : NULL;
}
