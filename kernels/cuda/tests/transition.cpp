// The transition alone: what is refused, and what the emulated kernel gives.

#include "../alone/transition.cuh"
#include "../host/check.hpp"
#include "owned.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <limits>
#include <random>
#include <string>

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

struct Sizes {
  std::int64_t B = 2, T = 1, HV = 2, K = 64, V = 36;
  Format format = Format::fp32;
  bool adds = true;
};

/// A call with its tensors.
struct Made {
  Owned d, a, b, k, v, state;
  std::vector<std::int32_t> slots;
  kdacheck_cuda_transition_call call{};

  explicit Made(const Sizes& s, std::vector<std::int32_t> of_slots = {}, unsigned seed = 5)
      : d(s.format, {s.B, s.T, s.HV, s.K}), a(s.format, {s.B, s.T, s.HV, s.K}), b(s.format, {s.B, s.T, s.HV, s.K}),
        k(s.format, {s.B, s.T, s.HV, s.K}), v(s.format, {s.B, s.T, s.HV, s.V}),
        state(Format::fp32, {of_slots.empty() ? s.B : 6, s.HV, s.K, s.V}), slots(std::move(of_slots)) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> decay(0, 1);
    const float small = 1 / std::sqrt(static_cast<float>(s.K));
    d.fill([&] { return decay(engine); });
    for (Owned* rows : {&a, &b, &k}) rows->fill([&] { return small * normal(engine); });
    for (Owned* rows : {&v, &state}) rows->fill([&] { return normal(engine); });
    const auto tensor = [](const Owned& of) { return kdacheck_cuda_tensor{of.view.data, static_cast<int>(stored(of.view.format)), {}}; };
    call.B = s.B, call.T = s.T, call.HV = s.HV, call.K = s.K, call.V = s.V;
    call.d = tensor(d), call.a = tensor(a), call.b = tensor(b);
    if (s.adds) call.k = tensor(k), call.v = tensor(v);
    call.state = reinterpret_cast<float*>(aligned(state)), call.slots = state.view.shape[0];
    if (!slots.empty()) call.slot = slots.data();
  }

  /// 16-byte aligned storage, into which the numbers have been moved.
  static unsigned char* aligned(Owned& of) {
    const std::size_t bytes = of.bytes.size();
    of.bytes.resize(bytes + 16);
    auto* to = reinterpret_cast<unsigned char*>((reinterpret_cast<std::uintptr_t>(of.bytes.data()) + 15) / 16 * 16);
    std::memmove(to, of.bytes.data(), bytes);
    of.view.data = to;
    return to;
  }

  template <int K, int columns> static void run_cut(const cuda::TransitionArguments& args) {
    const std::int64_t blocks = args.B * args.HV * ((args.V + columns - 1) / columns);
    for (std::int64_t block = 0; block < blocks; ++block)
      cuda::simt::run_cluster(static_cast<unsigned>(block), 1, cuda::TransitionCut<K, columns>::threads,
                              cuda::transition_shared_bytes<K, columns>(args.T), [&] { cuda::transition_block<K, columns>(args); });
  }
  void run(bool many) const {
    const cuda::CheckedTransition checked = cuda::check_transition(&call);
    REQUIRE(std::string(checked.result.text).empty());
    REQUIRE(checked.result.status == KDACHECK_CUDA_OK);
    const cuda::TransitionArguments& args = checked.args;
    if (args.K <= 64)
      many ? run_cut<64, 64>(args) : run_cut<64, 16>(args);
    else if (args.K <= 128)
      many ? run_cut<128, 64>(args) : run_cut<128, 16>(args);
    else
      many ? run_cut<256, 64>(args) : run_cut<256, 16>(args);
  }
  std::vector<float> states() const {
    std::vector<float> all(static_cast<std::size_t>(state.view.elements()));
    std::memcpy(all.data(), state.view.data, all.size() * sizeof(float));
    return all;
  }
};

/// One step of every state in double, and what an element may err by, in units of what the header promises.
void step_exactly(const Made& made, std::int64_t t, std::vector<double>& states, std::vector<double>& allowed) {
  const auto& p = made.call;
  for (std::int64_t n = 0; n < p.B; ++n) {
    const std::int64_t slot = p.slot != nullptr ? p.slot[n] : n;
    if (slot < 0 || slot >= p.slots) continue;
    for (std::int64_t h = 0; h < p.HV; ++h)
      for (std::int64_t j = 0; j < p.V; ++j) {
        const auto at = [&](std::int64_t c) { return static_cast<std::size_t>(((slot * p.HV + h) * p.K + c) * p.V + j); };
        const auto row = [&](const Owned& of, std::int64_t c) { return double{load(of.view, of.view.offset(n, t, h, c))}; };
        double read = 0, size = 0;
        for (std::int64_t c = 0; c < p.K; ++c) read += row(made.b, c) * states[at(c)], size += std::fabs(row(made.b, c) * states[at(c)]);
        for (std::int64_t c = 0; c < p.K; ++c) {
          const double kept = row(made.d, c) * states[at(c)], added = p.k.data != nullptr ? row(made.k, c) * row(made.v, j) : 0.0;
          allowed[at(c)] = std::fabs(kept) + std::fabs(row(made.a, c)) * size + std::fabs(added);
          states[at(c)] = kept - row(made.a, c) * read + added;
        }
      }
  }
}

