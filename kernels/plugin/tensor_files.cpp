#include "tensor_files.hpp"

#include "../../reference/safetensors.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <functional>

namespace kdacheck::plugin {
namespace {

/// Visits the elements of a view in row-major order of [.., K, V] even where the view holds [.., V, K].
void each_element(const TensorView& view, bool swap_last, const std::function<void(std::int64_t offset)>& visit) {
  auto shape = view.shape;
  auto stride = view.stride;
  if (swap_last) {
    std::swap(shape[2], shape[3]);
    std::swap(stride[2], stride[3]);
  }
  for (std::int64_t i = 0; i < shape[0]; ++i)
    for (std::int64_t j = 0; j < shape[1]; ++j)
      for (std::int64_t l = 0; l < shape[2]; ++l)
        for (std::int64_t m = 0; m < shape[3]; ++m) visit(i * stride[0] + j * stride[1] + l * stride[2] + m * stride[3]);
}

struct Packing {
  std::deque<std::vector<std::byte>> bytes;
  std::vector<StoredTensor> tensors;

  void add(std::string label, const TensorView& view, std::size_t rank, bool swap_last) {
    if (!view) return;
    auto shape = view.shape;
    if (swap_last) std::swap(shape[2], shape[3]);
    const std::size_t width = storage_bytes(view.format);
    auto& packed = bytes.emplace_back();
    packed.reserve(static_cast<std::size_t>(view.elements()) * width);
    const auto* data = static_cast<const std::byte*>(view.data);
    each_element(view, swap_last, [&](std::int64_t offset) {
      const std::byte* element = data + offset * static_cast<std::int64_t>(width);
      packed.insert(packed.end(), element, element + width);
    });
    tensors.push_back(
        {std::move(label), element_type_of(view.format), {shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(rank)}, packed});
  }
};

void read_into(const TensorTable& table, const std::string& label, const TensorView& view, bool swap_last) {
  if (!view) return;
  const StoredTensor* tensor = table.find(label);
  if (!tensor) throw KernelCrashed("wrong answer: the result has no tensor '" + label + "'");
  auto due = view.shape;
  if (swap_last) std::swap(due[2], due[3]);
  std::int64_t elements = 1;
  std::vector<std::int64_t> wide = tensor->shape;
  for (const std::int64_t extent : wide) elements *= extent;
  wide.resize(4, 1);
  if (elements != view.elements() || tensor->shape.size() > 4 || !std::equal(due.begin(), due.end(), wide.begin()))
    throw KernelCrashed(
        fmt::format("wrong answer: '{}' has shape [{}] where [{}] is due", label, fmt::join(tensor->shape, ","), fmt::join(due, ",")));
  if (!format_of(tensor->type)) throw KernelCrashed("wrong answer: '" + label + "' does not hold floating-point numbers");
  const std::vector<float> values = floats(*tensor);
  std::size_t next = 0;
  each_element(view, swap_last, [&](std::int64_t offset) { store(view, offset, values[next++]); });
}

/// What a result may hold besides what it has to: other tensors, a wider type.
std::size_t largest_result(std::int64_t elements) { return (std::size_t{64} << 20) + 32 * static_cast<std::size_t>(elements); }

template <class Use> void with_table(const std::filesystem::path& path, std::int64_t elements, const Use& use) {
  try {
    const std::size_t limit = largest_result(elements);
    const auto bytes = bytes_of_file(path, limit);
    if (!bytes) throw KernelCrashed(fmt::format("wrong answer: the result is no file, or one of more than {} MiB", limit >> 20));
    use(parse_safetensors(*bytes, path.string()));
  } catch (const BadFile& bad) {
    throw KernelCrashed(std::string("wrong answer: ") + bad.what());
  }
}

} // namespace

std::optional<std::vector<std::byte>> bytes_of_file(const std::filesystem::path& path, std::size_t limit) {
  const int file = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  struct stat status {};
  std::optional<std::vector<std::byte>> bytes;
  if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && static_cast<std::uint64_t>(status.st_size) <= limit) {
    bytes.emplace(static_cast<std::size_t>(status.st_size));
    std::size_t have = 0;
    while (have < bytes->size()) {
      const auto got = read(file, bytes->data() + have, bytes->size() - have);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      have += static_cast<std::size_t>(got);
    }
    bytes->resize(have); // it may have become shorter meanwhile
  }
  close(file);
  return bytes;
}

void write_call(const std::filesystem::path& path, const Inputs& in, const Cotangents& cotangents, bool state_v_first) {
  Packing packing;
  for (Input input : all_inputs)
    packing.add(std::string(name(input)), in[input], rank_of(input), state_v_first && input == Input::initial_state);
  packing.add("do", cotangents.d_o, 4, false);
  packing.add("dht", cotangents.d_final_state, 4, state_v_first);
  if (!in.cu_seqlens.empty()) {
    const auto lengths = std::as_bytes(in.cu_seqlens);
    packing.tensors.push_back({"cu_seqlens", ElementType::I64, {static_cast<std::int64_t>(in.cu_seqlens.size())}, lengths});
  }
  const Metadata metadata{{"gate", std::string(name(in.options.gate))},
                          {"beta", std::string(name(in.options.beta))},
                          {"l2norm", in.options.l2norm ? "yes" : "no"},
                          {"scale", fmt::format("{}", in.options.scale)},
                          {"lower_bound", fmt::format("{}", in.options.lower_bound)}};
  write_safetensors(path, packing.tensors, metadata);
}

void read_outputs(const std::filesystem::path& path, const Outputs& out, bool state_v_first) {
  const std::int64_t elements = out.o.elements() + (out.final_state ? out.final_state.elements() : 0);
  with_table(path, elements, [&](const TensorTable& table) { read_outputs(table, out, state_v_first); });
}

void read_outputs(const TensorTable& table, const Outputs& out, bool state_v_first) {
  read_into(table, "o", out.o, false);
  read_into(table, "final_state", out.final_state, state_v_first);
}

void read_gradients(const std::filesystem::path& path, const GradientOutputs& gradients, bool state_v_first) {
  std::int64_t elements = 0;
  for (Input input : all_inputs)
    if (gradients[input]) elements += gradients[input].elements();
  with_table(path, elements, [&](const TensorTable& table) {
    for (Input input : all_inputs)
      read_into(table, "d" + std::string(name(input)), gradients[input], state_v_first && input == Input::initial_state);
  });
}

} // namespace kdacheck::plugin
