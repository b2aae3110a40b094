#include "../run.hpp"
#include "plain_recurrence.hpp"

#include <catch2/catch.hpp>

#include <thread>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

std::vector<float> ramp(std::size_t count, float step) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = step * static_cast<float>(static_cast<int>(i * 7 % 13) - 6);
  return values;
}

Problem small_problem() {
  Problem problem;
  problem.shape = {.B = 1, .T = 5, .H = 1, .HV = 2, .K = 3, .V = 4};
  problem.cu_seqlens = {0, 2, 2, 5};
  problem.q = ramp(15, 0.125f);
  problem.k = ramp(15, 0.0625f);
  problem.v = ramp(40, 0.25f);
  problem.g = std::vector<float>(30, -0.5f);
  problem.beta = std::vector<float>(10, 0.5f);
  problem.initial_state = ramp(72, 0.5f);
  return problem;
}

Kernel with_forward(std::function<void(const Inputs&, const Outputs&, std::span<std::byte>)> forward) {
  Kernel kernel = plain_recurrence();
  kernel.forward = std::move(forward);
  return kernel;
}

// A kernel that does its work and then `mischief`.
template <class Mischief> Kernel mischievous(Mischief mischief) {
  return with_forward([mischief](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
    plain_forward(in, out);
    mischief(in, out, workspace);
  });
}

bool complains(const Run& run, const std::string& words) {
  for (const auto& sentence : run.trespasses)
    if (sentence.find(words) != std::string::npos) return true;
  return false;
}

auto* bytes_of(const TensorView& view) { return static_cast<unsigned char*>(view.data); }

} // namespace

TEST_CASE("a correct kernel leaves nothing to complain about, whatever the layout") {
  const Problem problem = small_problem();
  const Run dense = run_forward(plain_recurrence(), problem);
  CHECK(dense.trespasses.empty());
  CHECK_FALSE(dense.refused);
  REQUIRE(dense.o.size() == 40);
  REQUIRE(dense.final_state.size() == 72);
  // the empty sequence keeps its state
  CHECK(std::vector<float>(dense.final_state.begin() + 24, dense.final_state.begin() + 48) ==
        std::vector<float>(problem.initial_state.begin() + 24, problem.initial_state.begin() + 48));

  const Run spaced = run_forward(plain_recurrence(), problem, {.strided = true});
  CHECK(spaced.trespasses.empty());
  CHECK(spaced.o == dense.o);
  CHECK(run_forward(plain_recurrence(), problem, {.final_state = false}).final_state.empty());
}

TEST_CASE("a kernel with the V-first layout sees the transposed state and gives the same answer") {
  const Problem problem = small_problem();
  Contract contract;
  contract.state_v_first = true;
  Kernel kernel = plain_recurrence(contract);
  kernel.forward = [](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    REQUIRE(in[Input::initial_state].shape == std::array<std::int64_t, 4>{3, 2, 4, 3});
    REQUIRE(in[Input::initial_state].stride == std::array<std::int64_t, 4>{24, 12, 3, 1});
    Inputs turned = in;
    Outputs turned_out = out;
    for (TensorView* view : {&turned[Input::initial_state], &turned_out.final_state}) {
      std::swap(view->shape[2], view->shape[3]);
      std::swap(view->stride[2], view->stride[3]);
    }
    plain_forward(turned, turned_out);
  };
  const Run run = run_forward(kernel, problem);
  CHECK(run.final_state == run_forward(plain_recurrence(), problem).final_state);
  CHECK(run.o == run_forward(plain_recurrence(), problem).o);
}

TEST_CASE("writing outside an output, the workspace or into an input is reported with its place") {
  const Problem problem = small_problem();
  CHECK(complains(run_forward(mischievous([](auto&, auto& out, auto) { bytes_of(out.o)[40 * 4] ^= 1; }), problem),
                  "wrote 1 bytes past the end of o, as far as 1 bytes away"));
  CHECK(complains(run_forward(mischievous([](auto&, auto& out, auto) { bytes_of(out.final_state)[-5] ^= 1; }), problem),
                  "wrote 1 bytes before the start of final_state, as far as 5 bytes away"));
  CHECK(complains(run_forward(mischievous([](auto& in, auto&, auto) { bytes_of(in[Input::k])[4 * 7] ^= 1; }), problem),
                  "changed input k at [0,2,0,1]"));
  CHECK(complains(run_forward(mischievous([](auto& in, auto&, auto) { const_cast<std::int64_t&>(in.cu_seqlens[1]) = 1; }), problem),
                  "changed cu_seqlens"));
  CHECK(complains(run_forward(mischievous([](auto& in, auto&, auto) { bytes_of(in[Input::k])[4 * 4] ^= 1; }), problem, {.strided = true}),
                  "wrote into the gaps between the rows of input k"));
  Kernel kernel = mischievous([](auto&, auto&, std::span<std::byte> workspace) { workspace.data()[workspace.size()] = std::byte{1}; });
  kernel.workspace_bytes = [](const Inputs&, bool) { return std::size_t{100}; };
  CHECK(complains(run_forward(kernel, problem), "past the end of the workspace"));
}

