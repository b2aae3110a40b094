// The state manager: steps, repairs, checkpoints, files and memory.

#include "state_tokens.hpp"

#include "../../../reference/atomic_file.hpp"
#include "../../../reference/file_calls.hpp"
#include "../../../reference/safetensors.hpp"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <malloc.h>
#include <new>

using namespace kdacheck;
using namespace kdacheck::modules;

namespace {

std::atomic<std::int64_t> requested_bytes{0}; ///< asked for and not given back
constexpr std::size_t header = 16;

} // namespace

// Every allocation of this program is counted: what the manager says it holds can be compared with what it took.
void* operator new(std::size_t size) {
  auto* memory = static_cast<std::byte*>(std::malloc(size + header));
  if (!memory) throw std::bad_alloc();
  ::new (memory) std::size_t(size);
  requested_bytes += static_cast<std::int64_t>(size);
  return memory + header;
}
void operator delete(void* memory) noexcept {
  if (!memory) return;
  auto* start = static_cast<std::byte*>(memory) - header;
  requested_bytes -= static_cast<std::int64_t>(*reinterpret_cast<std::size_t*>(start));
  std::free(start);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
// The same at an alignment, which is what stands before the memory then.
void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto lead = static_cast<std::size_t>(alignment);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(lead, (size + 2 * lead - 1) / lead * lead));
  if (!memory) throw std::bad_alloc();
  ::new (memory) std::size_t(size);
  requested_bytes += static_cast<std::int64_t>(size);
  return memory + lead;
}
void operator delete(void* memory, std::align_val_t alignment) noexcept {
  if (!memory) return;
  auto* start = static_cast<std::byte*>(memory) - static_cast<std::size_t>(alignment);
  requested_bytes -= static_cast<std::int64_t>(*reinterpret_cast<std::size_t*>(start));
  std::free(start);
}

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
const StateShape shape{3, 2, 5, 7};

StateSettings settings(std::int64_t interval = 4, std::int64_t kept = 3, std::filesystem::path folder = {}) {
  return {.largest = shape, .checkpoint_interval = interval, .checkpoints_kept = kept, .folder = std::move(folder)};
}
std::vector<float> copy(std::span<const float> values) { return {values.begin(), values.end()}; }
std::vector<float> head(const StateManager& manager, std::int64_t b, std::int64_t h) {
  return copy(manager.states().subspan(static_cast<std::size_t>((b * 2 + h) * 35), 35));
}

} // namespace

TEST_CASE("token by token and all tokens in one call give the same bits and the same checkpoints") {
  const TokenNumbers tokens = random_tokens(shape, 3, 23, 1);
  StateManager whole(settings()), stepwise(settings());
  CHECK(whole.update(tokens.view()).empty());
  for (std::int64_t t = 0; t < 23; ++t) stepwise.update(one_token(shape, tokens, t).view());
  CHECK(copy(whole.states()) == copy(stepwise.states()));
  CHECK(whole.checkpoint_steps() == std::vector<std::int64_t>{12, 16, 20});
  CHECK(stepwise.checkpoint_steps() == whole.checkpoint_steps());
  whole.restore(16);
  stepwise.restore(16);
  CHECK(copy(whole.states()) == copy(stepwise.states()));
  std::vector<float> by_update(static_cast<std::size_t>(shape.elements()), 0.0f);
  for (std::int64_t t = 0; t < 16; ++t) {
    const TokenNumbers one = one_token(shape, tokens, t);
    update(shape, KdaStep{one.alpha, one.k, one.beta, one.v}, by_update);
  }
  CHECK(copy(whole.states()) == by_update);
}

TEST_CASE("from any checkpoint, in memory or from its file, the run continues bit for bit") {
  const ScratchFolder folder;
  const TokenNumbers tokens = random_tokens(shape, 2, 12, 2);
  StateManager manager(settings(4, 3, folder.path));
  manager.update(tokens.view());
  const std::vector<float> final = copy(manager.states());
  for (std::int64_t from : {8, 4}) {
    StateManager reader(settings(0, 1));
    reader.load(folder.path / ("checkpoint-0000000000000000000" + std::to_string(from) + ".safetensors"));
    manager.restore(from);
    CHECK(reader.step() == from);
    CHECK(copy(reader.states()) == copy(manager.states()));
    for (std::int64_t t = from; t < 12; ++t) {
      const TokenNumbers one = one_token(shape, tokens, t);
      manager.update(one.view());
      reader.update(one.view());
    }
    CHECK(copy(manager.states()) == final);
    CHECK(copy(reader.states()) == final);
  }
  CHECK_THROWS_WITH(manager.restore(5), Catch::Contains("no checkpoint of step 5"));
}

