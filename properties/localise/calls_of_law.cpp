#include "calls_of_law.hpp"

#include "../compare_bits.hpp"
#include "../content_cache.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace kdacheck {
namespace {

bool all_finite(const std::vector<float>& numbers) {
  return std::ranges::all_of(numbers, [](float x) { return std::isfinite(x); });
}

bool has_finite_inputs(const Problem& problem) {
  return all_finite(problem.d_o) && all_finite(problem.d_final_state) && std::ranges::all_of(all_inputs, [&](Input input) {
           return input == Input::A_log ? std::ranges::none_of(problem.A_log, [](float x) { return std::isnan(x); })
                                        : all_finite(problem[input]);
         });
}

const char* spoken(Pass pass) { return pass == Pass::forward ? "forward" : pass == Pass::decode ? "decode" : "backward"; }

/// "changed input k at [0,5,1,7]" names an element; "" where a trespass lies outside every tensor.
std::optional<Place> place_of(const std::string& trespass, const Problem& problem) {
  const std::string begin = "changed input ";
  const auto bracket = trespass.find(" at [");
  if (!trespass.starts_with(begin) || bracket == std::string::npos) return std::nullopt;
  Place place{.tensor = "input " + trespass.substr(begin.size(), bracket - begin.size())};
  std::int64_t at[4] = {-1, -1, -1, -1};
  std::istringstream numbers(trespass.substr(bracket + 5));
  for (std::int64_t& x : at) {
    numbers >> x;
    numbers.ignore();
  }
  const std::string tensor = place.tensor.substr(6);
  if (tensor == "A_log" || tensor == "dt_bias") {
    place.head = at[0];
  } else if (tensor == "initial_state") {
    place.sequence = at[0], place.head = at[1], place.row = at[2], place.channel = at[3];
  } else {
    for (const Sequence& sequence : sequences(problem)) {
      const std::int64_t token = at[0] * problem.shape.T + at[1] - sequence.first;
      if (token >= 0 && token < sequence.length) place.sequence = sequence.index, place.token = token;
    }
    place.head = at[2], place.channel = tensor == "beta" ? -1 : at[3];
  }
  return place;
}

/// An element of an input that is not finite.
struct Poisoned {
  std::string tensor;
  Place place;
};

std::optional<Poisoned> poisoned_input(const Problem& problem, std::int64_t chunk) {
  const auto first = [](const std::vector<float>& tensor) {
    return static_cast<std::size_t>(std::ranges::find_if(tensor, [](float x) { return !std::isfinite(x); }) - tensor.begin());
  };
  for (Input input : all_inputs)
    if (const std::size_t at = first(problem[input]); input != Input::A_log && at < problem[input].size())
      return Poisoned{std::string(name(input)), kdacheck::place_of(input, problem, chunk, at)};
  if (const std::size_t at = first(problem.d_o); at < problem.d_o.size())
    return Poisoned{"d_o", kdacheck::place_of(Output::o, problem, chunk, at)};
  return std::nullopt;
}

/// Where a NaN went that it must not go to, or is not where it must be.
StageOpinion of_nan(const Poisoned& from, const ObservedCall& call, const std::optional<Place>& reached, std::int64_t chunk) {
  const Shape& shape = call.problem.shape;
  const std::string source = fmt::format("the NaN of {} at sequence {}, head {}, token {}, channel {}", from.tensor, from.place.sequence,
                                         from.place.head, from.place.token, from.place.channel);
  const std::int64_t group = shape.HV / shape.H;
  const bool of_key_head = from.tensor == "q" || from.tensor == "k";
  if (!reached) { // it is swallowed
    if (from.tensor == "q") return says(Stage::output, 0.8, source + " is swallowed: o of its token is a number");
    const std::int64_t first = sequences(call.problem)[static_cast<std::size_t>(from.place.sequence)].first;
    const auto at = static_cast<std::size_t>(((first + from.place.token) * shape.HV + from.place.head) * shape.V +
                                             std::max<std::int64_t>(from.place.channel, 0));
    const bool in_o = at < call.run.o.size() && std::isnan(call.run.o[at]);
    return in_o ? says(Stage::state_carry, 0.8, source + " shows in o of its token and is swallowed on the way to the final state")
                : says(Stage::residual, 0.6, source + " is swallowed before o and the state");
  }
  const bool backward = call.pass == Pass::backward;
  const std::int64_t head = of_key_head ? reached->head / group : reached->head;
  const bool shared = backward && (reached->tensor == "dq" || reached->tensor == "dk");
  const bool own_head = shared ? reached->head == from.place.head / group : head == from.place.head;
  const std::string place = to_text(*reached);
  if (!own_head || (reached->sequence >= 0 && reached->sequence != from.place.sequence))
    return says(Stage::call, 0.7, source + " reaches another head or sequence, " + place);
  const std::int64_t C = std::max<std::int64_t>(chunk, 1);
  if (reached->token / C == from.place.token / C)
    return says(Stage::scores, 0.6,
                source + " goes through a masked product to another token of its chunk, " + place +
                    ": what a mask leaves out is multiplied by zero");
  return says(Stage::call, 0.5, source + " reaches a chunk that it has nothing to do with, " + place);
}

/// What two calls of the same problem differ by, if they do.
std::string difference_of_options(const RunOptions& one, const RunOptions& other) {
  if (one.strided != other.strided) return "strides";
  if (one.final_state != other.final_state) return "state";
  if (one.not_wanted != other.not_wanted) return "gradients";
  if (one.workspace_poison.value_or(one.poison) != other.workspace_poison.value_or(other.poison)) return "workspace";
  return one.poison != other.poison ? "memory" : "";
}

StageOpinion of_equal_calls(const std::string& differ) {
  if (differ == "strides") return says(Stage::inputs, 0.9, "the same numbers in rows with gaps between them give another result");
  if (differ == "state") return says(Stage::call, 0.9, "whether the final state is asked for changes o");
  if (differ == "gradients") return says(Stage::call, 0.9, "whether other gradients are asked for changes what is written");
  if (differ == "workspace") return says(Stage::call, 0.9, "what the workspace held before the call changes the result");
  if (differ == "memory") return says(Stage::call, 0.9, "what the outputs held before the call changes the result");
  return says(Stage::call, 0.9, "the same call again gives other numbers");
}

} // namespace

