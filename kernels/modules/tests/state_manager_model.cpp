// Random sequences of commands against a model that keeps everything in plain containers.

#include "state_tokens.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <rapidcheck.h>
#include <rapidcheck/state.h>

using namespace kdacheck::modules;

namespace {

const StateShape shape{2, 2, 3, 4};
constexpr std::int64_t interval = 3, kept = 2, head_size = 12;

using Kept = std::map<std::int64_t, std::vector<float>>; ///< by step

/// What a manager should hold.
struct Model {
  std::vector<float> states = std::vector<float>(static_cast<std::size_t>(shape.elements()), 0.0f);
  std::int64_t step = 0, restored = 0, clipped = 0;
  Kept memory, files;
  std::optional<std::pair<std::int64_t, std::vector<float>>> saved;

  void checkpoint() {
    for (Kept* place : {&memory, &files}) {
      (*place)[step] = states;
      if (place->size() > kept) place->erase(place->begin());
    }
  }
  void go_to(std::int64_t to, const std::vector<float>& values) {
    states = values;
    step = to;
    memory.erase(memory.upper_bound(to), memory.end());
    files.erase(files.upper_bound(to), files.end());
  }
  void token(const TokenNumbers& one) {
    for (std::int64_t head = 0; head < one.B * shape.H; ++head) {
      const auto part = [&](const std::vector<float>& from, std::int64_t width) {
        return std::span(from).subspan(static_cast<std::size_t>(head * width), static_cast<std::size_t>(width));
      };
      std::vector<float> next(states.begin() + head * head_size, states.begin() + (head + 1) * head_size);
      update({1, 1, shape.K, shape.V}, KdaStep{part(one.alpha, 3), part(one.k, 3), part(one.beta, 1), part(one.v, 4)}, next);
      bool lost = false;
      std::int64_t infinite = 0;
      for (float& x : next) {
        lost = lost || std::isnan(x);
        if (!std::isinf(x)) continue;
        ++infinite;
        x = x < 0 ? -1e6f : 1e6f;
      }
      (lost ? restored : clipped) += lost ? 1 : infinite;
      if (!lost) std::copy(next.begin(), next.end(), states.begin() + head * head_size);
    }
    ++step;
    if (step % interval == 0) checkpoint();
  }
};

struct System {
  ScratchFolder folder;
  std::unique_ptr<StateManager> manager = open();
  std::unique_ptr<StateManager> open() const {
    return std::make_unique<StateManager>(
        StateSettings{.largest = shape, .checkpoint_interval = interval, .checkpoints_kept = kept, .folder = folder.path / "run"});
  }
  std::filesystem::path file() const { return folder.path / "saved.safetensors"; }
};

/// A command that does something to the system and must leave it as the model says.
struct Command : rc::state::Command<Model, System> {
  virtual void act(const Model& before, System&) const = 0;
  void run(const Model& before, System& system) const override {
    act(before, system);
    const Model after = nextState(before);
    const StateManager& manager = *system.manager;
    RC_ASSERT(std::ranges::equal(manager.states(), after.states));
    RC_ASSERT(manager.step() == after.step);
    RC_ASSERT(manager.restored_count() == after.restored);
    RC_ASSERT(manager.clipped_count() == after.clipped);
    std::vector<std::int64_t> steps;
    for (const auto& [step, values] : after.memory) steps.push_back(step);
    RC_ASSERT(manager.checkpoint_steps() == steps);
    const auto files = std::distance(std::filesystem::directory_iterator(system.folder.path / "run"), {});
    RC_ASSERT(files == static_cast<std::ptrdiff_t>(after.files.size()));
  }
};

struct Update : Command {
  TokenNumbers tokens;
  std::int64_t spoilt = -1;
  float poison = 0;

