#include "../../kernel.hpp"
#include "call.hpp"
#include "problems.hpp"

#include <catch2/catch.hpp>

#include <omp.h>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

bool same_bits(const std::vector<float>& x, const std::vector<float>& y) {
  return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
}

bool same_bits(const Called& x, const Called& y) {
  bool same = same_bits(x.o, y.o) && same_bits(x.final_state, y.final_state);
  for (std::size_t i = 0; i < all_inputs.size(); ++i) same = same && same_bits(x.gradient[i], y.gradient[i]);
  return same;
}

/// Gates with parameters, grouped heads, packed members, more tasks than threads: enough work to leave the first thread.
Problem busy(const Kernel& kernel) {
  return draw({.shape = {.B = 1, .T = 330, .H = 2, .HV = 4, .K = 48, .V = 40},
               .options = {.rule = kernel.contract.rules.front(), .gate = GateForm::softplus, .l2norm = true},
               .cu_seqlens = {0, 100, 101, 101, 260, 330}});
}

/// Rows [first, first + length) of a problem with B = 1 as a problem of its own, with sequence n's state.
Problem member(const Problem& whole, std::int64_t n, std::int64_t first, std::int64_t length) {
  Problem part = whole;
  part.cu_seqlens.clear();
  part.shape.T = length;
  const auto cut = [&](std::vector<float>& values) {
    if (values.empty()) return;
    const auto row = static_cast<std::ptrdiff_t>(values.size()) / whole.shape.T;
    values = {values.begin() + first * row, values.begin() + (first + length) * row};
  };
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::a, Input::b}) cut(part[input]);
  cut(part.d_o);
  const auto state = static_cast<std::ptrdiff_t>(whole.shape.HV * whole.shape.K * whole.shape.V);
  for (auto* states : {&part.initial_state, &part.d_final_state})
    *states = {states->begin() + n * state, states->begin() + (n + 1) * state};
  return part;
}

struct Threads {
  int before = omp_get_max_threads();
  explicit Threads(int count) { omp_set_num_threads(count); }
  ~Threads() { omp_set_num_threads(before); }
};

} // namespace

TEST_CASE("the bits do not depend on the number of threads, on an enclosing parallel region or on the call") {
  for (const Kernel& kernel : built_in_kernels()) {
    const Problem problem = busy(kernel);
    Called ahead, back;
    {
      const Threads one(1);
      ahead = forward(kernel, problem);
      back = backward(kernel, problem);
    }
    const Threads three(3);
    INFO(kernel.name);
    for (int repetition = 0; repetition < 2; ++repetition) {
      CHECK(same_bits(forward(kernel, problem), ahead));
      CHECK(same_bits(backward(kernel, problem), back));
    }
    bool same[2] = {false, false};
#pragma omp parallel for num_threads(2)
    for (int i = 0; i < 2; ++i) same[i] = same_bits(forward(kernel, problem), ahead) && same_bits(backward(kernel, problem), back);
    CHECK((same[0] && same[1]));
  }
}

TEST_CASE("a packed sequence has the bits it has alone, forward and backward") {
  for (const Kernel& kernel : built_in_kernels()) {
    const Problem whole = busy(kernel);
    const Called ahead = forward(kernel, whole), back = backward(kernel, whole);
    for (const Sequence& sequence : sequences(whole)) {
      const Problem alone = member(whole, sequence.index, sequence.first, sequence.length);
      if (sequence.length == 0) continue;
      INFO(kernel.name << ", sequence " << sequence.index);
      const auto rows = [&](const std::vector<float>& values) {
        const auto row = static_cast<std::ptrdiff_t>(values.size()) / whole.shape.T;
        return std::vector<float>(values.begin() + sequence.first * row, values.begin() + (sequence.first + sequence.length) * row);
      };
      CHECK(same_bits(forward(kernel, alone).o, rows(ahead.o)));
      const Called alone_back = backward(kernel, alone);
      for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::a, Input::b})
        if (!whole[input].empty()) CHECK(same_bits(alone_back[input], rows(back[input])));
    }
  }
}

TEST_CASE("a workspace of the size asked for is enough, and nothing beyond it is written") {
  for (const Kernel& kernel : built_in_kernels()) {
    const Problem problem = busy(kernel);
    Call call(kernel, problem);
    const Outputs outputs{call.empty(kernel.contract.output, shape_of(Output::o, problem.shape, sequence_count(problem))),
                          call.empty(Format::fp32, call.shape(Input::initial_state))};
    const std::size_t bytes = kernel.workspace_bytes(call.inputs, false);
    std::vector<std::byte> memory(bytes + 128, std::byte{0x5a});
    void* start = memory.data();
    std::size_t space = memory.size();
    std::align(64, bytes, start, space);
    kernel.forward(call.inputs, outputs, {static_cast<std::byte*>(start), bytes});
    const auto* end = static_cast<std::byte*>(start) + bytes;
    CHECK(std::all_of(end, static_cast<const std::byte*>(memory.data() + memory.size()), [](std::byte b) { return b == std::byte{0x5a}; }));
  }
}
