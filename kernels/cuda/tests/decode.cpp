// The decode kernels on an emulated multiprocessor against the token recurrence.

#include "../decode/decode.cuh"
#include "../decode/decode_few.cuh"
#include "gradients.hpp"

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

enum class Form { registers, staged, few };

/// A case's state in slots, and what a kernel made of it.
struct Emulated {
  Made made;
  Owned o, h, slots; ///< h: the states of sequences after the call
  Inputs in;
  std::int64_t N;
};

/// Every block of a call.
template <Form form, int K, int columns, int threads> void launch(const cuda::ForwardArguments& args, std::int64_t sequences) {
  using namespace cuda;
  const int slices = (args.V + columns - 1) / columns;
  const auto blocks = static_cast<unsigned>(sequences * args.HV * slices);
  std::size_t shared = 0;
  if constexpr (form == Form::few)
    shared = FewLayout<K, columns>::bytes;
  else
    shared = (form == Form::staged ? sizeof(float) * K * columns : 0) + 2 * (threads / 32) * sizeof(Sums<columns>) +
             static_cast<std::size_t>(args.T) * sizeof(Token<K>);
  simt::grid_x = static_cast<unsigned>(slices), simt::grid_y = static_cast<unsigned>(args.HV);
  for (unsigned block = 0; block < blocks; ++block)
    simt::run_cluster(block, 1, threads, shared, [&] {
      if constexpr (form == Form::few)
        decode_few_block<K, columns>(few_arguments(args));
      else if constexpr (form == Form::staged)
        decode_staged_block<K, columns, threads>(args);
      else
        decode_block<K, columns, threads>(args);
    });
}

/// Runs a form with room for K channels, all tokens in one call or each in its own. Sequence n owns slot N - n; slot 0 is nobody's.
/// Sequences whose bit is set in `skip` have slot -1.
template <Form form, int K, int columns, int threads>
void run(Emulated& data, const Case& test, unsigned skip = 0, bool token_by_token = false) {
  using namespace cuda;
  ForwardArguments args = backward_arguments(test, data.made).call;
  const Shape& s = test.shape;
  const auto state = static_cast<std::size_t>(s.HV * s.K * s.V);
  std::vector<std::int32_t> slot;
  auto* slots = static_cast<float*>(data.slots.view.data);
  const auto* initial = reinterpret_cast<const float*>(data.made.input.at(Input::initial_state).bytes.data());
  for (std::int64_t n = 0; n < s.B; ++n) {
    slot.push_back(skip >> n & 1 ? -1 : static_cast<std::int32_t>(s.B - n));
    std::copy_n(initial + static_cast<std::size_t>(n) * state, state, slots + static_cast<std::size_t>(s.B - n) * state);
  }
  args.slot = slot.data(), args.final_state = slots, args.N = s.B + 1, args.o = row_view(data.o.view);
  args.output_format = Stored::fp32;
  if (token_by_token) {
    args.T = 1;
    for (std::int64_t t = 0; t < s.T; ++t) {
      ForwardArguments of_token = args;
      const auto from = [&](View& view, Stored format) {
        view.data = static_cast<unsigned char*>(view.data) + t * view.token * (format == Stored::fp32 ? 4 : 2);
      };
      for (View* view : {&of_token.q, &of_token.k, &of_token.v}) from(*view, args.qkv_format);
      from(of_token.g, args.gate_format), from(of_token.beta, args.beta_format), from(of_token.o, args.output_format);
      launch<form, K, columns, threads>(of_token, s.B);
    }
  } else
    launch<form, K, columns, threads>(args, s.B);
  for (std::int64_t n = 0; n < s.B; ++n)
    std::copy_n(slots + static_cast<std::size_t>(s.B - n) * state, state,
                static_cast<float*>(data.h.view.data) + static_cast<std::size_t>(n) * state);
}

Emulated make_decode(const Case& test) {
  const Shape& s = test.shape;
  auto slots = shape_of(Input::initial_state, s, s.B + 1);
  Emulated data{make(test),
                Owned(Format::fp32, shape_of(Output::o, s, s.B)),
                Owned(Format::fp32, shape_of(Input::initial_state, s, s.B)),
                Owned(Format::fp32, slots),
                {},
                s.B};
  data.in = data.made.in;
  return data;
}

template <Form form, int K, int columns, int threads> void check(const Case& test) {
  Emulated data = make_decode(test);
  run<form, K, columns, threads>(data, test);
  const auto [o, state] = errors_against_recurrence(data, test);
  INFO("K " << test.shape.K << ", V " << test.shape.V << ", T " << test.shape.T);
  CHECK(o <= 2e-6);
  CHECK(state <= 1e-6);
  for (std::size_t byte = 0; byte < static_cast<std::size_t>(test.shape.HV * test.shape.K * test.shape.V) * 4; ++byte)
    REQUIRE(data.slots.bytes[byte] == 0xff); // nobody's slot
}

Case decode_case(std::int64_t T, std::int64_t K, std::int64_t V, GateForm gate = GateForm::bounded, Format input = Format::bf16) {
  return {.shape = {.B = 2, .T = T, .H = 2, .HV = 4, .K = K, .V = V},
          .options = {.gate = gate, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.125f},
          .input = input};
}

