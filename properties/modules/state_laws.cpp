#include "state_laws.hpp"

#include "../../kernels/faults/state_faults.hpp"
#include "../../reference/safetensors.hpp"
#include "forgetful_disk.hpp"
#include "module_budget.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fmt/core.h>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace kdacheck {
namespace {

using namespace modules;

constexpr std::int64_t H = 2, K = 6, V = 5, largest_batch = 2;

struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "kdacheck-states-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("no folder can be made in " + name);
    path = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
};

StateSettings settings(std::int64_t interval, std::int64_t kept = 10, std::filesystem::path folder = {}) {
  return {.largest = {largest_batch, H, K, V}, .checkpoint_interval = interval, .checkpoints_kept = kept, .folder = std::move(folder)};
}

/// The suite's manager, or a plain one with the case's fault.
StateStore under_test(const ModuleCase& c, const StateSettings& s) {
  return c.fault.empty() ? managed_states(s) : plain_states(s, c.fault);
}

/// Tokens of B sequences, which start at different rows of the case's.
struct Tokens {
  std::int64_t B = 0, T = 0;
  std::vector<float> alpha, k, beta, v;
  StateTokens view() const { return {B, T, alpha, k, beta, v}; }
};
Tokens tokens_of(const ModuleCase& c, std::int64_t B, std::int64_t first, std::int64_t T) {
  Tokens tokens{.B = B, .T = T, .alpha = {}, .k = {}, .beta = {}, .v = {}};
  std::vector<float>* to[] = {&tokens.alpha, &tokens.k, &tokens.beta, &tokens.v};
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = 0; t < T; ++t)
      for (std::size_t i = 0; i < c.call.inputs.size(); ++i) {
        const NamedTensor& from = c.call.inputs[i];
        const std::int64_t width = element_count(std::span(from.shape).subspan(1)), row = (first + t + 5 * b) % c.call.rows();
        to[i]->insert(to[i]->end(), from.values.begin() + row * width, from.values.begin() + (row + 1) * width);
      }
  return tokens;
}