TEST_CASE("reading far past the end of a tensor is reported and does not end the process") {
  volatile unsigned char sink = 0;
  const Kernel kernel = mischievous([&](auto& in, auto&, auto) { sink = bytes_of(in[Input::v])[40 * 4 + 300]; });
  CHECK(complains(run_forward(kernel, small_problem()), "touched memory 300 bytes past the end of input v"));
  CHECK(run_forward(plain_recurrence(), small_problem()).trespasses.empty()); // the page is closed again
  CHECK(complains(run_forward(kernel, small_problem()), "touched memory 300 bytes past the end of input v"));
}

TEST_CASE("outputs and workspace hold the poison before the call") {
  std::vector<float> seen;
  Contract contract;
  contract.output = Format::bf16;
  Kernel kernel = plain_recurrence(contract);
  kernel.workspace_bytes = [](const Inputs&, bool) { return std::size_t{6}; };
  kernel.forward = [&](const Inputs&, const Outputs& out, std::span<std::byte> workspace) {
    REQUIRE(reinterpret_cast<std::uintptr_t>(workspace.data()) % 64 == 0);
    seen = {load(out.o, 39), load(out.final_state, 71)};
    std::uint16_t half;
    std::memcpy(&half, workspace.data() + 4, 2);
    CHECK(half == 0x3f80);
  };
  const Run run = run_forward(kernel, small_problem(), {.poison = 0x40001234, .workspace_poison = 0x3f800000});
  CHECK(seen == std::vector<float>{2.0f, std::bit_cast<float>(0x40001234)});
  CHECK(run.o == std::vector<float>(40, 2.0f)); // what was not written is still poison
}

TEST_CASE("a refusal is kept with its sentence, and writing in spite of it is reported") {
  const Run polite = run_forward(with_forward([](auto&, auto&, auto) { throw Refused("K = 3 is not a multiple of 16"); }), small_problem());
  CHECK(polite.refused == "K = 3 is not a multiple of 16");
  CHECK(polite.trespasses.empty());
  const Run rude = run_forward(with_forward([](auto&, auto& out, auto) {
                                 store(out.o, 0, 1.0f);
                                 throw Refused("too late");
                               }),
                               small_problem());
  CHECK(complains(rude, "refused the call but wrote to o"));
  const Run broken = run_forward(with_forward([](auto&, auto&, auto) { throw std::runtime_error("oops"); }), small_problem());
  CHECK(broken.refused == "threw: oops");
}

TEST_CASE("numbers that the kernel's format does not have are never handed over silently") {
  Contract contract;
  contract.input = Format::bf16;
  Problem problem = small_problem();
  CHECK_NOTHROW(run_forward(plain_recurrence(contract), problem));
  problem.k[3] = 0.1f;
  CHECK_THROWS_WITH(run_forward(plain_recurrence(contract), problem), "input k holds numbers that bf16 does not have");
  problem.k.pop_back();
  CHECK_THROWS_AS(run_forward(plain_recurrence(contract), problem), std::invalid_argument);
}

TEST_CASE("equal calls find their tensors at equal addresses, so that results cached by pointer show") {
  std::vector<const void*> first, second;
  for (std::vector<const void*>* seen : {&first, &second})
    run_forward(with_forward([seen](auto& in, auto& out, auto) {
                  for (Input input : {Input::q, Input::k, Input::v}) seen->push_back(in[input].data);
                  seen->push_back(out.o.data);
                }),
                small_problem());
  CHECK(first.size() == 4);
  CHECK(first == second);
}

TEST_CASE("calls from many threads do not disturb one another") {
  const Problem problem = small_problem();
  const std::vector<float> alone = run_forward(plain_recurrence(), problem).o;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] {
      for (int repeat = 0; repeat < 50; ++repeat) {
        const Run run = run_forward(plain_recurrence(), problem);
        if (run.o != alone || !run.trespasses.empty()) ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("a backward pass is handed the cotangents and returns every gradient of the problem") {
  Kernel kernel = plain_recurrence();
  CHECK_THROWS_AS(run_backward(kernel, small_problem()), std::logic_error);
  kernel.contract.state_v_first = true;
  kernel.contract.gradient = Format::bf16;
  kernel.backward = [](const Inputs&, const Cotangents& loss, const GradientOutputs& out, std::span<std::byte>) {
    CHECK(loss.d_o);
    CHECK_FALSE(loss.d_final_state);
    CHECK_FALSE(out[Input::A_log]);
    CHECK(out[Input::k].format == Format::bf16);
    CHECK(out[Input::initial_state].format == Format::fp32);
    for (std::int64_t i = 0; i < out[Input::initial_state].elements(); ++i) store(out[Input::initial_state], i, static_cast<float>(i));
    store(out[Input::beta], 10, 0.0f);
  };
  Problem problem = small_problem();
  problem.d_o = ramp(40, 1.0f);
  const Run run = run_backward(kernel, problem);
  const auto& dh = run.gradient[static_cast<std::size_t>(Input::initial_state)];
  REQUIRE(dh.size() == 72);
  CHECK(dh[1] == 3.0f); // stored V-first: element [0,0,0,1] lies at row 1 of [V,K]
  CHECK(complains(run, "wrote 2 bytes past the end of dbeta"));
  CHECK(run.gradient[static_cast<std::size_t>(Input::A_log)].empty());
}
