#include "masked_module.hpp"

#include "packed_rows.hpp"

namespace kdacheck::modules {
namespace {

NamedTensors mapped(const NamedTensors& tensors, std::int64_t rows, auto&& map) {
  NamedTensors result;
  for (const NamedTensor& tensor : tensors) {
    NamedTensor other{tensor.name, tensor.shape, map(tensor.values, element_count(std::span(tensor.shape).subspan(1)))};
    other.shape[0] = rows;
    result.push_back(std::move(other));
  }
  return result;
}

struct Kept {
  PackedRows rows;
  ModuleCall call;
  explicit Kept(const ModuleCall& given) : rows(packed_rows(1, given.rows(), given.cu_seqlens, given.mask)), call(given) {
    call.mask.clear();
    call.cu_seqlens = rows.cu_seqlens;
    call.inputs = gathered(given.inputs);
  }
  NamedTensors gathered(const NamedTensors& tensors) const {
    return mapped(tensors, call.rows(), [&](const std::vector<float>& values, std::int64_t width) { return rows.gathered(values, width); });
  }
  NamedTensors scattered(const NamedTensors& tensors) const {
    return mapped(tensors, rows.rows, [&](const std::vector<float>& values, std::int64_t width) { return rows.scattered(values, width); });
  }
};

} // namespace

Module masked(Module module) {
  Module result{module.name, module.summary, {}, {}};
  result.forward = [module](const ModuleCall& call) {
    if (call.mask.empty()) return module.forward(call);
    const Kept kept(call);
    ModuleResult out = module.forward(kept.call);
    out.outputs = kept.scattered(out.outputs);
    return out;
  };
  if (module.backward)
    result.backward = [module](const ModuleCall& call, const ModuleCotangents& d) {
      if (call.mask.empty()) return module.backward(call, d);
      const Kept kept(call);
      ModuleGradients out = module.backward(kept.call, {kept.gathered(d.outputs), d.states});
      out.inputs = kept.scattered(out.inputs);
      return out;
    };
  return result;
}

} // namespace kdacheck::modules