Finding broken(std::string detail) {
  return {.verdict = Verdict::failed_property,
          .bound_util = std::numeric_limits<double>::infinity(),
          .place = Place{.tensor = "memory"},
          .detail = std::move(detail),
          .metrics = {}};
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// The case's sequences as a batch.
Finding agrees_with_the_oracle(const ModuleCase& c, std::uint64_t seed) {
  const auto values = [&](const char* name) { return std::span<const float>(tensor_named(c.call.inputs, name).values); };
  const StateStore store = under_test(c, settings(0));
  store.update({.B = largest_batch,
                .T = c.call.rows() / largest_batch,
                .alpha = values("alpha"),
                .k = values("k"),
                .beta = values("beta"),
                .v = values("v")});
  return judge_module(c, {{}, {{"memory", {largest_batch, H, K, V}, store.states()}}}, seed);
}

Finding one_call_equals_steps(const ModuleCase& c, std::uint64_t) {
  const StateStore one = under_test(c, settings(3)), many = under_test(c, settings(3));
  const std::int64_t T = c.call.rows();
  one.update(tokens_of(c, 2, 0, T).view());
  for (std::int64_t t = 0; t < T; ++t) many.update(tokens_of(c, 2, t, 1).view());
  if (!same(one.states(), many.states())) return broken("token by token and in one call the states differ");
  if (one.checkpoint_steps() != many.checkpoint_steps()) return broken("token by token and in one call other checkpoints are taken");
  return {};
}

Finding restored_goes_on_alike(const ModuleCase& c, std::uint64_t seed) {
  const StateStore store = under_test(c, settings(3));
  const std::int64_t T = c.call.rows();
  store.update(tokens_of(c, 2, 0, T).view());
  const std::vector<float> end = store.states();
  const std::vector<std::int64_t> steps = store.checkpoint_steps();
  if (steps.size() != static_cast<std::size_t>(T / 3))
    return broken(fmt::format("{} checkpoints after {} tokens at every third", steps.size(), T));
  const std::int64_t step = steps[seed % steps.size()];
  store.restore(step);
  store.update(tokens_of(c, 2, step, T - step).view());
  return same(store.states(), end) ? Finding{} : broken(fmt::format("restored at step {} it ends elsewhere", step));
}

Finding a_nan_stays_in_its_head(const ModuleCase& c, std::uint64_t seed) {
  const std::int64_t T = c.call.rows(), t = static_cast<std::int64_t>(seed % static_cast<std::uint64_t>(T)), size = K * V;
  const Tokens good = tokens_of(c, largest_batch, 0, T);
  const StateStore clean = under_test(c, settings(0));
  clean.update(good.view());
  const std::vector<float> right = clean.states();
  for (std::int64_t head = 0; head < largest_batch * H; ++head) {
    const std::int64_t b = head / H, h = head % H;
    Tokens poisoned = good;
    poisoned.v[static_cast<std::size_t>(((b * T + t) * H + h) * V)] = std::numeric_limits<float>::quiet_NaN();
    const StateStore store = under_test(c, settings(0));
    const std::vector<StateFault> faults = store.update(poisoned.view());
    const std::vector<StateFault> wanted{{.kind = StateFault::Kind::restored, .b = b, .h = h, .step = t, .elements = size}};
    if (faults != wanted) return broken(fmt::format("{} repairs were reported, 1 at step {} is right", faults.size(), t));
    const std::vector<float> states = store.states();
    for (std::int64_t i = 0; i < largest_batch * H * size; ++i)
      if (i / size != head && !(states[static_cast<std::size_t>(i)] == right[static_cast<std::size_t>(i)]))
        return broken(fmt::format("a NaN in sequence {}, head {} changed another head", b, h));
  }
  return {};
}

/// Names of what stands in a folder.
std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

/// Where store and model differ, or nothing.
std::string difference(const StateStore& store, const StateStore& model, std::int64_t kept) {
  if (!same(store.states(), model.states())) return "the states differ";
  if (store.step() != model.step()) return fmt::format("the step is {}, not {}", store.step(), model.step());
  if (store.restored_count() != model.restored_count() || store.clipped_count() != model.clipped_count())
    return fmt::format("{} restored and {} clipped were counted, not {} and {}", store.restored_count(), store.clipped_count(),
                       model.restored_count(), model.clipped_count());
  if (store.checkpoint_steps() != model.checkpoint_steps()) return "other checkpoints are there";
  const std::size_t one = static_cast<std::size_t>(largest_batch * H * K * V) * sizeof(float);
  const StateMemory memory = store.memory();
  const std::size_t taken = store.checkpoint_steps().size() * one;
  if (memory.states != one) return fmt::format("{} bytes of states are reported, {} are there", memory.states, one);
  // buffers of checkpoints that were given up may be kept for the next
  if (memory.checkpoints % one != 0 || memory.checkpoints < taken || memory.checkpoints > static_cast<std::size_t>(kept) * one)
    return fmt::format("{} bytes of checkpoints are reported, {} checkpoints of {} are there", memory.checkpoints, taken / one, one);
  return {};
}

/// Random commands to both; the names of those given stand in the finding.
Finding any_commands_follow_the_model(const ModuleCase& c, std::uint64_t seed, bool write_behind) {
  constexpr std::int64_t kept = 2, interval = 3;
  const Folder folder, folder_of_model;
  const auto opened = [&] {
    StateSettings s = settings(interval, kept, folder.path);
    s.write_behind = write_behind;
    return under_test(c, s);
  };
  const auto opened_model = [&] { return plain_states(settings(interval, kept, folder_of_model.path)); };
  StateStore store = opened(), model = opened_model();
  std::mt19937_64 bits(seed);
  const auto below = [&](std::size_t n) { return static_cast<std::int64_t>(bits() % n); };
  bool saved = false;
  std::string history = write_behind ? " (written behind)" : "";
  for (int command = 0; command < 60; ++command) {
    switch (below(8)) {
    default: {
      Tokens tokens = tokens_of(c, 1 + below(2), below(13), below(6));
      for (std::int64_t spoilt = tokens.v.empty() || below(2) == 0 ? 0 : below(5); spoilt > 0; --spoilt) {
        const float infinity = std::numeric_limits<float>::infinity();
        tokens.v[static_cast<std::size_t>(below(tokens.v.size()))] =
            std::array{std::nanf(""), infinity, -infinity}[static_cast<std::size_t>(below(3))];
      }
      history += fmt::format(" update({},{})", tokens.B, tokens.T);
      std::vector<StateFault> found = store.update(tokens.view()), wanted = model.update(tokens.view());
      if (found != wanted)
        return broken(fmt::format("{} repairs were reported, {} were due, after{}", found.size(), wanted.size(), history));
      break;
    }
    case 4: history += " checkpoint", store.checkpoint(), model.checkpoint(); break;
    case 5: {
      const std::vector<std::int64_t> steps = model.checkpoint_steps();
      if (steps.empty()) break;
      const std::int64_t step = steps[static_cast<std::size_t>(below(steps.size()))];
      history += fmt::format(" restore({})", step);
      store.restore(step), model.restore(step);
      break;
    }
    case 6:
      if (saved && below(2) == 0)
        history += " load", store.load(folder.path / "saved"), model.load(folder_of_model.path / "saved");
      else
        history += " save", store.save(folder.path / "saved"), model.save(folder_of_model.path / "saved"), saved = true;
      break;
    case 7:
      history += " reopen", store = opened(), model = opened_model();
      if (store.load_latest() != model.load_latest()) return broken("another answer of load_latest after" + history);
      break;
    }
    store.finish_writing();
    if (const std::string what = difference(store, model, kept + (write_behind ? 1 : 0)); !what.empty())
      return broken(what + " after" + history);
    if (names_in(folder.path) != names_in(folder_of_model.path)) return broken("other files are in the folder after" + history);
  }
  return {};
}
Finding any_commands_follow_the_model(const ModuleCase& c, std::uint64_t seed) {
  return graver(any_commands_follow_the_model(c, seed, false), any_commands_follow_the_model(c, seed, true));
}

/// A process that is ended by the kernel when `allowed` bytes of a file are written. True if it was.
template <class Work> bool ended_while_writing(std::uintmax_t allowed, Work work) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no process can be started");
  if (child == 0) { // nothing here returns or throws
    const rlimit none{0, 0}, size{allowed, allowed};
    ::setrlimit(RLIMIT_CORE, &none);
    ::setrlimit(RLIMIT_FSIZE, &size);
    std::signal(SIGXFSZ, SIG_DFL);
    ::alarm(20);
    try {
      work();
    } catch (...) {
    }
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ;
}

Finding a_crash_while_saving_loses_nothing(const ModuleCase& c, std::uint64_t seed) {
  const Folder folder;
  const auto path = folder.path / "saved";
  const StateSettings s = settings(0, 1, folder.path / "run");
  const StateStore store = under_test(c, s);
  store.update(tokens_of(c, 2, 0, 4).view());
  store.checkpoint(), store.save(path);
  const std::vector<float> good = store.states();
  store.update(tokens_of(c, 2, 4, 3).view());
  const std::uintmax_t size = std::filesystem::file_size(path), allowed = seed % size;
  if (!ended_while_writing(allowed, [&] { store.save(path); }) || !ended_while_writing(allowed, [&] { store.checkpoint(); }))
    return broken(fmt::format("no crash came at byte {} of {}: saving wrote less than it read back", allowed, size));
  StateStore reader = under_test(c, s);
  try {
    reader.load(path);
  } catch (const BadFile& error) {
    return broken(fmt::format("after a crash at byte {}: {}", allowed, error.what()));
  }
  if (!same(reader.states(), good) || reader.step() != 4) return broken("after a crash the saved file holds something else");
  reader = under_test(c, s);
  for (const std::string& name : names_in(folder.path / "run"))
    if (!name.ends_with(".safetensors")) return broken(fmt::format("after a crash at byte {} {} stays", allowed, name));
  if (!reader.load_latest()) return broken(fmt::format("after a crash at byte {} no checkpoint is left", allowed));
  return same(reader.states(), good) && reader.step() == 4 ? Finding{} : broken("after a crash the latest checkpoint is another");
}

Finding a_damaged_file_is_refused_and_passed_over(const ModuleCase& c, std::uint64_t seed) {
  const Folder folder;
  const StateSettings s = settings(4, 3, folder.path);
  const StateStore store = under_test(c, s);
  store.update(tokens_of(c, 2, 0, 8).view());
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path)) files.push_back(entry.path());
  std::ranges::sort(files);
  if (files.size() != 2) return broken(fmt::format("{} files are there after two checkpoints", files.size()));
  const std::uintmax_t size = std::filesystem::file_size(files[1]),
                       numbers = static_cast<std::uintmax_t>(largest_batch * H * K * V) * sizeof(float);
  {
    std::fstream file(files[1], std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(size - 1 - seed % numbers);
    char byte = 0;
    file.seekg(at).get(byte);
    file.seekp(at).put(static_cast<char>(byte ^ 0x10));
  }
  StateStore reader = under_test(c, s);
  try {
    reader.load(files[1]);
    return broken("a file with a changed number was loaded");
  } catch (const BadFile&) {
  }
  if (reader.step() != 0) return broken("a file that was refused changed the step");
  reader = under_test(c, s);
  if (!reader.load_latest() || reader.step() != 4) return broken("with the newest checkpoint damaged, the one before it was not found");
  store.restore(4);
  if (!same(reader.states(), store.states())) return broken("the checkpoint before the damaged one holds something else");
  const auto other = folder.path / "other-step";
  reader.save(other);
  std::stringstream text;
  text << std::ifstream(other, std::ios::binary).rdbuf();
  std::string bytes = text.str();
  const std::string step = "\"step\":\"4\"";
  if (bytes.find(step) == std::string::npos) return broken("a file does not say its step");
  bytes[bytes.find(step) + step.size() - 2] = '5';
  std::ofstream(other, std::ios::binary) << bytes;
  try {
    reader.load(other);
    return broken("a file with another step was loaded");
  } catch (const BadFile&) {
  }
  StateSettings turned = settings(0);
  std::swap(turned.largest.K, turned.largest.V); // as many numbers
  under_test(c, turned).save(other);
  try {
    reader.load(other);
    return broken("a file of states of another shape was loaded");
  } catch (const BadFile&) {
  }
  return same(reader.states(), store.states()) ? Finding{} : broken("a file that was refused changed the states");
}