  Update() {
    const auto B = *rc::gen::inRange<std::int64_t>(1, shape.B + 1), T = *rc::gen::inRange<std::int64_t>(0, 6);
    tokens = random_tokens(shape, B, T, *rc::gen::arbitrary<std::uint64_t>());
    if (T == 0 || *rc::gen::inRange(0, 2) == 0) return;
    spoilt = *rc::gen::inRange<std::int64_t>(0, static_cast<std::int64_t>(tokens.v.size()));
    poison = *rc::gen::element(std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity());
    tokens.v[static_cast<std::size_t>(spoilt)] = poison;
  }
  void apply(Model& model) const override {
    for (std::int64_t t = 0; t < tokens.T; ++t) model.token(one_token(shape, tokens, t));
  }
  void act(const Model& before, System& system) const override {
    const auto faults = system.manager->update(tokens.view());
    const Model after = nextState(before);
    std::int64_t restored = 0, clipped = 0;
    for (const StateFault& fault : faults) (fault.kind == StateFault::Kind::restored ? restored : clipped) += fault.elements;
    RC_ASSERT(restored == (after.restored - before.restored) * head_size);
    RC_ASSERT(clipped == after.clipped - before.clipped);
  }
  void show(std::ostream& out) const override {
    out << "update B " << tokens.B << " T " << tokens.T;
    if (spoilt >= 0) out << " with " << poison << " at v[" << spoilt << "]";
  }
};

struct TakeCheckpoint : Command {
  void apply(Model& model) const override { model.checkpoint(); }
  void act(const Model&, System& system) const override { system.manager->checkpoint(); }
  void show(std::ostream& out) const override { out << "checkpoint"; }
};

struct Restore : Command {
  std::int64_t step = 0;
  explicit Restore(const Model& model) {
    RC_PRE(!model.memory.empty());
    step = std::next(model.memory.begin(), *rc::gen::inRange<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(model.memory.size())))->first;
  }
  void checkPreconditions(const Model& model) const override { RC_PRE(model.memory.contains(step)); }
  void apply(Model& model) const override {
    const std::vector<float> values = model.memory.at(step);
    model.go_to(step, values);
  }
  void act(const Model&, System& system) const override { system.manager->restore(step); }
  void show(std::ostream& out) const override { out << "restore " << step; }
};

struct Save : Command {
  void apply(Model& model) const override { model.saved = {model.step, model.states}; }
  void act(const Model&, System& system) const override { system.manager->save(system.file()); }
  void show(std::ostream& out) const override { out << "save"; }
};

struct Load : Command {
  void checkPreconditions(const Model& model) const override { RC_PRE(model.saved.has_value()); }
  void apply(Model& model) const override {
    const auto saved = *model.saved;
    model.go_to(saved.first, saved.second);
  }
  void act(const Model&, System& system) const override { system.manager->load(system.file()); }
  void show(std::ostream& out) const override { out << "load"; }
};

/// The program ends; another opens the folder.
struct Reopen : Command {
  void apply(Model& model) const override {
    Model fresh;
    fresh.files = model.files;
    fresh.saved = model.saved;
    if (!fresh.files.empty()) {
      fresh.step = fresh.files.rbegin()->first;
      fresh.states = fresh.files.rbegin()->second;
    }
    model = fresh;
  }
  void act(const Model& before, System& system) const override {
    system.manager = system.open();
    RC_ASSERT(system.manager->load_latest() == !before.files.empty());
  }
  void show(std::ostream& out) const override { out << "reopen"; }
};

} // namespace

TEST_CASE("after any sequence of update, fault, checkpoint, restore, save, load and reopen the manager is as its model") {
  const bool holds = rc::check("the manager is as its model", [] {
    const Model model;
    System system;
    const auto any = rc::state::gen::execOneOfWithArgs<Update, Update, TakeCheckpoint, Restore, Save, Load, Reopen>();
    const auto commands = *rc::gen::scale(0.4, rc::state::gen::commands(model, any));
    rc::state::runAll(commands, model, system);
  });
  CHECK(holds);
}
