// The child process of a C plug-in: loads the library, answers calls laid out in shared memory (call_memory.hpp).
// Descriptors: 3 control socket (one byte in, one byte out), 4 lifeline, 5 shared memory.

#include "call_memory.hpp"
#include "kdacheck_plugin.h"

#include <dlfcn.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <thread>

namespace {

using namespace kdacheck;
using namespace kdacheck::plugin;

/// Ends this process when the parent is gone, even while a kernel hangs.
void watch_lifeline() {
  std::thread([] {
    char byte;
    while (read(4, &byte, 1) > 0) {
    }
    _exit(0);
  }).detach();
}

void say(CallRecord& record, const char* text) { std::snprintf(record.text.data(), record.text.size(), "%s", text); }

kdacheck_tensor tensor_of(const SharedMemory& memory, const Slot& slot) {
  kdacheck_tensor tensor{};
  if (slot.offset < 0) return tensor;
  tensor.data = memory.at(slot.offset);
  tensor.format = slot.format;
  for (std::size_t d = 0; d < 4; ++d) {
    tensor.shape[d] = slot.shape[d];
    tensor.stride[d] = slot.stride[d];
  }
  return tensor;
}

kdacheck_inputs inputs_of(const SharedMemory& memory, const CallRecord& record) {
  kdacheck_inputs in{};
  const Shape& s = record.shape;
  in.B = s.B, in.T = s.T, in.H = s.H, in.HV = s.HV, in.K = s.K, in.V = s.V, in.N = record.N;
  in.rule = record.rule, in.gate = record.gate, in.beta_form = record.beta_form, in.l2norm = record.l2norm;
  in.scale = record.scale, in.lower_bound = record.lower_bound;
  const std::array<kdacheck_tensor*, all_inputs.size()> targets{&in.q, &in.k, &in.v,     &in.g,       &in.beta,
                                                                &in.a, &in.b, &in.A_log, &in.dt_bias, &in.initial_state};
  for (std::size_t i = 0; i < targets.size(); ++i) *targets[i] = tensor_of(memory, record.inputs[i]);
  if (record.lengths_offset >= 0) in.cu_seqlens = reinterpret_cast<const std::int64_t*>(memory.at(record.lengths_offset));
  return in;
}

kdacheck_gradients gradients_of(const SharedMemory& memory, const CallRecord& record) {
  kdacheck_gradients out{};
  const std::array<kdacheck_tensor*, all_inputs.size()> targets{&out.dq, &out.dk, &out.dv,     &out.dg,       &out.dbeta,
                                                                &out.da, &out.db, &out.dA_log, &out.ddt_bias, &out.dinitial_state};
  for (std::size_t i = 0; i < targets.size(); ++i) *targets[i] = tensor_of(memory, record.gradients[i]);
  return out;
}

/// One kernel a line: name, backward (0 or 1), contract, summary, separated by tabs.
void describe(const kdacheck_library& library, CallRecord& record) {
  std::string text;
  const auto clean = [](const char* words) {
    std::string result = words ? words : "";
    for (char& c : result)
      if (static_cast<unsigned char>(c) < 32) c = ' ';
    return result;
  };
  for (std::uint32_t i = 0; i < library.count; ++i) {
    const kdacheck_kernel& kernel = library.kernels[i];
    if (!kernel.name || !kernel.contract || !kernel.forward) {
      record.answer = Answer::failed;
      say(record, "a kernel lacks its name, contract or forward function");
      return;
    }
    text += clean(kernel.name) + "\t" + (kernel.backward ? "1" : "0") + "\t" + clean(kernel.contract) + "\t" + clean(kernel.summary) + "\n";
  }
  record.answer = text.size() < record.text.size() ? Answer::done : Answer::failed;
  say(record, record.answer == Answer::done ? text.c_str() : "the descriptions of the kernels are too long");
}

void serve(const kdacheck_library& library, SharedMemory& memory) {
  CallRecord& record = memory.record();
  if (record.operation == Operation::describe) return describe(library, record);
  if (record.kernel >= library.count) {
    record.answer = Answer::failed;
    return say(record, "no such kernel");
  }
  const kdacheck_kernel& kernel = library.kernels[record.kernel];
  const kdacheck_inputs in = inputs_of(memory, record);
  if (record.operation == Operation::workspace) {
    record.workspace_bytes =
        kernel.workspace_bytes ? static_cast<std::int64_t>(kernel.workspace_bytes(&in, static_cast<int>(record.want_backward))) : 0;
    record.answer = Answer::done;
    return;
  }
  void* workspace = memory.at(record.workspace_offset);
  const auto bytes = static_cast<std::size_t>(record.workspace_bytes);
  std::array<char, 512> why{};
  int status;
  if (record.operation == Operation::forward) {
    const kdacheck_outputs out{tensor_of(memory, record.outputs[0]), tensor_of(memory, record.outputs[1])};
    status = kernel.forward(&in, &out, workspace, bytes, why.data(), why.size());
  } else {
    const kdacheck_cotangents cotangents{tensor_of(memory, record.cotangents[0]), tensor_of(memory, record.cotangents[1])};
    const kdacheck_gradients gradients = gradients_of(memory, record);
    status = kernel.backward ? kernel.backward(&in, &cotangents, &gradients, workspace, bytes, why.data(), why.size()) : 1;
  }
  why.back() = '\0';
  record.answer = status == 0 ? Answer::done : Answer::refused;
  say(record, status == 0 ? "" : why[0] ? why.data() : "refused without a reason");
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  watch_lifeline();
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  const rlimit address_space{std::uint64_t{48} << 30, std::uint64_t{48} << 30};
  setrlimit(RLIMIT_AS, &address_space);
  SharedMemory memory(5);

  const kdacheck_library* library = nullptr;
  std::string trouble;
  if (void* handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL)) {
    using Entry = const kdacheck_library* (*)(std::uint32_t);
    if (const auto entry = reinterpret_cast<Entry>(dlsym(handle, "kdacheck_plugin"))) {
      library = entry(KDACHECK_PLUGIN_VERSION);
      if (library && library->version != KDACHECK_PLUGIN_VERSION) library = nullptr;
      if (!library) trouble = "does not speak version 1 of the plug-in interface";
    } else {
      trouble = "does not export kdacheck_plugin";
    }
  } else {
    trouble = dlerror();
  }
  for (char request; read(3, &request, 1) == 1;) {
    if (library) {
      serve(*library, memory);
    } else {
      memory.record().answer = Answer::failed;
      say(memory.record(), trouble.c_str());
    }
    if (write(3, "d", 1) != 1) break;
  }
  _exit(0); // the library's destructors are not on trial
}