void check(const Sizes& sizes, bool many, std::vector<std::int32_t> slots = {}) {
  const Made made(sizes, std::move(slots));
  const auto before = made.states();
  std::vector<double> exact(before.begin(), before.end()), allowed(exact.size());
  made.run(many);
  for (std::int64_t t = 0; t < sizes.T; ++t) step_exactly(made, t, exact, allowed);
  const auto after = made.states();
  const double u = std::ldexp(static_cast<double>(sizes.K + 4), -24), one = u / (1 - u);
  double difference = 0, norm = 0;
  for (std::size_t e = 0; e < exact.size(); ++e) {
    INFO("K " << sizes.K << ", V " << sizes.V << ", element " << e);
    if (sizes.T == 1) REQUIRE(std::fabs(after[e] - exact[e]) <= one * allowed[e]);
    difference += (after[e] - exact[e]) * (after[e] - exact[e]), norm += exact[e] * exact[e];
  }
  REQUIRE(relative_error(difference, norm) <= 1e-6);
  REQUIRE(after != before);
}

} // namespace

TEST_CASE("the transition alone is right in every size and format, with few columns in a block and with many") {
  for (bool many : {false, true}) {
    check({.K = 64, .V = 36}, many);
    check({.K = 37, .V = 4, .format = Format::bf16}, many);
    check({.K = 128, .V = 128, .format = Format::fp16}, many);
    check({.B = 1, .HV = 1, .K = 200, .V = 100}, many);
    check({.B = 1, .HV = 1, .K = 1, .V = 12}, many);
    check({.K = 48, .V = 64, .adds = false}, many);
    check({.T = 8, .K = 100, .V = 20, .format = Format::bf16}, many);
    check({.B = 1, .T = 5, .HV = 1, .K = 256, .V = 256, .adds = false}, many);
  }
}

TEST_CASE("KDA is a case of the transition alone") {
  const Shape shape{.B = 2, .T = 3, .H = 2, .HV = 2, .K = 48, .V = 32};
  Made made({.B = shape.B, .T = shape.T, .HV = shape.HV, .K = shape.K, .V = shape.V});
  std::mt19937 engine(8);
  std::normal_distribution<float> normal;
  Owned q(Format::fp32, {2, 3, 2, 48}), g(Format::fp32, {2, 3, 2, 48}), k(Format::fp32, {2, 3, 2, 48}), beta(Format::fp32, {2, 3, 2, 1});
  q.fill([&] { return normal(engine); });
  k.fill([&] { return normal(engine) / 7; });
  g.fill([&] { return -std::fabs(normal(engine)); });
  beta.fill([&] { return 0.5f + 0.1f * normal(engine); });
  for (std::int64_t e = 0; e < k.view.elements(); ++e) {
    const float alpha = std::exp(load(g.view, e)), step = load(beta.view, e / 48);
    store(made.d.view, e, alpha), store(made.a.view, e, step * load(k.view, e)), store(made.b.view, e, load(k.view, e) * alpha);
    store(made.k.view, e, step * load(k.view, e));
  }
  Inputs in;
  in.shape = shape;
  in[Input::q] = q.view, in[Input::k] = k.view, in[Input::v] = made.v.view, in[Input::g] = g.view, in[Input::beta] = beta.view;
  Owned before = made.state;
  before.view.data = before.bytes.data() + (static_cast<unsigned char*>(made.state.view.data) - made.state.bytes.data());
  in[Input::initial_state] = before.view;
  made.run(false);
  for (std::int64_t n = 0; n < shape.B; ++n)
    for (std::int64_t head = 0; head < shape.HV; ++head) {
      const auto exact = cuda::recurrence_fp64(in, n, head).state;
      double difference = 0, norm = 0;
      for (std::size_t e = 0; e < exact.size(); ++e) {
        const double x = load(made.state.view, (n * shape.HV + head) * shape.K * shape.V + static_cast<std::int64_t>(e)) - exact[e];
        difference += x * x, norm += exact[e] * exact[e];
      }
      REQUIRE(relative_error(difference, norm) <= 1e-6);
    }
}

TEST_CASE("bits of the transition alone depend neither on the block's columns nor on how tokens are cut into calls") {
  for (std::int64_t K : {40, 128, 256}) {
    const Sizes sizes{.B = 1, .T = 4, .HV = 2, .K = K, .V = 36};
    const Made few(sizes), many(sizes);
    Made cut(sizes);
    few.run(false), many.run(true);
    const std::int64_t row = sizes.HV * sizes.K, value_row = sizes.HV * sizes.V;
    cut.call.T = 1;
    for (std::int64_t t = 0; t < sizes.T; ++t) {
      cut.run(false);
      for (kdacheck_cuda_tensor* rows : {&cut.call.d, &cut.call.a, &cut.call.b, &cut.call.k})
        rows->data = static_cast<float*>(rows->data) + row;
      cut.call.v.data = static_cast<float*>(cut.call.v.data) + value_row;
    }
    REQUIRE(few.states() == many.states());
    REQUIRE(few.states() == cut.states());
  }
}

