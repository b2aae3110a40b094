// The checks of a backward call, on a host, and the size of its workspace.

#include "../host/backward_workspace.hpp"
#include "../host/check.hpp"
#include "../host/dplr_workspace.hpp"
#include "../host/recurrence_workspace.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck::cuda;

namespace {

template <class T> T* address(std::uintptr_t at) { return reinterpret_cast<T*>(at); }
kdacheck_cuda_tensor tensor(std::uintptr_t at, int format = KDACHECK_CUDA_BF16) { return {address<void>(at), format, {}}; }

/// A call that every check accepts. Addresses are never followed.
struct Good {
  std::vector<std::int64_t> lengths{0, 0, 5, 32};
  kdacheck_cuda_problem problem{};
  kdacheck_cuda_gradients gradients{};
  Good() {
    kdacheck_cuda_problem& p = problem;
    p.B = 1, p.T = 32, p.H = 2, p.HV = 4, p.K = 128, p.V = 128;
    p.gate = KDACHECK_CUDA_BOUNDED, p.beta_form = KDACHECK_CUDA_BETA_SIGMOID, p.lower_bound = -5, p.scale = 1, p.l2norm = 1;
    p.q = tensor(0x1000), p.k = tensor(0x2000), p.v = tensor(0x3000), p.g = tensor(0x4000), p.beta = tensor(0x5000);
    p.A_log = address<const float>(0x7000), p.dt_bias = address<const float>(0x7100);
    p.cu_seqlens = address<const std::int64_t>(0x9000), p.cu_seqlens_host = lengths.data(), p.sequences = 3;
    kdacheck_cuda_gradients& d = gradients;
    d.d_o = tensor(0xa000), d.d_final_state = address<const float>(0xb000);
    d.dq = tensor(0xc000, KDACHECK_CUDA_FP32), d.dk = tensor(0xd000), d.dv = tensor(0xe000, KDACHECK_CUDA_FP16), d.dg = tensor(0xf000);
    d.dbeta = tensor(0x10000), d.d_A_log = address<float>(0x11000), d.d_dt_bias = address<float>(0x12000);
    d.d_initial_state = address<float>(0x13000);
  }
};

template <class Change> kdacheck_cuda_result result_after(Change change, int kernel = KDACHECK_CUDA_CHUNK_FAST) {
  Good good;
  change(good.problem, good.gradients);
  return check_backward(kernel, &good.problem, &good.gradients).result;
}
template <class Change> int status_after(Change change, int kernel = KDACHECK_CUDA_CHUNK_FAST) {
  return result_after(change, kernel).status;
}

using Problem = kdacheck_cuda_problem;
using Gradients = kdacheck_cuda_gradients;

} // namespace

TEST_CASE("a well-formed backward call is accepted, also without o, cotangents or any one gradient") {
  for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE, KDACHECK_CUDA_RECURRENCE})
    CHECK(status_after([](Problem&, Gradients&) {}, kernel) == KDACHECK_CUDA_OK);
  CHECK(status_after([](Problem&, Gradients& d) { d.d_o = {}; }) == KDACHECK_CUDA_OK);
  CHECK(status_after([](Problem&, Gradients& d) { d.d_final_state = nullptr; }) == KDACHECK_CUDA_OK);
  CHECK(status_after([](Problem&, Gradients& d) { d = {}; }) == KDACHECK_CUDA_OK);
}

