#include "mla_stages.hpp"

#include "module.hpp"
#include "philox_uniform.hpp"

#include <array>
#include <cmath>
#include <fmt/core.h>
#include <limits>
#include <stdexcept>

namespace kdacheck::modules {

using Extents = std::span<const std::int64_t>;

float Mla::scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(K + K_shared))); }

void for_each_tensor(const Mla& mla, MlaParameters& p, const std::function<void(std::string_view, Extents, std::vector<float>&)>& visit) {
  const auto tensor = [&](std::string_view name, std::vector<float>& values, std::initializer_list<std::int64_t> shape) {
    visit(name, Extents(shape.begin(), shape.size()), values);
  };
  tensor("q_proj", p.q_proj, {mla.D, mla.H * (mla.K + mla.K_shared)});
  tensor("kv_down", p.kv_down, {mla.D, mla.rank});
  tensor("kv_norm", p.kv_norm, {mla.rank});
  tensor("kv_up", p.kv_up, {mla.rank, mla.H * (mla.K + mla.V)});
  if (mla.K_shared > 0) tensor("k_shared", p.k_shared, {mla.D, mla.K_shared});
  tensor("o_proj", p.o_proj, {mla.H * mla.V, mla.D});
}

MlaParameters initial_parameters(const Mla& mla, std::uint64_t seed) {
  check_mla(mla);
  MlaParameters p;
  for_each_tensor(mla, p, [&](std::string_view name, Extents shape, std::vector<float>& values) {
    std::uint32_t stream = 0; // of the name alone: tensors that a layer may lack shift nothing
    for (char letter : name) stream = stream * 31 + static_cast<unsigned char>(letter);
    if (name == "kv_norm")
      values.assign(static_cast<std::size_t>(shape[0]), 1.0f);
    else
      values = uniform_numbers(element_count(shape), std::sqrt(6.0 / static_cast<double>(shape[0] + shape[1])), seed, stream);
  });
  return p;
}

void check_mla(const Mla& mla) {
  for (const auto& [name, extent] :
       std::array<std::pair<const char*, std::int64_t>, 5>{{{"D", mla.D}, {"H", mla.H}, {"K", mla.K}, {"V", mla.V}, {"rank", mla.rank}}})
    if (extent < 1) throw std::invalid_argument(fmt::format("MLA: {} = {} must be positive", name, extent));
  if (mla.K_shared < 0) throw std::invalid_argument(fmt::format("MLA: K_shared = {} must not be negative", mla.K_shared));
  if (!(mla.norm_epsilon > 0) || !std::isfinite(mla.norm_epsilon))
    throw std::invalid_argument(fmt::format("MLA: norm_epsilon = {} must be positive and finite", mla.norm_epsilon));
}

void check_mla_call(const Mla& mla, const MlaParameters& parameters, const MlaInput& input, const MlaCache& cache) {
  check_mla(mla);
  MlaParameters& p = const_cast<MlaParameters&>(parameters); // visited, not changed
  for_each_tensor(mla, p, [](std::string_view name, Extents shape, std::vector<float>& values) {
    if (static_cast<std::int64_t>(values.size()) != element_count(shape))
      throw std::invalid_argument(fmt::format("MLA: {} has {} numbers, its shape needs {}", name, values.size(), element_count(shape)));
  });
  if (mla.K_shared == 0 && !p.k_shared.empty()) throw std::invalid_argument("MLA: k_shared is given, but this layer has none");
  if (static_cast<std::int64_t>(input.x.size()) != input.B * input.T * mla.D)
    throw std::invalid_argument(
        fmt::format("MLA: x has {} numbers, its shape [B,T,D] needs {}", input.x.size(), input.B * input.T * mla.D));
  for (std::size_t i = 0; i < input.x.size(); ++i)
    if (!(std::fabs(input.x[i]) <= std::numeric_limits<float>::max()))
      throw std::invalid_argument(fmt::format("MLA: x holds {} at element {}, all must be finite", input.x[i], i));
  const std::int64_t N = input.cu_seqlens.empty() ? input.B : static_cast<std::int64_t>(input.cu_seqlens.size()) - 1;
  if (!cache.rows.empty() && static_cast<std::int64_t>(cache.rows.size()) != N)
    throw std::invalid_argument(fmt::format("MLA: the cache holds {} sequences, the call {}", cache.rows.size(), N));
  for (std::size_t n = 0; n < cache.rows.size(); ++n)
    if (static_cast<std::int64_t>(cache.rows[n].size()) % mla.cached() != 0)
      throw std::invalid_argument(fmt::format("MLA: the cache of sequence {} has {} numbers, no multiple of rank + K_shared = {}", n,
                                              cache.rows[n].size(), mla.cached()));
}

} // namespace kdacheck::modules