TEST_CASE("NaN restores its head's previous state, infinity is clipped, each counted, and no other head changes a bit") {
  const TokenNumbers clean = random_tokens(shape, 3, 6, 3);
  TokenNumbers spoilt = clean;
  const auto row = [](std::int64_t b, std::int64_t t, std::int64_t h) { return (b * 6 + t) * 2 + h; };
  spoilt.v[static_cast<std::size_t>(row(1, 2, 0) * 7 + 3)] = std::nanf("");
  spoilt.v[static_cast<std::size_t>(row(2, 4, 1) * 7 + 6)] = infinity;
  spoilt.beta[static_cast<std::size_t>(row(2, 4, 1))] = 0.5f;
  for (std::int64_t i = 0; i < 5; ++i) spoilt.k[static_cast<std::size_t>(row(2, 4, 1) * 5 + i)] = i % 2 ? -0.5f : 0.5f;
  StateManager good(settings()), bad(settings());
  good.update(clean.view());
  const std::vector<StateFault> faults = bad.update(spoilt.view());
  const std::vector<StateFault> wanted{{StateFault::Kind::restored, 1, 0, 2, 35}, {StateFault::Kind::clipped, 2, 1, 4, 5}};
  CHECK(faults == wanted);
  CHECK(bad.restored_count() == 1);
  CHECK(bad.clipped_count() == 5);
  for (std::int64_t b = 0; b < 3; ++b)
    for (std::int64_t h = 0; h < 2; ++h)
      if (!(b == 1 && h == 0) && !(b == 2 && h == 1)) CHECK(head(bad, b, h) == head(good, b, h));
  CHECK(head(bad, 1, 0) != head(good, 1, 0));
  StateManager at_fault(settings());
  for (std::int64_t t = 0; t < 5; ++t) at_fault.update(one_token(shape, spoilt, t).view());
  for (std::int64_t i = 0; i < 5; ++i) CHECK(head(at_fault, 2, 1)[static_cast<std::size_t>(i * 7 + 6)] == (i % 2 ? -1e6f : 1e6f));
  StateManager skipping(settings()); // a restored head is as if its token had not been
  for (std::int64_t t : {0, 1, 3, 4, 5}) skipping.update(one_token(shape, clean, t).view());
  CHECK(head(skipping, 1, 0) == head(bad, 1, 0));
}

TEST_CASE("states begin with a cache line") {
  for (const std::int64_t B : {1, 3, 64}) {
    const StateManager manager({.largest = {B, 2, 5, 7}});
    CHECK(reinterpret_cast<std::uintptr_t>(manager.states().data()) % 64 == 0);
  }
}

TEST_CASE("the memory a manager reports is what it has allocated, to the byte") {
  const std::int64_t before = requested_bytes;
  StateManager manager(settings(2, 3));
  CHECK(manager.memory().states == 3 * 2 * 5 * 7 * 4);
  CHECK(manager.memory().checkpoints == 0);
  CHECK(static_cast<std::int64_t>(manager.memory().total()) == requested_bytes - before);
  for (std::int64_t round = 1; round <= 5; ++round) {
    const TokenNumbers tokens = random_tokens(shape, 3, 2, 9);
    const std::int64_t around = requested_bytes - static_cast<std::int64_t>(manager.memory().total());
    manager.update(tokens.view());
    CHECK(manager.memory().checkpoints == static_cast<std::size_t>(std::min<std::int64_t>(round, 3)) * 840);
    CHECK(requested_bytes - static_cast<std::int64_t>(manager.memory().total()) == around);
  }
  const std::int64_t around = requested_bytes - static_cast<std::int64_t>(manager.memory().total());
  manager.restore(6);
  CHECK(manager.memory().checkpoints == 3 * 840); // those dropped are kept for reuse
  CHECK(requested_bytes - static_cast<std::int64_t>(manager.memory().total()) == around);
}

TEST_CASE("a file with any byte changed, cut short or of another shape is refused and changes nothing") {
  const ScratchFolder folder;
  const auto file = folder.path / "states.safetensors";
  const TokenNumbers tokens = random_tokens(shape, 3, 3, 5);
  StateManager writer(settings()), reader(settings());
  writer.update(tokens.view());
  writer.save(file);
  std::ifstream in(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  const std::vector<float> before = copy(reader.states());
  const auto damaged = folder.path / "damaged.safetensors";
  std::size_t refusals = 0;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x04);
    write_atomically(damaged, changed);
    CHECK_THROWS_AS(reader.load(damaged), BadFile);
    CHECK(copy(reader.states()) == before);
    ++refusals;
  }
  CHECK(refusals > 300);
  for (std::size_t length : {std::size_t{0}, std::size_t{7}, bytes.size() / 2, bytes.size() - 1}) {
    write_atomically(damaged, std::string_view(bytes).substr(0, length));
    CHECK_THROWS_AS(reader.load(damaged), BadFile);
  }
  StateManager wider({.largest = {4, 2, 5, 7}, .checkpoint_interval = 0, .checkpoints_kept = 1, .folder = {}});
  CHECK_THROWS_WITH(wider.load(file), Catch::Contains("[4,2,5,7]"));
  CHECK_THROWS_AS(reader.load(folder.path / "absent"), BadFile);
  reader.load(file);
  CHECK(copy(reader.states()) == copy(writer.states()));
  CHECK(reader.step() == 3);
}

