#include "state_faults.hpp"

#include "../../reference/atomic_file.hpp"
#include "../../reference/file_calls.hpp"
#include "../../reference/safetensors.hpp"
#include "../modules/state_file.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/core.h>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <utility>

namespace kdacheck {
namespace {

using namespace modules;

constexpr std::array<StateFaultInfo, 19> catalogue{{
    {"decays-what-it-writes", "class", "a token's own value decays by its alpha"},
    {"checkpoint-is-the-live-state", "class", "a checkpoint shares its numbers with the states: to restore it changes nothing"},
    {"restore-takes-the-next-slot", "class", "restore copies the checkpoint that stands beside the one asked for"},
    {"restore-keeps-the-step", "class", "the states go back, the count of steps does not"},
    {"restore-keeps-later-checkpoints", "class", "checkpoints of a future that will not come stay"},
    {"newest-pruned", "class", "beyond the number kept the newest checkpoint goes"},
    {"pruned-before-written", "class", "the old file goes before the new one is whole"},
    {"old-file-removed-first", "class", "save removes what stands under the name before it writes"},
    {"numbers-not-flushed", "class", "the file has its name before its numbers are on the disk"},
    {"name-not-flushed", "class", "save returns before the file's name is on the disk"},
    {"checkpoint-at-the-end-of-the-call", "class", "the interval is looked at once a call, not at every token"},
    {"nan-not-counted", "class", "a NaN is repaired and reported, the count stays"},
    {"nan-restores-every-head", "class", "a NaN in one head takes the token from all heads"},
    {"nan-left-in-the-state", "class", "only infinities are repaired"},
    {"clipped-without-sign", "class", "minus infinity becomes plus 1e6"},
    {"bytes-with-header", "class", "each checkpoint is said to be larger by the eight bytes of its step"},
    {"bytes-of-the-batch-in-use", "class", "memory is counted for the sequences of the last call, not for those allocated"},
    {"load-without-checksum", "class", "a damaged file is taken for good"},
    {"load-latest-gives-up", "class", "a damaged newest checkpoint hides the good ones before it"},
}};

/// Numbers and step of a file, whatever its checksum says.
StoredStates unchecked(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  return {std::stoll(file.table().metadata.at("step")), floats(*file.table().find("state"))};
}

class PlainStates {
public:
  PlainStates(StateSettings settings, std::string_view fault) : settings_(std::move(settings)), fault_(fault) {
    states_.assign(static_cast<std::size_t>(settings_.largest.elements()), 0.0f);
    if (settings_.folder.empty()) return;
    make_folder(settings_.folder);
    for (const auto& entry : std::filesystem::directory_iterator(settings_.folder))
      if (entry.path().filename().string().find(".safetensors.partial-") != std::string::npos) std::filesystem::remove(entry.path());
  }

  std::vector<StateFault> update(const StateTokens& tokens) {
    std::vector<StateFault> faults;
    in_use_ = tokens.B;
    const std::int64_t interval = settings_.checkpoint_interval;
    for (std::int64_t t = 0; t < tokens.T; ++t) {
      token(tokens, t, faults);
      ++step_;
      const bool looks = !is("checkpoint-at-the-end-of-the-call") || t + 1 == tokens.T;
      if (interval > 0 && step_ % interval == 0 && looks) checkpoint();
    }
    return faults;
  }

  void checkpoint() {
    checkpoints_[step_] = states_;
    const bool surplus = static_cast<std::int64_t>(checkpoints_.size()) > settings_.checkpoints_kept;
    if (surplus) checkpoints_.erase(is("newest-pruned") ? std::prev(checkpoints_.end()) : checkpoints_.begin());
    if (settings_.folder.empty()) return;
    if (is("pruned-before-written")) prune_files(settings_.checkpoints_kept - 1);
    save(file_of(step_));
    prune_files(settings_.checkpoints_kept);
  }

