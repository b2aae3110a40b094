/* Kernels on the memory of a device, for a machine on which libfake_cudart stands in for the CUDA runtime: its device memory
 * can be read by the host, so that the example's recurrence serves. */
#define _GNU_SOURCE
#define kdacheck_plugin example_library
#include "../example_plugin.c"
#undef kdacheck_plugin

#include <stdio.h>
#include <stdlib.h>

static int wrong_place(const kdacheck_inputs* in, char* why, size_t why_size) {
  const char* trouble = in->memory != KDACHECK_DEVICE                                           ? "memory is not KDACHECK_DEVICE"
                        : !in->stream                                                           ? "there is no stream"
                        : !in->cu_seqlens != !in->cu_seqlens_host                               ? "only one of the lengths is there"
                        : in->cu_seqlens && in->cu_seqlens == in->cu_seqlens_host               ? "the lengths are not on the device"
                        : in->cu_seqlens && in->cu_seqlens[in->N] != in->cu_seqlens_host[in->N] ? "the lengths differ"
                                                                                                : NULL;
  if (trouble) snprintf(why, why_size, "%s", trouble);
  return trouble != NULL;
}

static int on_device(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why, size_t why_size) {
  return wrong_place(in, why, why_size) || forward(in, out, workspace, bytes, why, why_size);
}

static int writes_past_end(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why,
                           size_t why_size) {
  const int status = on_device(in, out, workspace, bytes, why, why_size);
  ((float*)out->o.data)[in->B * in->T * in->HV * in->V] = 1;
  return status;
}

/* As after an illegal access: every later call of the runtime reports it. */
static int breaks_the_device(const kdacheck_inputs* in, const kdacheck_outputs* out, void* workspace, size_t bytes, char* why,
                             size_t why_size) {
  setenv("KDACHECK_FAKE_CUDA_ERROR", "700", 1);
  return on_device(in, out, workspace, bytes, why, why_size);
}

#define CONTRACT "memory=device decode=1..4 order=recurrence chunk=1 gates=log_decay,absent beta_max=2 strided=yes validates=no"
#define KERNEL(label, function)                                                                                                            \
  { .name = label, .summary = "", .contract = CONTRACT, .workspace_bytes = workspace_bytes, .forward = function, .decode = function }

const kdacheck_library* kdacheck_plugin(uint32_t version) {
  static const kdacheck_kernel kernels[] = {KERNEL("device.recurrence", on_device), KERNEL("device.writes_past_end", writes_past_end),
                                            KERNEL("device.breaks_the_device", breaks_the_device)};
  static const kdacheck_library library = {KDACHECK_PLUGIN_VERSION, sizeof kernels / sizeof *kernels, kernels};
  (void)example_library;
  return version == KDACHECK_PLUGIN_VERSION ? &library : NULL;
}
