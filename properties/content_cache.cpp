#include "content_cache.hpp"

#include "perturbed/lanes.hpp"

#include <bit>
#include <cstring>

namespace kdacheck {
namespace {

/// Two lanes of multiply-and-fold over 64-bit words, each finished by a bijective scatter.
struct Hasher {
  ContentHash state{0x243f6a8885a308d3ull, 0x13198a2e03707344ull}; // digits of pi

  void word(std::uint64_t x) {
    const auto fold = [](std::uint64_t a, std::uint64_t b) {
      const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
      return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    };
    state.first = std::rotl(state.first, 23) ^ fold(x ^ state.first, 0x9e3779b97f4a7c15ull);
    state.second = scatter(state.second ^ x) + state.first;
  }
  void number(double x) { word(std::bit_cast<std::uint64_t>(x)); }
  template <class T> void values(const std::vector<T>& values) {
    word(values.size());
    const std::size_t bytes = values.size() * sizeof(T);
    const auto* data = reinterpret_cast<const unsigned char*>(values.data());
    for (std::size_t at = 0; at < bytes; at += 8) {
      std::uint64_t x = 0;
      std::memcpy(&x, data + at, std::min<std::size_t>(8, bytes - at));
      word(x);
    }
  }
  ContentHash finish() const { return {scatter(state.first ^ std::rotl(state.second, 32)), scatter(state.second)}; }
};

} // namespace

ContentHash content_hash(const Problem& problem) {
  Hasher hasher;
  const Shape& s = problem.shape;
  for (std::int64_t size : {s.B, s.T, s.H, s.HV, s.K, s.V}) hasher.word(static_cast<std::uint64_t>(size));
  const Options& o = problem.options;
  for (auto choice :
       {static_cast<int>(o.rule), static_cast<int>(o.gate), static_cast<int>(o.beta), static_cast<int>(o.l2norm),
        static_cast<int>(problem.formats.qkv), static_cast<int>(problem.formats.gate), static_cast<int>(problem.formats.beta)})
    hasher.word(static_cast<std::uint64_t>(choice));
  hasher.number(o.lower_bound);
  hasher.number(o.scale);
  for (Input input : all_inputs) hasher.values(problem[input]);
  hasher.values(problem.cu_seqlens);
  hasher.values(problem.d_o);
  hasher.values(problem.d_final_state);
  return hasher.finish();
}

ContentHash error_hash(const Contract& c) {
  Hasher hasher;
  for (Format format : {c.operands, c.scores, c.accumulate, c.cumsum, c.solve, c.state, c.gradient, c.gradient_state})
    hasher.word(static_cast<std::uint64_t>(format));
  hasher.word(c.truncate ? 1 : 0);
  hasher.number(c.exp_ulp);
  hasher.word(static_cast<std::uint64_t>(c.order));
  hasher.word(static_cast<std::uint64_t>(c.chunk));
  hasher.word(static_cast<std::uint64_t>(c.decay_gradient));
  return hasher.finish();
}

ContentHash combine(const ContentHash& left, const ContentHash& right) {
  Hasher hasher;
  for (std::uint64_t x : {left.first, left.second, right.first, right.second}) hasher.word(x);
  return hasher.finish();
}

ContentHash combine(const ContentHash& left, std::uint64_t right) { return combine(left, ContentHash{right, 0}); }

} // namespace kdacheck