TEST_CASE("kernels without a backward pass, and shapes that it does not take, are refused") {
  CHECK(status_after([](Problem&, Gradients&) {}, KDACHECK_CUDA_DECODE) == KDACHECK_CUDA_BAD_OPTION);
  CHECK(status_after([](Problem& p, Gradients&) { p.K = 72; }) == KDACHECK_CUDA_BAD_SHAPE);
  for (std::int64_t K = 16; K <= 256; K += 16)
    for (std::int64_t V = 16; V <= 256; V += 16) {
      CHECK(status_after([=](Problem& p, Gradients&) { p.K = K, p.V = V; }) == KDACHECK_CUDA_OK);
      CHECK(status_after([=](Problem& p, Gradients&) { p.K = K, p.V = V; }, KDACHECK_CUDA_CHUNK_ACCURATE) ==
            (K > 128 || (K != 64 && V > 128) ? KDACHECK_CUDA_BAD_SHAPE : KDACHECK_CUDA_OK));
    }
  CHECK(status_after([](Problem& p, Gradients&) { p.V = 256; }) == KDACHECK_CUDA_OK);
  CHECK(status_after([](Problem& p, Gradients&) { p.V = 144; }, KDACHECK_CUDA_CHUNK_ACCURATE) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(status_after([](Problem& p, Gradients&) { p.V = 256, p.K = 64; }, KDACHECK_CUDA_CHUNK_ACCURATE) == KDACHECK_CUDA_OK);
}

TEST_CASE("the recurrence takes DPLR, any sizes and any strides backward") {
  const auto general = [](Problem& p, Gradients& d) {
    p.rule = KDACHECK_CUDA_DPLR, p.beta = {}, p.a = tensor(0x20000), p.b = tensor(0x21000);
    d.dbeta = {}, d.da = tensor(0x22000, KDACHECK_CUDA_FP32), d.db = tensor(0x23000);
  };
  CHECK(status_after(general, KDACHECK_CUDA_RECURRENCE) == KDACHECK_CUDA_OK);
  CHECK(status_after(general, KDACHECK_CUDA_CHUNK_FAST) == KDACHECK_CUDA_OK);
  CHECK(status_after(general, KDACHECK_CUDA_CHUNK_ACCURATE) == KDACHECK_CUDA_BAD_OPTION);
  const auto with_beta = [&](Problem& p, Gradients& d) { general(p, d), d.dbeta = tensor(0x10000); };
  CHECK(result_after(with_beta, KDACHECK_CUDA_RECURRENCE).text == std::string("dbeta has no place with DPLR"));
  const auto with_a = [](Problem&, Gradients& d) { d.da = tensor(0x22000); };
  CHECK(result_after(with_a, KDACHECK_CUDA_RECURRENCE).text == std::string("da and db have no place without DPLR"));
  CHECK(status_after([](Problem& p, Gradients&) { p.K = 37, p.V = 251; }, KDACHECK_CUDA_RECURRENCE) == KDACHECK_CUDA_OK);
  const auto odd = [](Problem& p, Gradients& d) {
    p.B = 1, p.v.stride[1] = 901, p.v.stride[2] = 131;
    d.dq = tensor(0xc004, KDACHECK_CUDA_FP32), d.dv.stride[1] = 901, d.dv.stride[2] = 131;
  };
  CHECK(status_after(odd, KDACHECK_CUDA_RECURRENCE) == KDACHECK_CUDA_OK);
  CHECK(status_after(odd) == KDACHECK_CUDA_BAD_LAYOUT);
}

TEST_CASE("the workspace of the recurrence's backward pass grows by one state for 64 tokens") {
  const auto bytes = [](std::int64_t T, int K, int V, bool dplr) {
    ForwardArguments args;
    args.N = 1, args.T = T, args.H = args.HV = 3, args.K = K, args.V = V, args.dplr = dplr;
    return static_cast<std::int64_t>(recurrence_workspace(args, 1).bytes);
  };
  CHECK(bytes(8192, 128, 128, false) - bytes(4096, 128, 128, false) == 4096 * 3 * (1024 + 2 * 4 * 385));
  CHECK(bytes(8192, 64, 64, true) - bytes(4096, 64, 64, true) == 4096 * 3 * (256 + 4 * 5 * 64));
  CHECK(bytes(1, 128, 128, false) <= 3 * (65536 + 2 * 4 * 385) + 5 * 256);
}

TEST_CASE("gradients without a place are refused") {
  const auto no_gate = [](Problem& p, Gradients&) { p.gate = KDACHECK_CUDA_NO_GATE, p.g = {}, p.A_log = p.dt_bias = nullptr; };
  CHECK(result_after(no_gate).text == std::string("dg has no place without a gate"));
  CHECK(status_after([](Problem& p, Gradients&) { p.gate = KDACHECK_CUDA_LOG_DECAY, p.A_log = p.dt_bias = nullptr; }) ==
        KDACHECK_CUDA_NULL_POINTER);
  CHECK(status_after([](Problem& p, Gradients&) { p.dt_bias = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
}

TEST_CASE("formats and layouts of gradients are checked") {
  CHECK(status_after([](Problem&, Gradients& d) { d.d_o.format = KDACHECK_CUDA_FP32; }) == KDACHECK_CUDA_BAD_FORMAT);
  CHECK(status_after([](Problem&, Gradients& d) { d.dg.format = 5; }) == KDACHECK_CUDA_BAD_FORMAT);
  CHECK(status_after([](Problem&, Gradients& d) { d.dk = tensor(0xd002); }) == KDACHECK_CUDA_BAD_LAYOUT);
  CHECK(status_after([](Problem&, Gradients& d) { d.d_A_log = address<float>(0x11002); }) == KDACHECK_CUDA_BAD_LAYOUT);
  const auto overlap = [](Problem&, Gradients& d) { d.dv.stride[1] = 64, d.dv.stride[2] = 128; };
  CHECK(result_after(overlap).text == std::string("dv: rows overlap"));
}

TEST_CASE("the workspace is at most 1.5 times inputs, outputs and gradients at one value head a key head") {
  for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE})
    for (std::int64_t K : {64, 128})
      for (std::int64_t length : {1, 15, 64, 65, 200, 8192}) {
        Good good;
        kdacheck_cuda_problem& p = good.problem;
        const std::int64_t members = 3;
        good.lengths = {0, length, 2 * length, 3 * length};
        p.cu_seqlens_host = good.lengths.data(), p.sequences = members;
        p.T = members * length, p.H = p.HV = 4, p.K = p.V = K;
        const CheckedBackward call = check_backward(kernel, &p, &good.gradients);
        REQUIRE(call.result.status == KDACHECK_CUDA_OK);
        // bf16 throughout: q k g dq dk dg, v o do dv, beta dbeta.
        const double moved = static_cast<double>(p.T * p.HV) * static_cast<double>(2 * (6 * K + 4 * K + 2));
        INFO(K << ' ' << length);
        CHECK(static_cast<double>(backward_workspace_bytes(kernel, call.args)) <= 1.5 * moved + 8 * 256);
      }
}

TEST_CASE("the workspace is at most 1.5 times inputs, outputs and gradients where heads are grouped or keys are long") {
  for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE})
    for (const auto& [H, HV] : std::vector<std::array<int, 2>>{{8, 32}, {4, 64}, {1, 4}, {1, 32}, {6, 6}})
      for (std::int64_t K : {16, 64, 112, 128, 256}) {
        Good good;
        kdacheck_cuda_problem& p = good.problem;
        p.cu_seqlens = nullptr, p.cu_seqlens_host = nullptr;
        p.T = 8192, p.H = H, p.HV = HV, p.K = K, p.V = std::min<std::int64_t>(128, K);
        const CheckedBackward call = check_backward(kernel, &p, &good.gradients);
        if (kernel == KDACHECK_CUDA_CHUNK_ACCURATE && K > 128) continue;
        REQUIRE(call.result.status == KDACHECK_CUDA_OK);
        const double moved = static_cast<double>(p.T * 2) * static_cast<double>(H * 4 * K + HV * (2 * K + 4 * p.V + 2));
        INFO(kernel << ' ' << H << ' ' << HV << ' ' << K);
        CHECK(static_cast<double>(backward_workspace_bytes(kernel, call.args)) <= 1.5 * moved);
      }
}

