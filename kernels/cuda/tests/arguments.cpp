// The public interface's checks, on a host: nothing here needs a device, and a refused call never reaches one.

#include "../host/check.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck::cuda;

namespace {

/// A call that every check accepts. Addresses are never followed.
struct Good {
  std::vector<std::int64_t> lengths{0, 0, 5, 32};
  kdacheck_cuda_problem problem{};
  Good() {
    const auto at = [](std::uintptr_t address) { return kdacheck_cuda_tensor{reinterpret_cast<void*>(address), KDACHECK_CUDA_BF16, {}}; };
    problem.B = 1, problem.T = 32, problem.H = 2, problem.HV = 4, problem.K = 128, problem.V = 128;
    problem.gate = KDACHECK_CUDA_BOUNDED, problem.beta_form = KDACHECK_CUDA_BETA_SIGMOID;
    problem.lower_bound = -5, problem.scale = 1, problem.l2norm = 1;
    problem.q = at(0x1000), problem.k = at(0x2000), problem.v = at(0x3000), problem.g = at(0x4000), problem.beta = at(0x5000);
    problem.o = at(0x6000);
    problem.A_log = reinterpret_cast<const float*>(std::uintptr_t{0x7000});
    problem.final_state = reinterpret_cast<float*>(std::uintptr_t{0x8000});
    problem.cu_seqlens = reinterpret_cast<const std::int64_t*>(std::uintptr_t{0x9000});
    problem.cu_seqlens_host = lengths.data();
    problem.sequences = 3;
  }
};

template <class Change> int status_after(Change change, int kernel = KDACHECK_CUDA_CHUNK_FAST) {
  Good good;
  change(good.problem, good.lengths);
  return check_call(kernel, &good.problem).result.status;
}

using Problem = kdacheck_cuda_problem;
using Lengths = std::vector<std::int64_t>;

} // namespace

TEST_CASE("a well-formed call is accepted by every forward kernel") {
  for (int kernel : {KDACHECK_CUDA_RECURRENCE, KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE})
    CHECK(status_after([](Problem&, Lengths&) {}, kernel) == KDACHECK_CUDA_OK);
}

