// Decode under load, in graphs and on many blocks. Its state moves on in place, so that it is put back before each run.

#include "device.hpp"
#include "driver.hpp"
#include "notes.hpp"

namespace kdacheck::cuda {
namespace {

std::vector<unsigned char> download(const void* from, std::size_t bytes) {
  std::vector<unsigned char> host(bytes);
  require(cudaMemcpy(host.data(), from, bytes, cudaMemcpyDeviceToHost), "copy");
  return host;
}

struct Decode {
  DeviceProblem made;
  std::size_t state_bytes, output_bytes;
  std::vector<unsigned char> states; ///< as they are before a call

  Decode(std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t K, std::int64_t V)
      : made(make_problem(B, T, H, K, V, 33, true)), state_bytes(static_cast<std::size_t>(B * H * K * V) * 4),
        output_bytes(static_cast<std::size_t>(B * T * H * V) * 2), states(download(made.problem.state, state_bytes)) {}
  void put_back(int poison, cudaStream_t stream) const {
    require(cudaMemcpyAsync(made.problem.state, states.data(), state_bytes, cudaMemcpyHostToDevice, stream), "copy");
    require(cudaMemsetAsync(made.problem.o.data, poison, output_bytes, stream), "poison");
  }
  std::vector<unsigned char> results() const {
    require(cudaDeviceSynchronize(), "run");
    auto all = download(made.problem.o.data, output_bytes);
    const auto state = download(made.problem.state, state_bytes);
    all.insert(all.end(), state.begin(), state.end());
    return all;
  }
};

bool repeats(const Decode& decode, int runs) {
  cudaStream_t busy, stream;
  require(cudaStreamCreateWithFlags(&busy, cudaStreamNonBlocking), "stream");
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  const DeviceProblem load = make_problem(2, 700, 7, 128, 128, 77);
  std::vector<unsigned char> first;
  bool same = true;
  for (int run = 0; run < runs; ++run) {
    for (int i = 0; i < run % 4; ++i) require(load.forward(KDACHECK_CUDA_CHUNK_FAST, busy));
    decode.put_back(run % 2 ? 0xff : 0x7b, stream);
    require(decode.made.forward(KDACHECK_CUDA_DECODE, stream));
    auto now = decode.results();
    if (run == 0)
      first = std::move(now);
    else
      same = same && now == first;
  }
  cudaStreamDestroy(busy);
  cudaStreamDestroy(stream);
  return same;
}

bool replays(const Decode& decode) {
  const kdacheck_cuda_problem& p = decode.made.problem;
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  decode.put_back(0xff, stream);
  require(decode.made.forward(KDACHECK_CUDA_DECODE, stream));
  const auto before = decode.results();
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  require(decode.made.forward(KDACHECK_CUDA_DECODE, stream));
  require(cudaStreamEndCapture(stream, &graph), "capture");
  require(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  const auto count = p.B * p.T * p.HV * p.V;
  const DeviceMemory fresh = random_bf16(count, 0, 2, 4242);
  require(cudaMemcpy(p.v.data, fresh.get(), static_cast<std::size_t>(count) * 2, cudaMemcpyDeviceToDevice), "copy");
  decode.put_back(0xff, stream);
  require(cudaGraphLaunch(exec, stream), "launch");
  const auto replayed = decode.results();
  decode.put_back(0x7b, stream);
  require(decode.made.forward(KDACHECK_CUDA_DECODE, stream));
  const auto called = decode.results();
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return replayed == called && replayed != before;
}

} // namespace

bool check_decode_behaviour(nlohmann::json& report, bool small) {
  Notes note(report);
  const char* repeated = small ? "2 runs under load are bitwise equal" : "50 runs under load are bitwise equal";
  const int runs = small ? 2 : 50;
  note(repeated, "decode, one token", repeats(Decode(1, 1, 32, 128, 128), runs));
  note(repeated, "decode", repeats(Decode(2, 5, 3, 128, 128), runs));
  note(repeated, "decode, many heads", repeats(Decode(small ? 25 : 64, 1, 4, 128, 128), runs));
  note("a replayed graph sees new values", "decode, one token", replays(Decode(1, 1, 5, 64, 64)));
  note("a replayed graph sees new values", "decode", replays(Decode(2, 3, 5, 64, 64)));
  note("a replayed graph sees new values", "decode, many heads", replays(Decode(40, 2, 5, 64, 64)));
  if (!small) note("more than 65535 blocks run", "decode", repeats(Decode(1000, 1, 70, 64, 16), 4));
  return note.all_good();
}

} // namespace kdacheck::cuda