  void restore(std::int64_t step) {
    auto found = checkpoints_.find(step);
    if (found == checkpoints_.end()) throw std::invalid_argument(fmt::format("states: there is no checkpoint of step {}", step));
    if (is("restore-takes-the-next-slot")) found = std::next(found) == checkpoints_.end() ? checkpoints_.begin() : std::next(found);
    go_to(step, is("checkpoint-is-the-live-state") ? states_ : found->second);
  }

  void save(const std::filesystem::path& path) const {
    std::error_code ignored;
    if (is("old-file-removed-first")) std::filesystem::remove(path, ignored);
    const FileCallsKept kept;
    if (is("numbers-not-flushed") || is("name-not-flushed"))
      file_calls().flush = [this, flush = kept.before.flush](int descriptor) {
        struct stat what {};
        const bool folder = ::fstat(descriptor, &what) == 0 && S_ISDIR(what.st_mode);
        return folder == is("name-not-flushed") ? 0 : flush(descriptor);
      };
    write_states(path, settings_.largest, step_, states_);
  }

  void load(const std::filesystem::path& path) {
    const StoredStates stored = is("load-without-checksum") ? unchecked(path) : read_states(path, settings_.largest);
    go_to(stored.step, stored.states);
  }

  bool load_latest() {
    std::vector<std::filesystem::path> all = files();
    for (; !all.empty(); all.pop_back()) {
      try {
        load(all.back());
        return true;
      } catch (const BadFile&) {
        if (is("load-latest-gives-up")) return false;
      }
    }
    return false;
  }

  std::vector<std::int64_t> checkpoint_steps() const {
    std::vector<std::int64_t> steps;
    for (const auto& [step, states] : checkpoints_) steps.push_back(step);
    return steps;
  }

  StateMemory memory() const {
    const std::size_t one = states_.size() * sizeof(float), kept = checkpoints_.size();
    StateMemory result{.states = one, .scratch = 0, .checkpoints = kept * one, .bookkeeping = 0};
    if (is("bytes-with-header")) result.checkpoints += kept * sizeof(std::int64_t);
    if (is("bytes-of-the-batch-in-use"))
      result.states = one / static_cast<std::size_t>(settings_.largest.B) * static_cast<std::size_t>(in_use_);
    return result;
  }

  const std::vector<float>& states() const { return states_; }
  std::int64_t step() const { return step_; }
  std::int64_t restored() const { return restored_; }
  std::int64_t clipped() const { return clipped_; }

private:
  bool is(std::string_view fault) const { return fault_ == fault; }

  /// Token t of every sequence.
  void token(const StateTokens& tokens, std::int64_t t, std::vector<StateFault>& faults) {
    const auto& [B, H, K, V] = settings_.largest;
    const std::vector<float> before = states_;
    for (std::int64_t b = 0; b < tokens.B; ++b)
      for (std::int64_t h = 0; h < H; ++h) {
        const std::int64_t row = (b * tokens.T + t) * H + h, size = K * V;
        const auto part = [&](std::span<const float> from, std::int64_t width) {
          return from.subspan(static_cast<std::size_t>(row * width), static_cast<std::size_t>(width));
        };
        const auto state = std::span(states_).subspan(static_cast<std::size_t>((b * H + h) * size), static_cast<std::size_t>(size));
        const std::vector<float> ones(static_cast<std::size_t>(K), 1.0f);
        const bool late = is("decays-what-it-writes");
        modules::update({1, 1, K, V},
                        KdaStep{late ? std::span<const float>(ones) : part(tokens.alpha, K), part(tokens.k, K), part(tokens.beta, 1),
                                part(tokens.v, V)},
                        state);
        for (std::int64_t i = 0; i < size && late; ++i)
          state[static_cast<std::size_t>(i)] *= part(tokens.alpha, K)[static_cast<std::size_t>(i / V)];
        const bool lost = std::ranges::any_of(state, [](float x) { return std::isnan(x); });
        const auto infinite = std::ranges::count_if(state, [](float x) { return std::isinf(x); });
        if (lost && !is("nan-left-in-the-state")) {
          if (is("nan-restores-every-head"))
            states_ = before;
          else
            std::copy_n(before.begin() + (b * H + h) * size, size, state.begin());
          restored_ += is("nan-not-counted") ? 0 : 1;
          faults.push_back({StateFault::Kind::restored, b, h, step_, size});
        } else if (!lost && infinite > 0) {
          for (float& x : state)
            if (std::isinf(x)) x = is("clipped-without-sign") ? 1e6f : std::copysign(1e6f, x);
          clipped_ += infinite;
          faults.push_back({StateFault::Kind::clipped, b, h, step_, infinite});
        }
      }
  }