TEST_CASE("the general rule's workspace is at most 1.5 times inputs, outputs and gradients at one value head a key head") {
  for (std::int64_t K : {64, 128})
    for (std::int64_t length : {16, 64, 65, 200, 8192}) {
      ForwardArguments args;
      args.N = 3, args.T = 3 * length, args.H = args.HV = 4, args.K = args.V = static_cast<int>(K), args.dplr = true;
      const std::int64_t moved = args.T * args.HV * 2 * (10 * K + 4 * K); // bf16 throughout: q k g a b and theirs, v o do dv
      INFO(K << ' ' << length);
      CHECK(2 * static_cast<std::int64_t>(general_workspace(args, 1, true).bytes) <= 3 * moved + 2 * 8 * 256);
    }
}

TEST_CASE("chunks are kept for the sweeps where the workspace may hold them") {
  const auto slots = [](int HV, int pieces, bool packed, std::int64_t members) {
    ForwardArguments args;
    args.N = members, args.T = 8192, args.H = 32, args.HV = HV, args.K = args.V = 128, args.gate = Gate::bounded;
    return backward_workspace(args, 1, pieces, packed).stage_slots;
  };
  CHECK(slots(32, 1, false, 1) == 512);
  CHECK(slots(32, 1, true, 3) == 515);
  CHECK(slots(32, 1, true, 8192) == 0);  // members of one token
  CHECK(slots(32, 2, false, 1) == 0);    // two terms
  CHECK(slots(128, 1, false, 1) == 512); // grouped heads, in two rounds
}
