// What a kernel keeps from call to call: by the same call again, on memory that held other numbers before, and on memory that no call
// had before.

#include "experiments.hpp"

#include "transform.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>

namespace kdacheck {
namespace {

/// Every tensor of a run with the name of what it holds.
template <class Visit> void each_tensor(const Run& run, Visit visit) {
  visit(std::string("o"), run.o);
  visit(std::string("final_state"), run.final_state);
  for (Input input : all_inputs) visit(std::string(name(input)), run.gradient[static_cast<std::size_t>(input)]);
}

bool same_bits(const Run& one, const Run& other) {
  const auto equal = [](const std::vector<float>& x, const std::vector<float>& y) {
    return std::ranges::equal(
        x, y, {}, [](float a) { return std::bit_cast<std::uint32_t>(a); }, [](float a) { return std::bit_cast<std::uint32_t>(a); });
  };
  if (!equal(one.o, other.o) || !equal(one.final_state, other.final_state)) return false;
  for (std::size_t i = 0; i < one.gradient.size(); ++i)
    if (!equal(one.gradient[i], other.gradient[i])) return false;
  return true;
}

constexpr std::size_t alignment = 64; // of everything that a kernel is handed

/// Copies of what a call is handed, between the same patterns as its own. They are kept, so that none takes another's place.
class NewMemory {
public:
  std::byte* copy(const void* from, std::size_t bytes) {
    static std::atomic<std::size_t> made{0}; // blocks that the system hands out again begin elsewhere
    const std::size_t before = alignment * (1 + made++ % 1024);
    std::vector<std::byte>& block = blocks_.emplace_back(before + bytes + 3 * alignment);
    const std::uint32_t gap = RunOptions{}.gap;
    for (std::size_t i = 0; i + sizeof gap <= block.size(); i += sizeof gap) std::memcpy(block.data() + i, &gap, sizeof gap);
    std::byte* to = block.data() + before + (alignment - std::bit_cast<std::uintptr_t>(block.data()) % alignment);
    if (bytes > 0) std::memcpy(to, from, bytes);
    return to;
  }
  TensorView copy(const TensorView& view) {
    if (!view) return view;
    std::int64_t last = 0;
    for (std::size_t i = 0; i < view.shape.size(); ++i) last += std::max<std::int64_t>(view.shape[i] - 1, 0) * view.stride[i];
    const auto bytes = view.elements() > 0 ? static_cast<std::size_t>(last + 1) * storage_bytes(view.format) : 0;
    TensorView there = view;
    there.data = copy(view.data, bytes);
    back_.push_back({view.data, there.data, bytes});
    return there;
  }
  Inputs copy(const Inputs& inputs) {
    Inputs there = inputs;
    for (TensorView& view : there.tensor) view = copy(view);
    if (!inputs.cu_seqlens.empty())
      there.cu_seqlens = {reinterpret_cast<const std::int64_t*>(copy(inputs.cu_seqlens.data(), inputs.cu_seqlens.size_bytes())),
                          inputs.cu_seqlens.size()};
    return there;
  }
  std::span<std::byte> copy(std::span<std::byte> workspace) { return {copy(workspace.data(), workspace.size()), workspace.size()}; }