TEST_CASE("the transition alone skips slots that are negative or outside, and leaves other states alone") {
  check({.B = 4, .K = 32, .V = 20}, true, {4, -1, 9, 0});
  const Made made({.B = 4, .K = 32, .V = 20}, {4, -1, 9, 0});
  const auto before = made.states();
  made.run(false);
  const auto after = made.states();
  const std::size_t one = before.size() / 6;
  for (std::size_t slot = 0; slot < 6; ++slot)
    REQUIRE(std::equal(before.begin() + slot * one, before.begin() + (slot + 1) * one, after.begin() + slot * one) ==
            (slot != 0 && slot != 4));
}

TEST_CASE("the transition alone passes NaN on in its own column alone") {
  const Made made({.B = 1, .HV = 1, .K = 32, .V = 8});
  made.call.state[5 * 8 + 3] = std::numeric_limits<float>::quiet_NaN();
  made.run(false);
  const auto after = made.states();
  for (std::size_t e = 0; e < after.size(); ++e) REQUIRE(std::isnan(after[e]) == (e % 8 == 3));
}

TEST_CASE("the transition alone reads rows with gaps between them") {
  const Sizes sizes{.B = 2, .T = 2, .HV = 2, .K = 24, .V = 12};
  const Made dense(sizes);
  Made wide(sizes);
  Owned spread(Format::fp32, {2, 2, 2, 31});
  spread.fill([] { return std::numeric_limits<float>::quiet_NaN(); });
  for (std::int64_t row = 0; row < 8; ++row)
    for (std::int64_t c = 0; c < 24; ++c) store(spread.view, row * 31 + c, load(wide.b.view, row * 24 + c));
  wide.call.b = {spread.view.data, KDACHECK_CUDA_FP32, {124, 62, 31}};
  dense.run(false), wide.run(false);
  REQUIRE(dense.states() == wide.states());
}

TEST_CASE("a call of the transition that cannot be right is refused with a sentence that names what is wrong") {
  const auto refused = [](int status, const char* words, auto change) {
    Made made({.K = 32, .V = 16});
    change(made.call);
    const cuda::CheckedTransition checked = cuda::check_transition(&made.call);
    INFO(checked.result.text);
    REQUIRE(checked.result.status == status);
    REQUIRE(std::string(checked.result.text).find(words) != std::string::npos);
  };
  using Call = kdacheck_cuda_transition_call;
  refused(KDACHECK_CUDA_BAD_SHAPE, "B and HV", [](Call& p) { p.B = 0; });
  refused(KDACHECK_CUDA_BAD_SHAPE, "HV must", [](Call& p) { p.HV = 1 << 21; });
  refused(KDACHECK_CUDA_BAD_SHAPE, "tokens", [](Call& p) { p.T = 9; });
  refused(KDACHECK_CUDA_BAD_SHAPE, "tokens", [](Call& p) { p.T = 0; });
  refused(KDACHECK_CUDA_BAD_SHAPE, "K must", [](Call& p) { p.K = 257; });
  refused(KDACHECK_CUDA_BAD_SHAPE, "V must", [](Call& p) { p.V = 18; });
  refused(KDACHECK_CUDA_BAD_SHAPE, "one launch", [](Call& p) { p.B = p.slots = std::int64_t{1} << 40; });
  refused(KDACHECK_CUDA_NULL_POINTER, "k and v", [](Call& p) { p.v.data = nullptr; });
  refused(KDACHECK_CUDA_NULL_POINTER, "state", [](Call& p) { p.state = nullptr; });
  refused(KDACHECK_CUDA_NULL_POINTER, "a is", [](Call& p) { p.a.data = nullptr; });
  refused(KDACHECK_CUDA_BAD_LAYOUT, "16 bytes", [](Call& p) { p.state += 1; });
  refused(KDACHECK_CUDA_BAD_LAYOUT, "b is not aligned", [](Call& p) { p.b.data = static_cast<unsigned char*>(p.b.data) + 1; });
  refused(KDACHECK_CUDA_BAD_LAYOUT, "d: strides", [](Call& p) { p.d.stride[0] = -1; });
  refused(KDACHECK_CUDA_BAD_FORMAT, "v: format", [](Call& p) { p.v.format = 7; });
  refused(KDACHECK_CUDA_BAD_SHAPE, "slots", [](Call& p) { p.slots = 1; });
  REQUIRE(cuda::check_transition(nullptr).result.status == KDACHECK_CUDA_NULL_POINTER);
}
