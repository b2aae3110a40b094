// Laws of every module of tokens. Those that compare with the oracle are within its budget; the others hold bit for bit.

#include "module_budget.hpp"
#include "token_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/core.h>
#include <limits>
#include <stdexcept>

namespace kdacheck {
namespace {

using namespace modules;

Finding broken(std::string tensor, std::int64_t row, std::string detail) {
  Finding finding{.verdict = Verdict::failed_property,
                  .bound_util = std::numeric_limits<double>::infinity(),
                  .place = Place{.tensor = std::move(tensor)},
                  .detail = std::move(detail),
                  .metrics = {}};
  finding.place->row = row;
  return finding;
}

/// The first difference that counts, or nothing.
template <class Same> Finding compared(const NamedTensors& one, const NamedTensors& other, const char* what, Same same) {
  if (one.size() != other.size()) return broken("", -1, fmt::format("{}: {} tensors and {}", what, one.size(), other.size()));
  for (std::size_t n = 0; n < one.size(); ++n) {
    if (one[n].values.size() != other[n].values.size()) return broken(one[n].name, -1, fmt::format("{}: sizes differ", what));
    for (std::size_t i = 0; i < one[n].values.size(); ++i)
      if (!same(one[n].values[i], other[n].values[i]))
        return broken(one[n].name, static_cast<std::int64_t>(i),
                      fmt::format("{}: {}[{}] is {:.9g} and {:.9g}", what, one[n].name, i, one[n].values[i], other[n].values[i]));
  }
  return {};
}

Finding same_bits(const NamedTensors& one, const NamedTensors& other, const char* what) {
  return compared(one, other, what, [](const float& x, const float& y) { return std::memcmp(&x, &y, sizeof(float)) == 0; });
}
Finding same_numbers(const NamedTensors& one, const NamedTensors& other, const char* what) {
  return compared(one, other, what, [](float x, float y) { return x == y; }); // 0 and -0 are one number
}

std::int64_t length_of(const ModuleCall& call, std::int64_t n) {
  return call.cu_seqlens[static_cast<std::size_t>(n + 1)] - call.cu_seqlens[static_cast<std::size_t>(n)];
}

/// Every sequence in pieces that end where `cuts(length)` says, each started from the state that the one before left.
ModuleResult in_pieces(const ModuleCase& c, const Cuts& cuts) {
  std::vector<NamedTensors> outputs, states;
  for (std::int64_t n = 0; n < c.call.sequences(); ++n) {
    NamedTensors state = state_of(c.call.states, n);
    std::int64_t first = 0;
    for (std::int64_t last : cuts(length_of(c.call, n))) {
      ModuleResult piece = c.module.forward(part_of(c.call, n, first, last, state));
      outputs.push_back(std::move(piece.outputs));
      state = std::move(piece.states);
      first = last;
    }
    states.push_back(std::move(state));
  }
  return {joined(outputs), joined(states)};
}

std::vector<std::int64_t> token_by_token(std::int64_t length) {
  std::vector<std::int64_t> ends;
  for (std::int64_t t = 0; t <= length; ++t) ends.push_back(t); // an empty call first: it keeps the state
  return ends;
}
Cuts one_cut(std::uint64_t seed) {
  return [seed](std::int64_t length) {
    return std::vector<std::int64_t>{length > 0 ? static_cast<std::int64_t>(seed % static_cast<std::uint64_t>(length)) : 0, length};
  };
}

Finding agrees_with_the_oracle(const ModuleCase& c, std::uint64_t seed) { return judge_module(c, c.module.forward(c.call), seed); }

Finding gradients_agree(const ModuleCase& c, std::uint64_t seed) {
  return judge_module_gradients(c, c.module.backward(c.call, c.cotangents), seed);
}

Finding prefill_equals_decode(const ModuleCase& c, std::uint64_t seed) {
  return judge_module(c, in_pieces(c, token_by_token), seed, token_by_token);
}

Finding sequence_splits_anywhere(const ModuleCase& c, std::uint64_t seed) {
  return judge_module(c, in_pieces(c, one_cut(seed)), seed, one_cut(seed));
}

Finding causal(const ModuleCase& c, std::uint64_t seed) {
  const ModuleResult before = c.module.forward(c.call);
  Finding worst;
  for (std::int64_t n = 0; n < c.call.sequences(); ++n) {
    const std::int64_t length = length_of(c.call, n);
    if (length < 2) continue;
    const std::int64_t kept = 1 + static_cast<std::int64_t>(seed % static_cast<std::uint64_t>(length - 1));
    const std::int64_t start = c.call.cu_seqlens[static_cast<std::size_t>(n)];
    ModuleCall changed = c.call;
    for (NamedTensor& tensor : changed.inputs) {
      const std::int64_t width = element_count(std::span(tensor.shape).subspan(1));
      for (std::int64_t i = (start + kept) * width; i < (start + length) * width; ++i)
        tensor.values[static_cast<std::size_t>(i)] *= 0.5f; // keeps every domain
    }
    const ModuleResult after = c.module.forward(changed);
    worst = graver(std::move(worst), same_bits(rows_of(before.outputs, start, start + kept), rows_of(after.outputs, start, start + kept),
                                               "later tokens changed what stands before them"));
  }
  return worst;
}

/// A module may refuse what is not finite; one that takes it shows it where it entered, and nowhere before or beside.
Finding a_nan_stays_in_its_place(const ModuleCase& c, std::uint64_t seed) {
  std::int64_t n = static_cast<std::int64_t>(seed % static_cast<std::uint64_t>(c.call.sequences()));
  if (length_of(c.call, n) == 0) n = (n + 1) % c.call.sequences(); // else the seed of the quick tier would ask most modules nothing
  const std::int64_t start = c.call.cu_seqlens[static_cast<std::size_t>(n)], length = length_of(c.call, n);
  if (length == 0) return {.verdict = Verdict::not_supported, .bound_util = 0, .place = {}, .detail = "an empty sequence", .metrics = {}};
  const std::int64_t t = start + static_cast<std::int64_t>(seed / 7 % static_cast<std::uint64_t>(length)), end = start + length;
  const ModuleResult before = c.module.forward(c.call);
  ModuleCall poisoned = c.call;
  NamedTensor& entry = poisoned.inputs.front();
  const std::int64_t width = element_count(std::span(entry.shape).subspan(1));
  entry.values[static_cast<std::size_t>(t * width)] = std::numeric_limits<float>::quiet_NaN();
  ModuleResult after;
  try {
    after = c.module.forward(poisoned);
  } catch (const std::invalid_argument&) {
    return {};
  }
  const std::int64_t tokens = c.call.cu_seqlens.back();
  Finding worst = same_bits(rows_of(before.outputs, 0, t), rows_of(after.outputs, 0, t), "a NaN changed what stands before it");
  worst = graver(std::move(worst), same_bits(rows_of(before.outputs, end, tokens), rows_of(after.outputs, end, tokens),
                                             "a NaN changed the sequences behind its own"));
  for (std::int64_t other = 0; other < c.call.sequences(); ++other)
    if (other != n)
      worst = graver(std::move(worst), same_bits(state_of(before.states, other), state_of(after.states, other),
                                                 "a NaN changed the state of another sequence"));
  const NamedTensors shown = after.outputs.empty() ? state_of(after.states, n) : rows_of(after.outputs, t, t + 1);
  for (const NamedTensor& tensor : shown)
    if (std::ranges::any_of(tensor.values, [](float x) { return std::isnan(x); })) return worst;
  return graver(std::move(worst), broken(shown.front().name, t, "a NaN in " + entry.name + " is nowhere to be seen"));
}

Finding packed_equals_separate(const ModuleCase& c, std::uint64_t) {
  const ModuleResult together = c.module.forward(c.call);
  const ModuleResult apart = in_pieces(c, [](std::int64_t length) { return std::vector<std::int64_t>{length}; });
  return graver(same_bits(together.outputs, apart.outputs, "packed and alone"),
                same_bits(together.states, apart.states, "packed and alone"));
}

Finding repeated_calls_agree(const ModuleCase& c, std::uint64_t) {
  const ModuleResult one = c.module.forward(c.call), other = c.module.forward(c.call);
  Finding finding = graver(same_bits(one.outputs, other.outputs, "called twice"), same_bits(one.states, other.states, "called twice"));
  if (!c.module.backward) return finding;
  const ModuleGradients d = c.module.backward(c.call, c.cotangents), e = c.module.backward(c.call, c.cotangents);
  finding = graver(std::move(finding), same_bits(d.inputs, e.inputs, "called twice"));
  return graver(std::move(finding), same_bits(d.parameters, e.parameters, "called twice"));
}

/// The call with padding before, inside and behind every sequence, filled with large numbers; `even`: to one length, as a batch.
struct Padded {
  ModuleCall call;
  std::vector<std::int64_t> place; ///< of each row
};
Padded padded(const ModuleCall& call, std::uint64_t seed, bool even) {
  Padded result{call, {}};
  result.call.cu_seqlens = {0};
  result.call.mask.clear();
  std::int64_t longest = 0; // of a batch: at most two rows of padding before each token and behind the last
  for (std::int64_t n = 0; n < call.sequences(); ++n) longest = std::max(longest, 3 * length_of(call, n) + 2);
  std::uint64_t bits = seed * 0x9e3779b97f4a7c15ull + 1;
  const auto pad = [&] {
    bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
    result.call.mask.insert(result.call.mask.end(), static_cast<std::size_t>(bits % 3), std::uint8_t{0});
  };
  for (std::int64_t n = 0; n < call.sequences(); ++n) {
    for (std::int64_t t = 0; t < length_of(call, n); ++t) {
      pad();
      result.place.push_back(static_cast<std::int64_t>(result.call.mask.size()));
      result.call.mask.push_back(1);
    }
    pad();
    if (even) result.call.mask.resize(static_cast<std::size_t>((n + 1) * longest), std::uint8_t{0});
    result.call.cu_seqlens.push_back(static_cast<std::int64_t>(result.call.mask.size()));
  }
  for (NamedTensor& tensor : result.call.inputs) {
    const std::int64_t width = element_count(std::span(tensor.shape).subspan(1));
    std::vector<float> wide(result.call.mask.size() * static_cast<std::size_t>(width), 1000.0f);
    for (std::size_t i = 0; i < result.place.size(); ++i)
      std::copy_n(tensor.values.begin() + static_cast<std::int64_t>(i) * width, width, wide.begin() + result.place[i] * width);
    tensor.values = std::move(wide);
    tensor.shape[0] = static_cast<std::int64_t>(result.call.mask.size());
  }
  return result;
}

/// Rows at `place`; all others must be 0.
Finding kept_rows(const NamedTensors& wide, const std::vector<std::int64_t>& place, const NamedTensors& wanted, const char* what) {
  std::vector<NamedTensors> rows;
  for (std::int64_t row : place) rows.push_back(rows_of(wide, row, row + 1));
  if (!rows.empty())
    if (Finding finding = same_bits(joined(rows), wanted, what); finding.verdict != Verdict::passed) return finding;
  for (const NamedTensor& tensor : wide) {
    const auto width = static_cast<std::size_t>(element_count(std::span(tensor.shape).subspan(1)));
    std::size_t next = 0;
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {
      while (next < place.size() && static_cast<std::size_t>(place[next]) < i / width) ++next;
      const bool kept = next < place.size() && static_cast<std::size_t>(place[next]) == i / width;
      if (!kept && !(tensor.values[i] == 0.0f))
        return broken(tensor.name, static_cast<std::int64_t>(i / width), "a row of padding is not 0");
    }
  }
  return {};
}

Finding padding_is_invisible(const ModuleCase& c, const Padded& wide) {
  const ModuleResult bare = c.module.forward(c.call), with = c.module.forward(wide.call);
  Finding finding = graver(kept_rows(with.outputs, wide.place, bare.outputs, "with padding and without"),
                           same_bits(bare.states, with.states, "with padding and without"));
  if (!c.module.backward) return finding;
  ModuleCotangents cotangents = c.cotangents;
  for (NamedTensor& tensor : cotangents.outputs) {
    NamedTensor spread = zeros(tensor.name, tensor.shape);
    const std::int64_t width = element_count(std::span(tensor.shape).subspan(1));
    spread.shape[0] = wide.call.rows();
    spread.values.assign(static_cast<std::size_t>(spread.shape[0] * width), 7.0f); // what a loss says of padding must not matter
    for (std::size_t i = 0; i < wide.place.size(); ++i)
      std::copy_n(tensor.values.begin() + static_cast<std::int64_t>(i) * width, width, spread.values.begin() + wide.place[i] * width);
    tensor = std::move(spread);
  }
  const ModuleGradients d = c.module.backward(c.call, c.cotangents), e = c.module.backward(wide.call, cotangents);
  finding = graver(std::move(finding), kept_rows(e.inputs, wide.place, d.inputs, "gradients with padding and without"));
  return graver(std::move(finding), same_bits(d.parameters, e.parameters, "gradients with padding and without"));
}

Finding padding_is_invisible(const ModuleCase& c, std::uint64_t seed) {
  return graver(padding_is_invisible(c, padded(c.call, seed, false)), padding_is_invisible(c, padded(c.call, seed, true)));
}

/// What a loss does not say of outputs or states counts as zero.
Finding absent_cotangents_are_zero(const ModuleCase& c, std::uint64_t) {
  const auto zeroed = [](const NamedTensors& tensors) {
    NamedTensors result;
    for (const NamedTensor& tensor : tensors) result.push_back(zeros(tensor.name, tensor.shape));
    return result;
  };
  Finding finding;
  for (const bool states : {false, true}) {
    const NamedTensors& dropped = states ? c.cotangents.states : c.cotangents.outputs;
    if (dropped.empty()) continue;
    ModuleCotangents absent = c.cotangents, zero = c.cotangents;
    (states ? absent.states : absent.outputs).clear(), (states ? zero.states : zero.outputs) = zeroed(dropped);
    const ModuleGradients d = c.module.backward(c.call, absent), e = c.module.backward(c.call, zero);
    finding = graver(std::move(finding), same_numbers(d.inputs, e.inputs, "a cotangent of zeros and none"));
    finding = graver(std::move(finding), same_numbers(d.parameters, e.parameters, "a cotangent of zeros and none"));
    finding = graver(std::move(finding), same_numbers(d.states, e.states, "a cotangent of zeros and none"));
  }
  return finding;
}

/// Backward through two calls, the second's gradient of its state handed to the first.
Finding gradients_pass_through_a_split(const ModuleCase& c, std::uint64_t seed) {
  ModuleGradients sum;
  std::vector<NamedTensors> inputs, states;
  const auto add = [&](const NamedTensors& terms) {
    if (sum.parameters.empty())
      sum.parameters = terms;
    else
      for (std::size_t n = 0; n < terms.size(); ++n)
        for (std::size_t i = 0; i < terms[n].values.size(); ++i) sum.parameters[n].values[i] += terms[n].values[i];
  };
  for (std::int64_t n = 0; n < c.call.sequences(); ++n) {
    const std::int64_t length = length_of(c.call, n), start = c.call.cu_seqlens[static_cast<std::size_t>(n)];
    const std::int64_t cut = one_cut(seed)(length).front();
    const ModuleCall first = part_of(c.call, n, 0, cut, state_of(c.call.states, n));
    const ModuleCall second = part_of(c.call, n, cut, length, c.module.forward(first).states);
    const auto loss = [&](std::int64_t from, std::int64_t to, NamedTensors d_states) {
      return ModuleCotangents{c.cotangents.outputs.empty() ? NamedTensors{} : rows_of(c.cotangents.outputs, start + from, start + to),
                              std::move(d_states)};
    };
    ModuleGradients later = c.module.backward(second, loss(cut, length, state_of(c.cotangents.states, n)));
    ModuleGradients earlier = c.module.backward(first, loss(0, cut, std::move(later.states)));
    inputs.push_back(std::move(earlier.inputs)), inputs.push_back(std::move(later.inputs));
    states.push_back(std::move(earlier.states));
    add(earlier.parameters), add(later.parameters);
  }
  sum.inputs = joined(inputs), sum.states = joined(states);
  return judge_module_gradients(c, sum, seed, one_cut(seed));
}

} // namespace

std::vector<ModuleLaw> token_laws() {
  return {{"agrees-with-the-oracle", "outputs and states err no more than fp32 allows on this call", false, agrees_with_the_oracle},
          {"prefill-equals-decode", "token by token, each from the state that the one before left, is within the same bound", false,
           prefill_equals_decode},
          {"sequence-splits-anywhere", "two calls, the second from the first's state, are within the same bound", false,
           sequence_splits_anywhere},
          {"causal", "later tokens change nothing before them, bit for bit", false, causal},
          {"packed-equals-separate", "sequences packed and alone give the same bits", false, packed_equals_separate},
          {"padding-is-invisible", "padding changes no bit of outputs, states and gradients, and its own rows are 0", false,
           padding_is_invisible},
          {"a-nan-stays-in-its-place", "a NaN in an input is refused, or shows at its token and changes nothing before and beside it",
           false, a_nan_stays_in_its_place},
          {"repeated-calls-agree", "the same call twice gives the same bits", false, repeated_calls_agree},
          {"gradients-agree-with-the-oracle", "the gradients of inputs, parameters and states err no more than fp32 allows", true,
           gradients_agree},
          {"absent-cotangents-are-zero", "a loss that says nothing of outputs, or of states, sends back what zeros do", true,
           absent_cotangents_are_zero},
          {"gradients-pass-through-a-split", "gradients over two calls, joined by their state, are within the same bound", true,
           gradients_pass_through_a_split}};
}

} // namespace kdacheck