  void forget() { back_.clear(); } ///< a call that did not come back
  /// What the call left in the copies, into what was copied.
  void hand_back() {
    for (const auto& [to, from, bytes] : back_)
      if (bytes > 0) std::memcpy(to, from, bytes);
    back_.clear();
  }

private:
  struct Back {
    void* to;
    const void* from;
    std::size_t bytes;
  };
  std::deque<std::vector<std::byte>> blocks_;
  std::vector<Back> back_;
};

/// The kernel, called at addresses that no call had before.
Kernel on_new_memory(const Kernel& kernel) {
  Kernel elsewhere = kernel;
  const auto memory = std::make_shared<NewMemory>();
  if (kernel.forward)
    elsewhere.forward = [memory, forward = kernel.forward](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
      memory->forget();
      const Outputs there{.o = memory->copy(out.o), .final_state = memory->copy(out.final_state)};
      forward(memory->copy(in), there, memory->copy(workspace));
      memory->hand_back();
    };
  if (kernel.backward)
    elsewhere.backward = [memory, backward = kernel.backward](const Inputs& in, const Cotangents& loss, const GradientOutputs& out,
                                                              std::span<std::byte> workspace) {
      memory->forget();
      GradientOutputs there = out;
      for (TensorView& view : there.tensor) view = memory->copy(view);
      const Cotangents its_loss{.d_o = memory->copy(loss.d_o), .d_final_state = memory->copy(loss.d_final_state)};
      backward(memory->copy(in), its_loss, there, memory->copy(workspace));
      memory->hand_back();
    };
  return elsewhere;
}

/// Of the same sizes, every number somewhere else: tokens and sequences in the opposite order, what is written of the other sign.
Problem turned_round(const Problem& problem, Direction direction) {
  Choice choice = everything(problem);
  for (Piece& piece : choice.pieces) std::ranges::reverse(piece.tokens);
  std::ranges::reverse(choice.pieces);
  Problem other = scaled(chosen(problem, choice), {Input::q, Input::v, Input::initial_state}, -1);
  if (direction == Direction::backward)
    for (float& x : other.d_o) x = -x;
  return other;
}

/// Does the last of several calls on the same memory fail?
std::optional<bool> fails_in_turn(const Experiment& with, std::initializer_list<Problem> problems) {
  for (const Problem& problem : problems)
    if (malformed(problem) || outside_domain(with.kernel.contract, problem)) return std::nullopt;
  const std::span<const Problem> all(problems.begin(), problems.size());
  const std::vector<Run> runs =
      with.direction == Direction::backward ? run_backward_in_turn(with.kernel, all) : run_forward_in_turn(with.kernel, all);
  if (std::ranges::any_of(runs, [](const Run& run) { return run.refused.has_value(); })) return std::nullopt;
  return is_failure(with.judged(all.back(), runs.back()).verdict);
}

constexpr int tries = 2; // what goes wrong now and then does so on any memory

} // namespace

bool is_finite(const Run& run) {
  bool finite = true;
  each_tensor(run, [&](const std::string&, const std::vector<float>& tensor) {
    finite = finite && std::ranges::all_of(tensor, [](float x) { return std::isfinite(x); });
  });
  return finite;
}

StageOpinion stage_by_memory(const Experiment& with, const Problem& problem) {
  const auto always = [&](auto&& wrong_there) {
    for (int i = 0; i < tries; ++i)
      if (!wrong_there()) return false;
    return true;
  };
  const Kernel elsewhere = on_new_memory(with.kernel);
  const Experiment there{elsewhere, with.direction, with.judge, with.sharper};
  if (always([&] { return there.fails(problem) == false && with.fails(problem) == true; }))
    return says(Stage::call, 0.9, "right on memory that no call had before: something is kept by address from an earlier call");
  const Problem other = turned_round(problem, with.direction);
  if (always([&] { return fails_in_turn(with, {problem, problem}) == false && fails_in_turn(with, {other, problem}) == true; }))
    return says(Stage::call, 0.9,
                "wrong on memory that held another problem in the call before, right where it held this one: something is kept by address");
  return unclear();
}

StageOpinion stage_by_repetition(const Experiment& with, const Problem& problem, const Run& run) {
  if (StageOpinion opinion = stage_by_memory(with, problem); opinion.stage) return opinion;
  if (with.kernel.contract.repeat == Sameness::bitwise && !same_bits(run, with.run(problem)))
    return says(Stage::call, 0.9, "the same call again gives other numbers");
  if (with.direction == Direction::forward && std::ranges::any_of(run.o, [](float x) { return x != 0 && std::isfinite(x); }) &&
      with.run(scaled(problem, {Input::q}, -1)).o == run.o)
    return says(Stage::call, 0.9, "queries of the other sign give the very same o: it is that of an earlier call");
  if (is_finite(run)) return unclear();
  if (problem.initial_state.empty() && with.kernel.contract.initial_state) {
    Problem given = problem;
    const Shape& s = problem.shape;
    given.initial_state.assign(static_cast<std::size_t>(sequence_count(problem) * s.HV * s.K * s.V), 0.0f);
    if (with.fails(given) == false) return says(Stage::state_carry, 0.9, "right where a state of zeros is handed over");
  }
  if (!with.fails(problem, {.poison = 0}).value_or(true)) return says(Stage::call, 0.9, "right where memory held zeros before the call");
  constexpr std::uint32_t forty_two = 0x42280000; // in every format of 16 bits and more
  const Run marked = with.run(problem, {.poison = forty_two});
  StageOpinion opinion = unclear();
  each_tensor(marked, [&](const std::string& tensor, const std::vector<float>& now) {
    each_tensor(run, [&](const std::string& of, const std::vector<float>& before) {
      if (of != tensor || opinion.stage || now.size() != before.size()) return;
      const auto row = static_cast<std::size_t>(tensor == "o" ? problem.shape.V : 1);
      for (std::size_t i = 0; i < now.size() && !opinion.stage; i += row) {
        std::size_t unwritten = 0;
        for (std::size_t j = i; j < i + row; ++j) unwritten += now[j] == 42.0f && !std::isfinite(before[j]);
        if (unwritten == 0) continue;
        const bool state = tensor == "final_state" || tensor == "initial_state";
        opinion = says(state                               ? Stage::state_carry
                       : tensor == "o" && unwritten == row ? Stage::output
                                                           : Stage::call,
                       0.9, fmt::format("elements of {}{} are never written", tensor == "o" || tensor == "final_state" ? "" : "d", tensor));
      }
    });
  });
  return opinion;
}

} // namespace kdacheck