/// After a power cut at any call that save makes of the disk, and after it, the latest checkpoint told of is there.
Finding a_power_cut_loses_nothing(const ModuleCase& c, std::uint64_t seed) {
  const Folder folder;
  const StateStore store = under_test(c, settings(0, 1 + static_cast<std::int64_t>(seed % 2), folder.path));
  std::int64_t told = 0;
  std::string loss;
  ForgetfulDisk disk(folder.path, [&](const std::filesystem::path& left) {
    if (told == 0 || !loss.empty()) return;
    const StateStore reader = under_test(c, settings(0, 2, left));
    if (!reader.load_latest() || reader.step() < told) loss = fmt::format("after a power cut the checkpoint of step {} is not there", told);
  });
  for (std::int64_t t = 0; t < 9; t += 3) {
    store.update(tokens_of(c, 2, t, 3).view());
    store.checkpoint();
    told = store.step();
    disk.cut();
  }
  if (disk.calls() == 0) return broken("saving flushed and renamed nothing");
  return loss.empty() ? Finding{} : broken(loss);
}

} // namespace

std::vector<ModuleLaw> state_laws() {
  return {{"agrees-with-the-oracle", "the states of a batch err no more than fp32 allows on these tokens", false, agrees_with_the_oracle},
          {"one-call-equals-steps", "many tokens in one call and one by one give the same bits", false, one_call_equals_steps},
          {"restored-goes-on-alike", "from any checkpoint the same tokens lead to the same bits", false, restored_goes_on_alike},
          {"a-nan-stays-in-its-head", "a NaN is reported once and changes no other head", false, a_nan_stays_in_its_head},
          {"any-commands-follow-the-model",
           "60 random commands leave states, counts, checkpoints and bytes as a plain model has them, with files written at once or behind",
           false, any_commands_follow_the_model},
          {"a-crash-while-saving-loses-nothing", "a process ended at any byte of a file it saves leaves the last good one", false,
           a_crash_while_saving_loses_nothing},
          {"a-power-cut-loses-nothing", "a disk that forgets what was not flushed has the latest checkpoint told of, whole", false,
           a_power_cut_loses_nothing},
          {"a-damaged-file-is-refused", "a changed number, step or shape in a file is seen, and load_latest takes the checkpoint before it",
           false, a_damaged_file_is_refused_and_passed_over}};
}

} // namespace kdacheck
