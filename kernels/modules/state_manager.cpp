#include "state_manager.hpp"

#include "../../reference/atomic_file.hpp"
#include "../../reference/file_calls.hpp"
#include "../../reference/safetensors.hpp"
#include "../cpu/parallel.hpp"
#include "head_step.hpp"
#include "partial_lanes.hpp"
#include "state_file.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <exception>
#include <fmt/core.h>
#include <system_error>
#include <tuple>

namespace kdacheck::modules {
namespace {

constexpr float clip = 1e6f;
constexpr const char* file_start = "checkpoint-";

bool all_finite(const float* values, std::int64_t count) {
  std::uint32_t found = 0; // without a branch: this runs over every state after every token
  for (std::int64_t i = 0; i < count; ++i) found |= (std::bit_cast<std::uint32_t>(values[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return found == 0;
}

/// By whole registers: memmove of a head took twenty times the step itself.
void copy_head(const float* from, std::int64_t count, float* to) {
  for (std::int64_t at = 0; at < count; at += cpu::lane_count) store_part(to + at, load_part(from + at, count - at), count - at);
}

void check_size(const char* tensor, const char* shape, std::size_t found, std::int64_t wanted) {
  if (static_cast<std::int64_t>(found) != wanted)
    throw std::invalid_argument(fmt::format("states: {} has {} numbers, its shape {} needs {}", tensor, found, shape, wanted));
}

void check_tokens(const StateShape& largest, const StateTokens& tokens) {
  if (tokens.B < 1 || tokens.B > largest.B)
    throw std::invalid_argument(fmt::format("states: a batch of {} was given, room is for 1 to {}", tokens.B, largest.B));
  if (tokens.T < 0) throw std::invalid_argument(fmt::format("states: T = {} must not be negative", tokens.T));
  const std::int64_t heads = tokens.B * tokens.T * largest.H;
  check_size("alpha", "[B,T,H,K]", tokens.alpha.size(), heads * largest.K);
  check_size("k", "[B,T,H,K]", tokens.k.size(), heads * largest.K);
  check_size("beta", "[B,T,H]", tokens.beta.size(), heads);
  check_size("v", "[B,T,H,V]", tokens.v.size(), heads * largest.V);
}

/// Files of checkpoints or what is left of them, by name.
std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder, bool partial) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(file_start)) continue;
    if (partial ? name.find(".safetensors.partial-") != std::string::npos : name.ends_with(".safetensors")) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

void remove_file(const std::filesystem::path& path) {
  std::error_code ignored; // what cannot be removed stays: it costs room, not truth
  std::filesystem::remove(path, ignored);
}

std::filesystem::path file_of(const std::filesystem::path& folder, std::int64_t step) {
  return folder / fmt::format("{}{:020}.safetensors", file_start, step);
}

/// Only when the new one is whole may an old one go.
void write_checkpoint(const StateSettings& settings, std::int64_t step, std::span<const float> states) {
  const auto path = file_of(settings.folder, step);
  write_states(path, settings.largest, step, states);
  auto files = files_in(settings.folder, false);
  std::erase(files, path);
  const auto surplus = static_cast<std::int64_t>(files.size()) + 1 - settings.checkpoints_kept;
  for (std::int64_t i = 0; i < surplus; ++i) remove_file(files[static_cast<std::size_t>(i)]);
}

} // namespace

StateManager::StateManager(StateSettings settings) : settings_(std::move(settings)) {
  const auto& [B, H, K, V] = settings_.largest;
  if (B < 1 || H < 1 || K < 1 || V < 1)
    throw std::invalid_argument(fmt::format("states: B = {}, H = {}, K = {}, V = {} must all be positive", B, H, K, V));
  if (settings_.checkpoint_interval < 0 || settings_.checkpoints_kept < 1)
    throw std::invalid_argument(fmt::format("states: an interval of {} and {} checkpoints kept make no sense",
                                            settings_.checkpoint_interval, settings_.checkpoints_kept));
  states_.assign(static_cast<std::size_t>(settings_.largest.elements()), 0.0f);
  scratch_.assign(static_cast<std::size_t>(cpu::worker_count(B * H) * K * V), 0.0f);
  checkpoints_.reserve(static_cast<std::size_t>(settings_.checkpoints_kept) + 1);
  spare_.reserve(static_cast<std::size_t>(settings_.checkpoints_kept) + 1);
  if (settings_.folder.empty()) return;
  if (settings_.write_behind) outgoing_.reserve(states_.size());
  make_folder(settings_.folder);
  for (const auto& file : files_in(settings_.folder, true)) remove_file(file);
}

/// Tokens first .. first + count - 1 of a call, head by head.
void StateManager::step_heads(const StateTokens& tokens, std::int64_t first, std::int64_t count, std::vector<StateFault>& faults) {
  const auto& [largest, H, K, V] = settings_.largest;
  const std::int64_t size = K * V, heads = H; // bindings cannot be captured by the parallel region below
  const std::int64_t keys = K, values = V;
  const auto work = 3.0 * static_cast<double>(tokens.B * H * size * count);
  cpu::for_each_task(tokens.B * H, std::as_writable_bytes(std::span(scratch_)), static_cast<std::size_t>(size) * sizeof(float), work,
                     [&](std::int64_t task, std::byte* memory) {
                       const std::int64_t b = task / heads, h = task % heads;
                       float *state = states_.data() + task * size, *before = reinterpret_cast<float*>(memory);
                       for (std::int64_t t = first; t < first + count; ++t) {
                         const std::int64_t row = (b * tokens.T + t) * heads + h;
                         copy_head(state, size, before);
                         step_head(KdaHead{.alpha = tokens.alpha.data() + row * keys,
                                           .k = tokens.k.data() + row * keys,
                                           .beta = tokens.beta[static_cast<std::size_t>(row)],
                                           .v = tokens.v.data() + row * values},
                                   keys, values, state);
                         if (all_finite(state, size)) continue;
                         StateFault fault{.kind = StateFault::Kind::clipped, .b = b, .h = h, .step = step_ + t - first, .elements = 0};
                         if (std::any_of(state, state + size, [](float x) { return std::isnan(x); })) {
                           std::copy_n(before, size, state);
                           fault.kind = StateFault::Kind::restored;
                           fault.elements = size;
                         } else {
                           for (float& x : std::span(state, static_cast<std::size_t>(size)))
                             if (std::isinf(x)) {
                               x = std::copysign(clip, x);
                               ++fault.elements;
                             }
                         }
#pragma omp critical(kdacheck_state_faults)
                         faults.push_back(fault);
                       }
                     });
}

std::vector<StateFault> StateManager::update(const StateTokens& tokens) {
  check_tokens(settings_.largest, tokens);
  std::vector<StateFault> faults;
  const std::int64_t interval = settings_.checkpoint_interval;
  for (std::int64_t done = 0; done < tokens.T;) {
    const std::int64_t left = tokens.T - done, count = interval > 0 ? std::min(left, interval - step_ % interval) : left;
    std::vector<StateFault> found;
    step_heads(tokens, done, count, found);
    for (const StateFault& fault : found)
      (fault.kind == StateFault::Kind::restored ? restored_ : clipped_) += fault.kind == StateFault::Kind::restored ? 1 : fault.elements;
    faults.insert(faults.end(), found.begin(), found.end());
    done += count;
    step_ += count;
    if (interval > 0 && step_ % interval == 0) checkpoint();
  }
  std::ranges::sort(faults, {}, [](const StateFault& fault) { return std::tuple(fault.step, fault.b, fault.h); });
  return faults;
}

void StateManager::checkpoint() {
  std::vector<float> memory;
  if (!checkpoints_.empty() && checkpoints_.back().step == step_) {
    memory = std::move(checkpoints_.back().states);
    checkpoints_.pop_back();
  } else if (static_cast<std::int64_t>(checkpoints_.size()) == settings_.checkpoints_kept) {
    memory = std::move(checkpoints_.front().states);
    checkpoints_.erase(checkpoints_.begin());
  } else if (!spare_.empty()) {
    memory = std::move(spare_.back());
    spare_.pop_back();
  }
  memory.assign(states_.begin(), states_.end());
  checkpoints_.push_back({step_, std::move(memory)});
  if (settings_.folder.empty()) return;
  if (settings_.write_behind)
    write_behind();
  else
    write_checkpoint(settings_, step_, states_);
}

void StateManager::write_behind() {
  std::exception_ptr earlier;
  try {
    finish_writing();
  } catch (const FileTrouble&) {
    earlier = std::current_exception(); // this one may fare better
  }
  outgoing_.assign(states_.begin(), states_.end());
  const auto write = [settings = settings_, step = step_, states = std::span<const float>(outgoing_), calls = file_calls()] {
    file_calls() = calls;
    write_checkpoint(settings, step, states);
  };
  try {
    writing_ = std::async(std::launch::async, write);
  } catch (const std::system_error&) { // no thread is to be had
    write();
  }
  if (earlier) std::rethrow_exception(earlier);
}

void StateManager::finish_writing() {
  if (writing_.valid()) writing_.get();
}

void StateManager::restore(std::int64_t step) {
  const auto found = std::ranges::find(checkpoints_, step, &Checkpoint::step);
  if (found == checkpoints_.end()) throw std::invalid_argument(fmt::format("states: there is no checkpoint of step {}", step));
  finish_writing();
  std::ranges::copy(found->states, states_.begin());
  step_ = step;
  forget_after(step);
}

void StateManager::forget_after(std::int64_t step) {
  while (!checkpoints_.empty() && checkpoints_.back().step > step) {
    spare_.push_back(std::move(checkpoints_.back().states));
    checkpoints_.pop_back();
  }
  if (settings_.folder.empty()) return;
  for (const auto& file : files_in(settings_.folder, false))
    if (file > file_of(settings_.folder, step)) remove_file(file);
}

void StateManager::save(const std::filesystem::path& path) const { write_states(path, settings_.largest, step_, states_); }

void StateManager::load(const std::filesystem::path& path) {
  finish_writing();
  const StoredStates stored = read_states(path, settings_.largest);
  std::ranges::copy(stored.states, states_.begin());
  step_ = stored.step;
  forget_after(step_);
}

bool StateManager::load_latest() {
  if (settings_.folder.empty()) return false;
  finish_writing();
  auto files = files_in(settings_.folder, false);
  for (; !files.empty(); files.pop_back()) {
    try {
      load(files.back());
      return true;
    } catch (const BadFile&) { // damaged: the one before it
    }
  }
  return false;
}

std::vector<std::int64_t> StateManager::checkpoint_steps() const {
  std::vector<std::int64_t> steps;
  for (const Checkpoint& checkpoint : checkpoints_) steps.push_back(checkpoint.step);
  return steps;
}

StateMemory StateManager::memory() const {
  const auto bytes = [](const auto& values) { return values.capacity() * sizeof(values[0]); };
  StateMemory result{
      .states = bytes(states_), .scratch = bytes(scratch_), .checkpoints = 0, .bookkeeping = bytes(checkpoints_) + bytes(spare_)};
  for (const Checkpoint& checkpoint : checkpoints_) result.checkpoints += bytes(checkpoint.states);
  for (const auto& memory : spare_) result.checkpoints += bytes(memory);
  result.checkpoints += bytes(outgoing_);
  return result;
}

} // namespace kdacheck::modules