TEST_CASE("sizes that no kernel takes are refused") {
  CHECK(status_after([](Problem& p, Lengths&) { p.HV = 3; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(status_after([](Problem& p, Lengths&) { p.K = 72; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(status_after([](Problem& p, Lengths&) { p.K = 272; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(status_after([](Problem& p, Lengths&) { p.V = 24; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(status_after([](Problem& p, Lengths&) { p.T = -1; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(status_after([](Problem& p, Lengths&) { p.K = 257; }, KDACHECK_CUDA_RECURRENCE) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(status_after([](Problem& p, Lengths&) { p.H = 0; }) == KDACHECK_CUDA_BAD_SHAPE);
}

TEST_CASE("chunk kernels take keys of any multiple of 16 channels up to 256, with any such number of value channels") {
  for (std::int64_t K = 16; K <= 256; K += 16)
    for (std::int64_t V = 16; V <= 256; V += 16)
      for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE})
        CHECK(status_after([=](Problem& p, Lengths&) { p.K = K, p.V = V; }, kernel) == KDACHECK_CUDA_OK);
}

TEST_CASE("absent tensors, and tensors without a place, are refused") {
  CHECK(status_after([](Problem& p, Lengths&) { p.q.data = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(status_after([](Problem& p, Lengths&) { p.beta.data = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(status_after([](Problem& p, Lengths&) { p.A_log = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(status_after([](Problem& p, Lengths&) { p.a = p.q; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(status_after([](Problem& p, Lengths&) { p.cu_seqlens = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(check_call(KDACHECK_CUDA_CHUNK_FAST, nullptr).result.status == KDACHECK_CUDA_NULL_POINTER);
}

TEST_CASE("cu_seqlens that decrease, start late or end elsewhere are refused") {
  CHECK(status_after([](Problem&, Lengths& l) { l = {0, 6, 5, 32}; }) == KDACHECK_CUDA_BAD_SEQUENCES);
  CHECK(status_after([](Problem&, Lengths& l) { l = {1, 1, 5, 32}; }) == KDACHECK_CUDA_BAD_SEQUENCES);
  CHECK(status_after([](Problem&, Lengths& l) { l = {0, 1, 5, 33}; }) == KDACHECK_CUDA_BAD_SEQUENCES);
  CHECK(status_after([](Problem& p, Lengths&) { p.B = 2; }) == KDACHECK_CUDA_BAD_SEQUENCES);
  CHECK(status_after([](Problem& p, Lengths&) { p.sequences = 0; }) == KDACHECK_CUDA_BAD_SEQUENCES);
}

TEST_CASE("formats and options out of range are refused") {
  CHECK(status_after([](Problem& p, Lengths&) { p.k.format = KDACHECK_CUDA_FP16; }) == KDACHECK_CUDA_BAD_FORMAT);
  CHECK(status_after([](Problem& p, Lengths&) { p.g.format = 7; }) == KDACHECK_CUDA_BAD_FORMAT);
  CHECK(status_after([](Problem& p, Lengths&) { p.o.format = KDACHECK_CUDA_FP32; }) == KDACHECK_CUDA_BAD_FORMAT);
  CHECK(status_after([](Problem& p, Lengths&) { p.gate = 9; }) == KDACHECK_CUDA_BAD_OPTION);
  CHECK(status_after([](Problem& p, Lengths&) { p.scale = NAN; }) == KDACHECK_CUDA_BAD_OPTION);
  CHECK(status_after([](Problem& p, Lengths&) { p.lower_bound = NAN; }) == KDACHECK_CUDA_BAD_OPTION);
  CHECK(status_after([](Problem&, Lengths&) {}, 99) == KDACHECK_CUDA_BAD_OPTION);
}

TEST_CASE("the general rule takes a and b instead of beta, in the recurrence and the fast chunk kernel, both ways") {
  const auto general = [](Problem& p, Lengths&) {
    p.rule = KDACHECK_CUDA_DPLR;
    p.a = p.q, p.b = p.k;
    p.beta.data = nullptr;
  };
  for (int kernel : {KDACHECK_CUDA_RECURRENCE, KDACHECK_CUDA_CHUNK_FAST}) {
    CHECK(status_after(general, kernel) == KDACHECK_CUDA_OK);
    const auto refused = [&](auto change) {
      return status_after(
          [&](Problem& p, Lengths& l) {
            general(p, l);
            change(p);
          },
          kernel);
    };
    CHECK(refused([](Problem& p) { p.a.data = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
    CHECK(refused([](Problem& p) { p.b.data = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
    CHECK(refused([](Problem& p) { p.beta = p.q; }) == KDACHECK_CUDA_NULL_POINTER);
    CHECK(refused([](Problem& p) { p.b.format = KDACHECK_CUDA_FP16; }) == KDACHECK_CUDA_BAD_FORMAT);
  }
  CHECK(status_after(
            [&](Problem& p, Lengths& l) {
              general(p, l);
              p.a.data = static_cast<char*>(p.a.data) + 2;
            },
            KDACHECK_CUDA_CHUNK_FAST) == KDACHECK_CUDA_BAD_LAYOUT);
  CHECK(status_after(
            [&](Problem& p, Lengths& l) {
              general(p, l);
              p.K = 96;
            },
            KDACHECK_CUDA_CHUNK_FAST) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(status_after(general, KDACHECK_CUDA_CHUNK_ACCURATE) == KDACHECK_CUDA_BAD_OPTION);
  Good good;
  general(good.problem, good.lengths);
  CHECK(check_call(KDACHECK_CUDA_CHUNK_FAST, &good.problem, true).result.status == KDACHECK_CUDA_OK);
}

TEST_CASE("misaligned and overlapping rows are refused where the kernel cannot take them") {
  const auto misalign = [](Problem& p, Lengths&) { p.k.data = static_cast<char*>(p.k.data) + 2; };
  CHECK(status_after(misalign) == KDACHECK_CUDA_BAD_LAYOUT);
  CHECK(status_after(misalign, KDACHECK_CUDA_RECURRENCE) == KDACHECK_CUDA_OK);
  CHECK(status_after([](Problem& p, Lengths&) { p.q.data = static_cast<char*>(p.q.data) + 1; }, KDACHECK_CUDA_RECURRENCE) ==
        KDACHECK_CUDA_BAD_LAYOUT);
  const auto odd_stride = [](Problem& p, Lengths&) { p.v.stride[0] = 5000, p.v.stride[1] = 517, p.v.stride[2] = 128; };
  CHECK(status_after(odd_stride) == KDACHECK_CUDA_BAD_LAYOUT);
  CHECK(status_after(odd_stride, KDACHECK_CUDA_RECURRENCE) == KDACHECK_CUDA_OK);
  CHECK(status_after([](Problem& p, Lengths&) { p.o.stride[0] = 0, p.o.stride[1] = 64, p.o.stride[2] = 128; }) == KDACHECK_CUDA_BAD_LAYOUT);
}

TEST_CASE("decode takes 1 to 8 tokens and a state in place") {
  const auto decode = [](auto change) {
    return status_after(
        [&](Problem& p, Lengths& l) {
          p.cu_seqlens = nullptr, p.cu_seqlens_host = nullptr, p.final_state = nullptr;
          p.T = 4, p.B = 3, p.slots = 3;
          p.state = reinterpret_cast<float*>(std::uintptr_t{0xa000});
          change(p, l);
        },
        KDACHECK_CUDA_DECODE);
  };
  CHECK(decode([](Problem&, Lengths&) {}) == KDACHECK_CUDA_OK);
  CHECK(decode([](Problem& p, Lengths&) { p.T = 9; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(decode([](Problem& p, Lengths&) { p.T = 0; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(decode([](Problem& p, Lengths&) { p.slots = 2; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(decode([](Problem& p, Lengths&) { p.state = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(decode([](Problem& p, Lengths&) { p.state += 1; }) == KDACHECK_CUDA_BAD_LAYOUT);
  CHECK(decode([](Problem& p, Lengths&) { p.state_v_first = 1; }) == KDACHECK_CUDA_BAD_OPTION);
}

TEST_CASE("a refusal names the argument") {
  Good good;
  good.problem.v.data = nullptr;
  CHECK(std::string(check_call(KDACHECK_CUDA_CHUNK_FAST, &good.problem).result.text).find("v is") == 0);
}

TEST_CASE("the chunk kernels take a workspace for long sequences of one length, and at most for 256 heads") {
  Good good;
  Problem& p = good.problem;
  const auto bytes = [&](int kernel) {
    const CheckedCall call = check_call(kernel, &p);
    REQUIRE(call.result.status == KDACHECK_CUDA_OK);
    return workspace_bytes(kernel, call.args);
  };
  CHECK(bytes(KDACHECK_CUDA_CHUNK_FAST) == 0); // packed
  p.cu_seqlens = nullptr, p.cu_seqlens_host = nullptr;
  CHECK(bytes(KDACHECK_CUDA_CHUNK_FAST) == 0); // short
  p.T = 4096;
  CHECK(bytes(KDACHECK_CUDA_CHUNK_FAST) == handover_head_bytes + std::size_t{4} * 128 * 128 * 4);
  CHECK(bytes(KDACHECK_CUDA_CHUNK_ACCURATE) == bytes(KDACHECK_CUDA_CHUNK_FAST));
  CHECK(bytes(KDACHECK_CUDA_RECURRENCE) == 0);
  p.K = 96;
  CHECK(bytes(KDACHECK_CUDA_CHUNK_FAST) == 0); // not dealt out
  p.K = 128, p.H = p.HV = 1000;
  CHECK(bytes(KDACHECK_CUDA_CHUNK_FAST) == handover_head_bytes + std::size_t{256} * 128 * 128 * 4);
}