TEST_CASE("the oldest files go beyond the number kept, and a damaged latest one is passed over") {
  const ScratchFolder folder;
  const TokenNumbers tokens = random_tokens(shape, 1, 20, 6);
  StateManager manager(settings(4, 3, folder.path));
  manager.update(tokens.view());
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path)) files.push_back(entry.path());
  std::ranges::sort(files);
  REQUIRE(files.size() == 3);
  write_atomically(files.back(), "not a checkpoint");
  write_atomically(folder.path / "checkpoint-00000000000000000024.safetensors.partial-1-0", "half");
  StateManager next(settings(4, 3, folder.path));
  CHECK(next.load_latest());
  CHECK(next.step() == 16);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 2); // the damaged and the partial are gone
  manager.restore(16);
  CHECK(copy(next.states()) == copy(manager.states()));
  CHECK_FALSE(StateManager(settings()).load_latest());
}

TEST_CASE("checkpoints that are written behind are those that are waited for, and trouble with one is told at the next") {
  const ScratchFolder waited, behind;
  const TokenNumbers tokens = random_tokens(shape, 2, 23, 8);
  std::vector<std::filesystem::path> names;
  {
    StateManager first(settings(4, 3, waited.path));
    StateSettings with = settings(4, 3, behind.path);
    with.write_behind = true;
    StateManager second(std::move(with));
    first.update(tokens.view()), second.update(tokens.view());
    CHECK(second.memory().checkpoints == first.memory().checkpoints + first.memory().states);
    second.restore(16), first.restore(16);
    CHECK(copy(second.states()) == copy(first.states()));
    second.update(tokens.view()), first.update(tokens.view());
  } // the destructor waits for the last
  for (const auto& entry : std::filesystem::directory_iterator(waited.path)) names.push_back(entry.path().filename());
  REQUIRE(names.size() == 3);
  for (const auto& name : names) {
    std::ifstream one(waited.path / name, std::ios::binary), other(behind.path / name, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(one), {}};
    CHECK(text == std::string{std::istreambuf_iterator<char>(other), {}});
  }
  CHECK(std::distance(std::filesystem::directory_iterator(behind.path), {}) == 3);

  StateSettings with = settings(0, 3, behind.path);
  with.write_behind = true;
  StateManager manager(std::move(with));
  const FileCallsKept kept;
  file_calls().flush = [](int) { return errno = EIO, -1; };
  manager.checkpoint();
  file_calls() = FileCalls();
  CHECK_THROWS_AS(manager.checkpoint(), FileTrouble);
  CHECK_NOTHROW(manager.finish_writing()); // the second one was written all the same
  CHECK(manager.load_latest());
}

TEST_CASE("batches and sizes that do not fit are refused by name and change nothing") {
  StateManager manager(settings());
  const TokenNumbers good = random_tokens(shape, 3, 2, 7);
  manager.update(good.view());
  const std::vector<float> before = copy(manager.states());
  const auto refused = [&](const StateTokens& tokens, const char* part) {
    CHECK_THROWS_WITH(manager.update(tokens), Catch::Contains(part));
    CHECK(copy(manager.states()) == before);
    CHECK(manager.step() == 2);
  };
  const TokenNumbers larger = random_tokens(shape, 4, 2, 7);
  refused(larger.view(), "a batch of 4 was given, room is for 1 to 3");
  StateTokens tokens = good.view();
  tokens.alpha = tokens.alpha.first(59);
  refused(tokens, "alpha has 59 numbers, its shape [B,T,H,K] needs 60");
  tokens = good.view();
  tokens.v = tokens.v.first(3);
  refused(tokens, "v has 3 numbers");
  tokens = good.view();
  tokens.T = -1;
  refused(tokens, "T = -1");
  CHECK_THROWS_AS(StateManager({.largest = {0, 1, 1, 1}}), std::invalid_argument);
  CHECK_THROWS_AS(StateManager({.largest = shape, .checkpoint_interval = -1}), std::invalid_argument);
  CHECK_THROWS_AS(StateManager({.largest = shape, .checkpoints_kept = 0}), std::invalid_argument);
  CHECK_THROWS_AS(StateManager(settings(4, 3, "/dev/null/x")), FileTrouble);
}