/// What is skipped stays as it was, o too.
template <Form form, int K, int columns, int threads> void check_skipped(const Case& test) {
  Emulated all = make_decode(test), some = make_decode(test);
  run<form, K, columns, threads>(all, test);
  run<form, K, columns, threads>(some, test, 1);
  const std::size_t o_bytes = (some.o.bytes.size() - 1) / 2, h_bytes = (some.h.bytes.size() - 1) / 2; // of each of two sequences
  for (std::size_t byte = 0; byte < o_bytes; ++byte) REQUIRE(some.o.bytes[byte] == 0xff);
  const unsigned char* before = some.made.input.at(Input::initial_state).bytes.data();
  CHECK(std::equal(before, before + h_bytes, some.h.bytes.begin()));
  CHECK(std::equal(all.o.bytes.begin() + static_cast<std::ptrdiff_t>(o_bytes), all.o.bytes.end() - 1,
                   some.o.bytes.begin() + static_cast<std::ptrdiff_t>(o_bytes)));
}

} // namespace

TEST_CASE("decode with the state in registers agrees with the recurrence") {
  for (std::int64_t T : {1, 3, 8}) check<Form::registers, 128, 16, 128>(decode_case(T, 128, 36));
  check<Form::registers, 64, 32, 128>(decode_case(2, 48, 40, GateForm::softplus));
  check<Form::registers, 256, 32, 128>(decode_case(5, 208, 36, GateForm::sigmoid, Format::fp32));
}

TEST_CASE("staged decode agrees with the recurrence") {
  for (std::int64_t T : {1, 2, 8}) check<Form::staged, 128, 64, 128>(decode_case(T, 128, 128));
  check<Form::staged, 128, 64, 128>(decode_case(3, 80, 68, GateForm::softplus, Format::fp16));
  check<Form::staged, 64, 64, 128>(decode_case(4, 64, 4, GateForm::absent));
  check<Form::staged, 64, 64, 128>(decode_case(1, 16, 100, GateForm::sigmoid, Format::fp32));
}

TEST_CASE("decode with a thread a channel agrees with the recurrence") {
  for (std::int64_t K : {128, 112, 80}) check<Form::few, 128, 16, 128>(decode_case(1, K, 132));
  for (std::int64_t T : {2, 3, 8}) check<Form::few, 128, 16, 128>(decode_case(T, 128, 36));
  for (std::int64_t K : {64, 48, 16}) check<Form::few, 64, 16, 64>(decode_case(5 - K / 16, K, 36, GateForm::softplus));
  check<Form::few, 128, 16, 128>(decode_case(1, 128, 4, GateForm::log_decay, Format::fp32));
  Case plain = decode_case(1, 96, 20, GateForm::absent, Format::fp16);
  plain.options.l2norm = false, plain.options.beta = BetaForm::value;
  check<Form::few, 128, 16, 128>(plain);
}

TEST_CASE("a token's bits do not hang on how a sequence is cut into calls of decode") {
  const auto check_bits = []<Form form, int K, int columns, int threads>(const Case& test) {
    Emulated whole = make_decode(test), cut = make_decode(test);
    run<form, K, columns, threads>(whole, test);
    run<form, K, columns, threads>(cut, test, 0, true);
    CHECK(std::ranges::equal(whole.o.bytes, cut.o.bytes));
    CHECK(std::ranges::equal(whole.h.bytes, cut.h.bytes));
  };
  for (std::int64_t T : {2, 5, 8}) {
    check_bits.operator()<Form::few, 128, 16, 128>(decode_case(T, 112, 20));
    check_bits.operator()<Form::few, 64, 16, 64>(decode_case(T, 64, 36, GateForm::softplus, Format::fp32));
    check_bits.operator()<Form::staged, 128, 64, 128>(decode_case(T, 128, 68));
    check_bits.operator()<Form::registers, 256, 32, 128>(decode_case(T, 208, 36));
  }
}

TEST_CASE("decode leaves a sequence without a slot as it was") {
  check_skipped<Form::registers, 128, 16, 128>(decode_case(2, 128, 36));
  check_skipped<Form::staged, 64, 64, 128>(decode_case(2, 64, 36));
  check_skipped<Form::few, 64, 16, 64>(decode_case(2, 64, 36));
}

TEST_CASE("a rate that overflows does not come to a decoded token from channels that are not there") {
  const auto finite = [](const Emulated& data) {
    for (std::int64_t e = 0; e < data.o.view.elements(); ++e) REQUIRE(std::isfinite(load(data.o.view, e)));
  };
  const Case test = decode_case(1, 48, 20);
  const auto with_rate = [&] {
    Emulated data = make_decode(test);
    for (std::int64_t head = 0; head < test.shape.HV; ++head) store(data.made.input.at(Input::A_log).view, head, 100.0f);
    return data;
  };
  Emulated one = with_rate(), registers = with_rate(), staged = with_rate();
  run<Form::few, 64, 16, 64>(one, test), finite(one);
  run<Form::registers, 64, 32, 128>(registers, test), finite(registers);
  run<Form::staged, 64, 64, 128>(staged, test), finite(staged);
}