LawSeen seen_again(const Kernel& kernel, const Property& property, const Recipe& recipe, Judge& judge) {
  ObservedCalls observed;
  Finding finding = property.check({kernel, judge}, recipe);
  return {std::move(finding), std::move(observed.calls)};
}

Kernel decode_as_forward(const Kernel& kernel) {
  Kernel steps = kernel;
  steps.contract.order = Order::recurrence;
  steps.contract.chunk = 1;
  steps.contract.T = kernel.contract.decode;
  steps.contract.initial_state = true;
  steps.contract.packed = false;
  steps.backward = nullptr;
  steps.forward = [decode = kernel.decode](const Inputs& given, const Outputs& outputs, std::span<std::byte> workspace) {
    Inputs inputs = given;
    const TensorView before = given[Input::initial_state], &state = outputs.final_state;
    for (std::int64_t i = 0; i < state.shape[0]; ++i)
      for (std::int64_t j = 0; j < state.shape[1]; ++j)
        for (std::int64_t l = 0; l < state.shape[2]; ++l)
          for (std::int64_t m = 0; m < state.shape[3]; ++m)
            store(state, state.offset(i, j, l) + m * state.stride[3],
                  before ? load(before, before.offset(i, j, l) + m * before.stride[3]) : 0.0f);
    inputs[Input::initial_state] = state;
    decode(inputs, outputs, workspace);
  };
  return steps;
}

Kernel called_kernel(const Kernel& kernel, Pass pass) { return pass == Pass::decode ? decode_as_forward(kernel) : kernel; }

std::optional<WrongCall> first_wrong_call(const Kernel& kernel, const LawSeen& seen, Judge& judge) {
  for (std::size_t i = 0; i < seen.calls.size(); ++i) {
    const ObservedCall& call = seen.calls[i];
    if (call.run.refused || !has_finite_inputs(call.problem) || malformed(call.problem)) continue;
    const Contract contract = called_kernel(kernel, call.pass).contract;
    if (outside_domain(contract, call.problem)) continue;
    Finding finding =
        call.pass == Pass::backward ? judge.backward(contract, call.problem, call.run) : judge.forward(contract, call.problem, call.run);
    if (is_failure(finding.verdict)) return WrongCall{i, std::move(finding)};
  }
  return std::nullopt;
}

