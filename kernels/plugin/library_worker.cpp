// The child process of a C plug-in: loads the library, answers calls laid out in shared memory (call_memory.hpp).
// Descriptors: 3 control socket (one byte in, one byte out), 5 shared memory. As `supervise ...` it is a supervisor instead.

#include "call_memory.hpp"
#include "device_mirror.hpp"
#include "plugin_library.hpp"
#include "process_state.hpp"
#include "supervisor.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <cfenv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace {

using namespace kdacheck;
using namespace kdacheck::plugin;

void say(CallRecord& record, const char* text) { std::snprintf(record.text.data(), record.text.size(), "%s", text); }

/// Where a kernel finds what stands at an offset of the shared memory: there, or in the device's copy of it.
struct Located {
  const SharedMemory& memory;
  std::byte* device = nullptr; ///< of the record's call_begin
  void* stream = nullptr;

  void* at(std::int64_t offset) const { return device ? device + (offset - memory.record().call_begin) : memory.at(offset); }

  kdacheck_tensor tensor(const Slot& slot) const {
    kdacheck_tensor tensor{};
    if (slot.offset < 0) return tensor;
    tensor.data = at(slot.offset);
    tensor.format = slot.format;
    for (std::size_t d = 0; d < 4; ++d) {
      tensor.shape[d] = slot.shape[d];
      tensor.stride[d] = slot.stride[d];
    }
    return tensor;
  }
};

kdacheck_inputs inputs_of(const Located& located, const CallRecord& record) {
  kdacheck_inputs in{};
  const Shape& s = record.shape;
  in.B = s.B, in.T = s.T, in.H = s.H, in.HV = s.HV, in.K = s.K, in.V = s.V, in.N = record.N;
  in.rule = record.rule, in.gate = record.gate, in.beta_form = record.beta_form, in.l2norm = record.l2norm;
  in.scale = record.scale, in.lower_bound = record.lower_bound;
  in.memory = located.device ? KDACHECK_DEVICE : KDACHECK_HOST;
  in.stream = located.stream;
  const std::array<kdacheck_tensor*, all_inputs.size()> targets{&in.q, &in.k, &in.v,     &in.g,       &in.beta,
                                                                &in.a, &in.b, &in.A_log, &in.dt_bias, &in.initial_state};
  for (std::size_t i = 0; i < targets.size(); ++i) *targets[i] = located.tensor(record.inputs[i]);
  if (record.lengths_offset >= 0) {
    in.cu_seqlens = static_cast<const std::int64_t*>(located.at(record.lengths_offset));
    in.cu_seqlens_host = reinterpret_cast<const std::int64_t*>(located.memory.at(record.lengths_offset));
  }
  return in;
}

kdacheck_gradients gradients_of(const Located& located, const CallRecord& record) {
  kdacheck_gradients out{};
  const std::array<kdacheck_tensor*, all_inputs.size()> targets{&out.dq, &out.dk, &out.dv,     &out.dg,       &out.dbeta,
                                                                &out.da, &out.db, &out.dA_log, &out.ddt_bias, &out.dinitial_state};
  for (std::size_t i = 0; i < targets.size(); ++i) *targets[i] = located.tensor(record.gradients[i]);
  return out;
}

bool on_device(const kdacheck_kernel& kernel) {
  const ParsedContract parsed = parse_contract(kernel.contract);
  return parsed.contract && parsed.contract->on_device;
}

/// Why a kernel cannot run here, or nothing.
std::string why_unavailable(const kdacheck_kernel& kernel) {
  if (!on_device(kernel)) return {};
  try {
    DeviceMirror probe;
    return {};
  } catch (const NoDevice& none) {
    return none.what();
  }
}

/// One kernel a line: name, the passes it has besides forward (b, d), contract, summary, why it is unavailable; separated by tabs.
void describe(const PluginLibrary& library, CallRecord& record) {
  std::string text;
  const auto clean = [](const char* words) {
    std::string result = words ? words : "";
    for (char& c : result)
      if (static_cast<unsigned char>(c) < 32) c = ' ';
    return result;
  };
  for (const kdacheck_kernel& kernel : library.kernels) {
    if (!kernel.name || !kernel.contract || !kernel.forward) {
      record.answer = Answer::failed;
      say(record, "a kernel lacks its name, contract or forward function");
      return;
    }
    text += clean(kernel.name) + "\t" + (kernel.backward ? "b" : "") + (kernel.decode ? "d" : "") + "\t" + clean(kernel.contract) + "\t" +
            clean(kernel.summary) + "\t" + clean(why_unavailable(kernel).c_str()) + "\n";
  }
  record.answer = text.size() < record.text.size() ? Answer::done : Answer::failed;
  say(record, record.answer == Answer::done ? text.c_str() : "the descriptions of the kernels are too long");
}

