#pragma once
// Managers of states under test: the suite's own, and a plain one in ordered containers, right or wrong on purpose.
// Origins: "class" marks a fault of a kind that has been reported of checkpoints elsewhere, without a link to one report.

#include "../modules/state_manager.hpp"

#include <functional>
#include <span>
#include <string_view>

namespace kdacheck {

/// What a program may ask of a manager; each as StateManager's member of that name says.
struct StateStore {
  std::function<std::vector<modules::StateFault>(const modules::StateTokens&)> update;
  std::function<void()> checkpoint, finish_writing;
  std::function<void(std::int64_t)> restore;
  std::function<void(const std::filesystem::path&)> save, load;
  std::function<bool()> load_latest;
  std::function<std::vector<float>()> states;
  std::function<std::int64_t()> step, restored_count, clipped_count;
  std::function<std::vector<std::int64_t>()> checkpoint_steps;
  std::function<modules::StateMemory()> memory;
};

/// The suite's StateManager.
StateStore managed_states(const modules::StateSettings&);

struct StateFaultInfo {
  std::string_view name, origin, what;
};
std::span<const StateFaultInfo> state_faults();

/// The plain manager: one copy of the states per checkpoint, one head after the other. With an empty name it is right, and
/// the model that laws hold others to; else it has that fault. Throws std::out_of_range for an unknown one.
StateStore plain_states(const modules::StateSettings&, std::string_view fault = {});

} // namespace kdacheck