std::optional<Localisation> of_repeated_calls(const Kernel& kernel, const LawSeen& seen) {
  std::vector<ContentHash> keys;
  for (const ObservedCall& call : seen.calls) keys.push_back(content_hash(call.problem));
  for (std::size_t j = 1; j < seen.calls.size(); ++j)
    for (std::size_t i = 0; i < j; ++i) {
      const ObservedCall &one = seen.calls[i], &other = seen.calls[j];
      if (one.pass != other.pass || keys[i] != keys[j] || one.run.refused || other.run.refused) continue;
      const std::string differ = difference_of_options(one.options, other.options);
      if (differ == "memory") continue; // an element that is not written says more by itself
      if (auto found = first_difference(one.problem, kernel.contract.chunk, one.run, other.run, Equality::numbers)) {
        Localisation result;
        result.together = of_equal_calls(differ);
        result.together.grounds += fmt::format(": call {} of the law has {}, that of call {}", j + 1, found->values, i + 1);
        result.first_wrong = std::move(found->place);
        return result;
      }
    }
  return std::nullopt;
}

std::string about_call(const LawSeen& seen, std::size_t index) {
  if (seen.calls.size() < 2) return "";
  const ObservedCall& call = seen.calls[index];
  std::int64_t tokens = 0, steps = 0, before = 0;
  for (std::size_t i = 0; i < seen.calls.size(); ++i) {
    if (seen.calls[i].pass != Pass::decode) continue;
    ++steps;
    if (i < index) tokens += seen.calls[i].problem.shape.T, ++before;
  }
  std::string text = fmt::format("the law's call {} of {} is wrong by itself, ", index + 1, seen.calls.size());
  if (call.pass == Pass::decode) {
    text += fmt::format("decode step {} of {}, from token {} of the chain", before + 1, steps, tokens);
    if (call.problem.shape.T > 1) text += fmt::format(" to token {}", tokens + call.problem.shape.T - 1);
  } else {
    text += fmt::format("a {} pass of {} tokens", spoken(call.pass), call.problem.shape.B * call.problem.shape.T);
  }
  if (index > 0) text += index == 1 ? "; the call before it is right" : fmt::format("; the {} before it are right", index);
  return text;
}

bool is_sharper_than_the_oracle(const LawSeen& seen) {
  if (seen.calls.empty() || seen.finding.verdict != Verdict::failed_property || !seen.finding.place) return false;
  const ObservedCall& last = seen.calls.back();
  if (last.pass != Pass::forward || last.run.refused || !has_finite_inputs(last.problem)) return false;
  return std::isfinite(seen.finding.bound_util) || seen.calls.size() == 1;
}

Localisation of_right_calls(const Kernel& kernel, const LawSeen& seen) {
  Localisation result;
  result.first_wrong = seen.finding.place;
  const std::int64_t chunk = kernel.contract.chunk;
  for (std::size_t i = 0; i < seen.calls.size(); ++i) {
    const ObservedCall& call = seen.calls[i];
    if (call.run.trespasses.empty()) continue;
    result.together = says(Stage::call, 0.95, call.run.trespasses.front());
    result.first_wrong = place_of(call.run.trespasses.front(), call.problem);
    return result;
  }
  if (seen.calls.empty()) {
    result.together = unclear("the law made no call that came back");
    return result;
  }
  const ObservedCall& last = seen.calls.back();
  const Contract contract = called_kernel(kernel, last.pass).contract;
  const bool in_domain = has_finite_inputs(last.problem) && !malformed(last.problem) && !outside_domain(contract, last.problem);
  if (last.run.refused) {
    result.together = says(Stage::call, in_domain ? 0.9 : 0.5,
                           in_domain ? "the kernel refuses a call of its domain: " + *last.run.refused : seen.finding.detail);
    return result;
  }
  if (!in_domain) {
    if (const auto from = poisoned_input(last.problem, chunk))
      result.together = of_nan(*from, last, seen.finding.place, chunk);
    else
      result.together = says(Stage::call, 0.9, "the kernel does not look at what it is called with: " + seen.finding.detail);
    return result;
  }
  const std::string grounds =
      fmt::format("{} within the bound against the oracle; what the law compares is not: {}",
                  seen.calls.size() == 1 ? "the call is" : fmt::format("all {} calls are", seen.calls.size()), seen.finding.detail);
  const bool other_shapes = std::ranges::any_of(seen.calls, [&](const ObservedCall& call) {
    return call.pass != last.pass || call.problem.shape != last.problem.shape || call.problem.cu_seqlens != last.problem.cu_seqlens;
  });
  if (other_shapes && std::isinf(seen.finding.bound_util))
    result.together = says(Stage::call, 0.5, "what a token gets depends on the size of the call: " + grounds);
  else
    result.together = unclear(grounds);
  return result;
}

} // namespace kdacheck