  void go_to(std::int64_t step, std::vector<float> states) {
    states_ = std::move(states);
    if (!is("restore-keeps-the-step")) step_ = step;
    if (is("restore-keeps-later-checkpoints")) return;
    checkpoints_.erase(checkpoints_.upper_bound(step), checkpoints_.end());
    for (const auto& file : files())
      if (file > file_of(step)) std::filesystem::remove(file);
  }

  void prune_files(std::int64_t kept) const {
    const std::vector<std::filesystem::path> all = files();
    for (std::size_t i = 0; i + static_cast<std::size_t>(kept) < all.size(); ++i) std::filesystem::remove(all[i]);
  }

  std::filesystem::path file_of(std::int64_t step) const { return settings_.folder / fmt::format("checkpoint-{:020}.safetensors", step); }

  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> all;
    if (settings_.folder.empty()) return all;
    for (const auto& entry : std::filesystem::directory_iterator(settings_.folder))
      if (entry.path().extension() == ".safetensors") all.push_back(entry.path());
    std::ranges::sort(all);
    return all;
  }

  StateSettings settings_;
  std::string fault_;
  std::vector<float> states_;
  std::map<std::int64_t, std::vector<float>> checkpoints_;
  std::int64_t step_ = 0, restored_ = 0, clipped_ = 0, in_use_ = 1;
};

/// One object behind all functions of a store.
template <class States> StateStore store_of(const std::shared_ptr<States>& of) {
  return {.update = [of](const StateTokens& tokens) { return of->update(tokens); },
          .checkpoint = [of] { of->checkpoint(); },
          .finish_writing = [] {},
          .restore = [of](std::int64_t step) { of->restore(step); },
          .save = [of](const std::filesystem::path& path) { of->save(path); },
          .load = [of](const std::filesystem::path& path) { of->load(path); },
          .load_latest = [of] { return of->load_latest(); },
          .states = [of] { return std::vector<float>(of->states().begin(), of->states().end()); },
          .step = [of] { return of->step(); },
          .restored_count = {},
          .clipped_count = {},
          .checkpoint_steps = [of] { return of->checkpoint_steps(); },
          .memory = [of] { return of->memory(); }};
}

} // namespace

StateStore managed_states(const StateSettings& settings) {
  const auto manager = std::make_shared<StateManager>(settings);
  StateStore store = store_of(manager);
  store.finish_writing = [manager] { manager->finish_writing(); };
  store.restored_count = [manager] { return manager->restored_count(); };
  store.clipped_count = [manager] { return manager->clipped_count(); };
  return store;
}

std::span<const StateFaultInfo> state_faults() { return catalogue; }

StateStore plain_states(const StateSettings& settings, std::string_view fault) {
  if (!fault.empty() && std::ranges::find(catalogue, fault, &StateFaultInfo::name) == catalogue.end())
    throw std::out_of_range("there is no fault of states " + std::string(fault));
  const auto plain = std::make_shared<PlainStates>(settings, fault);
  StateStore store = store_of(plain);
  store.restored_count = [plain] { return plain->restored(); };
  store.clipped_count = [plain] { return plain->clipped(); };
  return store;
}

} // namespace kdacheck