/// Makes the call that the record describes; what the kernel answered, with its sentence in `why`.
int make_call(const kdacheck_kernel& kernel, const Located& located, const CallRecord& record, std::array<char, 512>& why) {
  kdacheck_inputs in = inputs_of(located, record);
  void* workspace = located.at(record.workspace_offset);
  const auto bytes = static_cast<std::size_t>(record.workspace_bytes);
  if (record.operation == Operation::backward) {
    const kdacheck_cotangents cotangents{located.tensor(record.cotangents[0]), located.tensor(record.cotangents[1])};
    const kdacheck_gradients gradients = gradients_of(located, record);
    return kernel.backward ? kernel.backward(&in, &cotangents, &gradients, workspace, bytes, why.data(), why.size()) : 1;
  }
  kdacheck_outputs out{located.tensor(record.outputs[0]), located.tensor(record.outputs[1])};
  if (record.operation == Operation::forward) return kernel.forward(&in, &out, workspace, bytes, why.data(), why.size());
  out.final_state = in.initial_state;
  return kernel.decode ? kernel.decode(&in, &out, workspace, bytes, why.data(), why.size()) : 1;
}

/// `found` is the state in which every call finds the process: a kernel that leaves another must not fail the kernel that is served next.
void serve(const PluginLibrary& library, SharedMemory& memory, const ProcessState& found) {
  static std::optional<DeviceMirror> mirror;
  CallRecord& record = memory.record();
  if (record.operation == Operation::describe) return describe(library, record);
  if (record.kernel >= library.kernels.size()) {
    record.answer = Answer::failed;
    return say(record, "no such kernel");
  }
  const kdacheck_kernel& kernel = library.kernels[record.kernel];
  Located located{.memory = memory};
  if (on_device(kernel)) {
    if (!mirror) mirror.emplace();
    located.stream = mirror->stream();
    located.device = mirror->upload(memory.at(record.call_begin), static_cast<std::size_t>(record.call_end - record.call_begin));
  }
  if (record.operation == Operation::workspace) {
    const kdacheck_inputs in = inputs_of(located, record);
    record.workspace_bytes =
        kernel.workspace_bytes ? static_cast<std::int64_t>(kernel.workspace_bytes(&in, static_cast<int>(record.want_backward))) : 0;
    record.answer = Answer::done;
    return;
  }
  std::array<char, 512> why{};
  found.restore();
  const int status = make_call(kernel, located, record, why);
  if (located.device) mirror->download(memory.at(record.call_begin));
  why.back() = '\0';
  record.answer = status == 0 ? Answer::done : Answer::refused;
  say(record, status == 0 ? "" : why[0] ? why.data() : "refused without a reason");
}

/// Limits that turn gigabytes of memory into a crash of this process alone. CUDA reserves far more addresses than it uses:
/// libraries with kernels for a device are limited in what they may write to (supervisor.cpp) only.
void limit_addresses(const PluginLibrary& library) {
  for (const kdacheck_kernel& kernel : library.kernels)
    if (kernel.contract && on_device(kernel)) return;
  const rlimit address_space{std::uint64_t{48} << 30, std::uint64_t{48} << 30};
  setrlimit(RLIMIT_AS, &address_space);
}

} // namespace

int main(int argc, char** argv) {
  if (argc >= 6 && std::strcmp(argv[1], "supervise") == 0)
    supervise(std::strcmp(argv[2], "standard") == 0 ? Channel::standard : Channel::control,
              std::strcmp(argv[3], "quiet") == 0 ? -1 : std::atoi(argv[3]), argv[4], argv + 5);
  if (argc != 2) return 2;
  std::fenv_t floating_point;
  std::fegetenv(&floating_point); // loading a library may change it
  SharedMemory memory(5);
  PluginLibrary library;
  std::string trouble;
  try {
    library = load_plugin(argv[1]);
    limit_addresses(library);
  } catch (const std::runtime_error& error) {
    trouble = error.what();
  }
  const ProcessState found(floating_point);
  for (char request; read(3, &request, 1) == 1;) {
    CallRecord& record = memory.record();
    bool usable = true;
    try {
      if (!trouble.empty()) throw std::runtime_error(trouble);
      serve(library, memory, found);
    } catch (const std::exception& error) { // also what a library written in C++ lets out
      record.answer = Answer::failed;
      say(record, error.what());
      usable = !trouble.empty(); // nothing else is wrong with this process then
    }
    if (write(3, "d", 1) != 1 || !usable) break;
  }
  _exit(0); // the library's destructors are not on trial
}
