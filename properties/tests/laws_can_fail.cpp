// Every law refuses a kernel in which just what it claims is broken, and accepts the kernel that this was planted in.

#include "../../kernels/faults/faults.hpp"
#include "../compare_bits.hpp"
#include "plain_recurrence.hpp"
#include "planted.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <map>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

using Harm = void (*)(const Inputs&, const Outputs&);

/// The plain recurrence, with something done to its result.
Kernel harmed(Harm harm, const char* contract = "") {
  Kernel kernel =
      plain_recurrence(*parse_contract(std::string("beta_max=2 k_norm_max=2 gates=log_decay,absent rule=kda,dplr ") + contract).contract);
  kernel.forward = [harm](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    plain_forward(in, out);
    harm(in, out);
  };
  return kernel;
}

/// The plain recurrence on inputs that something was done to.
Kernel misled(void (*mislead)(Inputs&), const char* contract = "") {
  Kernel kernel = harmed([](const Inputs&, const Outputs&) {}, contract);
  kernel.forward = [mislead](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    Inputs other = in;
    mislead(other);
    plain_forward(other, out);
  };
  return kernel;
}

/// The laws' own checks, with the plain recurrence as the right kernel unless another is given.
struct CatchesForward : Catches {
  using Catches::operator();
  void operator()(std::string_view law, const Kernel& wrong, const char* regime = "usual-decay") const {
    Kernel right = harmed([](const Inputs&, const Outputs&) {});
    right.contract = wrong.contract;
    (*this)(law, wrong, regime, right);
  }
};

/// A kernel of the suite that is told something else.
Kernel misled_built_in(void (*mislead)(Inputs&)) {
  Kernel kernel = built_in("cpu.recurrence.fp32");
  kernel.forward = [mislead, forward = kernel.forward](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
    Inputs other = in;
    mislead(other);
    forward(other, out, workspace);
  };
  return kernel;
}

void about_values(const CatchesForward& catches) {
  catches("agrees-with-the-oracle", harmed([](auto& in, auto& out) { add_to(out.o, in.shape.HV * in.shape.V - 1, 0.01f); }));
  catches("chunk-size-is-invisible", harmed([](auto& in, auto& out) {
            if (in.shape.T % 16 == 15) scale_all(out.final_state, 1.001f);
          }));
  catches("sequence-splits-anywhere", harmed([](auto& in, auto& out) {
            if (in[Input::initial_state]) scale_all(out.final_state, 1.0001f);
          }));
  catches("parts-of-values-and-state-are-right", harmed([](auto& in, auto& out) {
            if (!in[Input::initial_state]) add_to(out.final_state, 0, 0.001f);
          }));
  catches("a-chunk-from-a-warm-state-is-right", harmed([](auto& in, auto& out) {
            if (in.shape.T == 1 || in[Input::initial_state]) scale_all(out.o, 1.0001f);
          }));
  catches("key-channel-order-is-invisible", misled([](Inputs& in) { in[Input::g].stride[3] = 0; }), "decay-per-channel");
  catches("outputs-are-finite", harmed([](auto&, auto& out) { add_to(out.o, out.o.elements() / 2, INFINITY); }));
}

void about_order_and_company(const CatchesForward& catches) {
  catches("packed-equals-separate", harmed([](auto& in, auto& out) {
            if (in.cu_seqlens.size() > 2 && in.cu_seqlens[1] > 0) add_to(out.o, (in.cu_seqlens[1] - 1) * out.o.stride[1], 1e-5f);
          }));
  catches("batch-order-is-invisible", harmed([](auto&, auto& out) { add_to(out.final_state, 0, 1e-4f); }));
  catches("head-order-is-invisible", harmed([](auto&, auto& out) { add_to(out.o, 0, 1e-4f); }));
  catches("grouped-equals-repeated-heads", harmed([](auto& in, auto& out) {
            if (in.shape.H != in.shape.HV) add_to(out.o, 0, 1e-4f);
          }));
  catches("an-empty-sequence-keeps-its-state", harmed([](auto& in, auto& out) {
            for (std::int64_t n = 0; n < in.N() && !in.cu_seqlens.empty() && out.final_state; ++n)
              if (in.cu_seqlens[static_cast<std::size_t>(n)] == in.cu_seqlens[static_cast<std::size_t>(n) + 1])
                store(out.final_state, out.final_state.offset(n), 7.0f);
          }));
  catches("value-channels-are-independent", harmed([](auto& in, auto& out) {
            if (out.o.elements() > 0) add_to(out.o, 0, 1e-3f * at(in[Input::v], 0, 0, 0, in.shape.V - 1));
          }));
}

void about_time(const CatchesForward& catches) {
  const auto future = harmed([](auto& in, auto& out) {
    if (in.shape.T > 1) add_to(out.o, 0, 1e-3f * load(in[Input::v], in[Input::v].offset(0, in.shape.T - 1)));
  });
  catches("future-tokens-change-nothing-before-them", future);
  catches("appended-tokens-change-nothing-before-them", future);
  catches("a-reset-forgets-everything", harmed([](auto& in, auto& out) {
            if (in.shape.T > 0) add_to(out.final_state, 0, 1e-3f * load(in[Input::v], 0));
          }));
  catches("an-idle-token-changes-nothing", harmed([](auto& in, auto& out) {
            for (std::int64_t t = 0; t < in.shape.T && in.options.rule == Rule::kda; ++t)
              if (at(in[Input::beta], 0, t) == 0) add_to(out.final_state, 0, 1e-3f);
          }));
  catches("a-nan-stays-in-its-place", harmed([](auto&, auto& out) {
            bool any = false;
            for (std::int64_t i = 0; i < out.o.elements(); ++i) any = any || std::isnan(load(out.o, i));
            if (any) scale_all(out.o, NAN);
          }));
}

void about_linearity_and_absent_tensors(const CatchesForward& catches) {
  catches("linear-in-values-and-state", harmed([](auto&, auto& out) { add_to(out.o, 0, 1e-4f); }));
  catches("linear-in-scale", harmed([](auto& in, auto& out) { scale_all(out.o, 1 + 1e-3f * in.options.scale); }));
  catches("absent-gate-is-gate-zero", harmed([](auto& in, auto& out) {
            if (!in[Input::g]) scale_all(out.o, 1.0001f);
          }));
  catches("absent-state-is-state-zero", harmed([](auto& in, auto& out) {
            if (!in[Input::initial_state]) add_to(out.final_state, 0, 1e-6f);
          }));
}

void about_memory(const CatchesForward& catches) {
  catches("inputs-are-unchanged", harmed([](auto& in, auto&) { scale_all(in[Input::v], 0.5f); }));
  catches("nothing-else-is-touched", harmed([](auto&, auto& out) { store(out.o, out.o.elements(), 0.0f); }));
  catches("strided-inputs-equal-dense-ones",
          misled([](Inputs& in) { in[Input::k].stride = contiguous_strides(in[Input::k].shape); }, "strided=yes"));
  catches("asking-for-no-state-changes-nothing", harmed([](auto&, auto& out) {
            if (!out.final_state) scale_all(out.o, 1.0001f);
          }));
  Kernel unwritten = harmed([](auto&, auto&) {});
  unwritten.forward = [](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    const float before = out.o.elements() > 3 ? load(out.o, 3) : 0;
    plain_forward(in, out);
    if (out.o.elements() > 3) store(out.o, 3, before);
  };
  catches("every-output-element-is-written", unwritten);
  Kernel reader = harmed([](auto&, auto&) {});
  reader.workspace_bytes = [](const Inputs&, bool) { return std::size_t{64}; };
  reader.forward = [](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
    plain_forward(in, out);
    if (workspace[5] != std::byte{0}) add_to(out.o, 0, 1e-4f);
  };
  catches("workspace-contents-have-no-influence", reader);
  catches("reused-memory-gives-new-results", harmed([](auto& in, auto& out) {
            static thread_local std::map<const void*, float> first; // of v, kept by address
            if (in.shape.T == 0) return;
            const float now = load(in[Input::v], 0), before = first.emplace(in[Input::v].data, now).first->second;
            add_to(out.o, 0, now - before);
          }));
  catches("repeated-runs-agree", harmed([](auto&, auto& out) {
            static std::atomic<int> calls{0};
            if (++calls % 2) add_to(out.o, 0, 1e-4f);
          }));
}

void about_the_transition(const CatchesForward& catches) {
  const auto undecayed = misled([](Inputs& in) { in[Input::g] = {}; });
  catches("decay-alone-is-exact", undecayed);
  catches("each-step-keeps-its-identities", undecayed);
  catches("a-unit-key-with-beta-one-overwrites", harmed([](auto& in, auto& out) { // adds what it should overwrite
            for (std::int64_t i = 0; out.final_state && in[Input::initial_state] && i < out.final_state.elements(); ++i)
              add_to(out.final_state, i, load(in[Input::initial_state], i));
          }));
  catches("the-state-norm-obeys-its-bound", harmed([](auto&, auto& out) { scale_all(out.final_state, 1.01f); }), "slow-decay");
  const auto skewed = harmed([](auto&, auto& out) {
    if (out.final_state && out.final_state.shape[3] > 1) add_to(out.final_state, 1, 0.01f);
  });
  catches("the-transition-has-its-spectrum", skewed);
  catches("the-dplr-transition-obeys-its-bounds", skewed, "dplr-benign");
}

void about_digits(const CatchesForward& catches) {
  catches("exact-cases-are-exact", harmed([](auto&, auto& out) { add_to(out.final_state, 0, 0x1p-20f); }), "exact-walsh-keys");
  catches("beta-keeps-its-digits", harmed([](auto&, auto& out) { scale_all(out.final_state, 1 + 0x1p-18f); }), "gaussian-keys");
  catches("the-residual-is-not-rounded-first", harmed([](auto& in, auto& out) { // as if S^T k had been rounded to v
            for (std::int64_t i = 0; in[Input::initial_state] && out.final_state && i < out.final_state.elements(); ++i)
              store(out.final_state, i, load(in[Input::initial_state], i));
          }));
  catches("long-runs-stay-right", harmed([](auto& in, auto& out) {
            if (in.shape.T > 2000) scale_all(out.final_state, 1.001f);
          }),
          "slow-decay");
  catches("many-sequences-are-all-done", harmed([](auto& in, auto& out) {
            if (in.shape.T > 2048) add_to(out.o, out.o.elements() - 1, 1.0f);
          }),
          "packed-single-tokens");
}

void about_decode(const CatchesForward& catches) {
  Kernel right = harmed([](const Inputs&, const Outputs&) {}, "decode=1..3");
  right.decode = right.forward;
  Kernel forgets_decay = right;
  forgets_decay.decode = [](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    Inputs other = in;
    other[Input::g] = {};
    plain_forward(other, out);
  };
  catches("a-decode-chain-is-the-recurrence", forgets_decay, "usual-decay", right);
  Kernel leaves_state = right;
  leaves_state.decode = [](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    plain_forward(in, {.o = out.o, .final_state = {}});
  };
  catches("decode-goes-on-from-a-prefill", leaves_state, "usual-decay", right);
}

void about_forms_of_the_inputs(const CatchesForward& catches) {
  const Kernel& right = built_in("cpu.recurrence.fp32");
  catches("gates-inside-equal-gates-outside", misled_built_in([](Inputs& in) { in[Input::dt_bias].stride[1] = 0; }), "published-init",
          right);
  catches("beta-inside-equals-beta-outside", misled_built_in([](Inputs& in) {
            if (in.options.beta != BetaForm::value) in.options.beta = BetaForm::sigmoid;
          }),
          "beta-logits", right);
  Kernel accepts_all = right;
  accepts_all.forward = plain_recurrence().forward;
  catches("malformed-calls-are-refused", accepts_all, "usual-decay", right);
}

} // namespace

TEST_CASE("laws about values notice a wrong value") { about_values({}); }
TEST_CASE("laws about order and company notice neighbours") { about_order_and_company({}); }
TEST_CASE("laws about time notice the future and the past") { about_time({}); }
TEST_CASE("laws about linearity and absent tensors notice a constant or a forgotten path") { about_linearity_and_absent_tensors({}); }
TEST_CASE("laws about memory notice every kind of trespass") { about_memory({}); }
TEST_CASE("laws about the transition notice a wrong one") { about_the_transition({}); }
TEST_CASE("laws about digits notice a rounding too many") { about_digits({}); }
TEST_CASE("laws about decode notice a step that forgets its decay or leaves the state alone") { about_decode({}); }
TEST_CASE("laws about forms of the inputs notice a form taken for another") { about_forms_of_the_inputs({}); }

TEST_CASE("every forward law has a kernel here that breaks it") {
  std::set<std::string> names;
  about_values({{&names}});
  about_order_and_company({{&names}});
  about_time({{&names}});
  about_linearity_and_absent_tensors({{&names}});
  about_memory({{&names}});
  about_the_transition({{&names}});
  about_digits({{&names}});
  about_decode({{&names}});
  about_forms_of_the_inputs({{&names}});
  for (const Property& property : properties())
    if (property.direction == Direction::forward) {
      INFO(property.name);
      CHECK(names.count(property.name) == 1);
    }
}

namespace {

/// What was done to each kernel above, as a stage: o is written wrong (output), the final state is (state carry), decays are misread
/// (gate sum), and so on.
Stages stages_of_harms() {
  using enum Stage;
  return {.expected = {{"agrees-with-the-oracle", output},
                       {"chunk-size-is-invisible", state_carry},
                       {"sequence-splits-anywhere", state_carry},
                       {"parts-of-values-and-state-are-right", state_carry},
                       {"a-chunk-from-a-warm-state-is-right", output},
                       {"key-channel-order-is-invisible", gate_sum},
                       {"outputs-are-finite", output},
                       {"packed-equals-separate", output},
                       {"batch-order-is-invisible", state_carry},
                       {"head-order-is-invisible", output},
                       {"grouped-equals-repeated-heads", output},
                       {"an-empty-sequence-keeps-its-state", state_carry},
                       {"value-channels-are-independent", output},
                       {"future-tokens-change-nothing-before-them", output},
                       {"appended-tokens-change-nothing-before-them", output},
                       {"a-reset-forgets-everything", state_carry},
                       {"an-idle-token-changes-nothing", state_carry},
                       {"a-nan-stays-in-its-place", call},
                       {"linear-in-values-and-state", output},
                       {"linear-in-scale", output},
                       {"absent-gate-is-gate-zero", output},
                       {"absent-state-is-state-zero", state_carry},
                       {"inputs-are-unchanged", call},
                       {"nothing-else-is-touched", call},
                       {"strided-inputs-equal-dense-ones", inputs},
                       {"asking-for-no-state-changes-nothing", call},
                       {"every-output-element-is-written", call},
                       {"workspace-contents-have-no-influence", call},
                       {"reused-memory-gives-new-results", call},
                       {"repeated-runs-agree", call},
                       {"decay-alone-is-exact", gate_sum},
                       {"each-step-keeps-its-identities", gate_sum},
                       {"a-unit-key-with-beta-one-overwrites", state_carry},
                       {"the-state-norm-obeys-its-bound", state_carry},
                       {"the-transition-has-its-spectrum", state_carry},
                       {"the-dplr-transition-obeys-its-bounds", state_carry},
                       {"exact-cases-are-exact", state_carry},
                       {"beta-keeps-its-digits", state_carry},
                       {"the-residual-is-not-rounded-first", state_carry},
                       {"long-runs-stay-right", state_carry},
                       {"many-sequences-are-all-done", output},
                       {"a-decode-chain-is-the-recurrence", gate_sum},
                       {"decode-goes-on-from-a-prefill", state_carry},
                       {"gates-inside-equal-gates-outside", gate_sum},
                       {"beta-inside-equals-beta-outside", residual},
                       {"malformed-calls-are-refused", call}}};
}

void about_everything(const CatchesForward& catches) {
  about_values(catches), about_order_and_company(catches), about_time(catches), about_linearity_and_absent_tensors(catches);
  about_memory(catches), about_the_transition(catches), about_digits(catches), about_decode(catches), about_forms_of_the_inputs(catches);
}

} // namespace

TEST_CASE("the failure of every law is localised to the stage of what was done to the kernel") {
  Stages stages = stages_of_harms();
  about_everything({{nullptr, &stages}});
}

TEST_CASE("the stage of what was done to each kernel, as localised", "[.measure]") {
  Stages stages = stages_of_harms();
  stages.print = true;
  about_everything({{nullptr, &stages}});
  fmt::print("stage right {}, wrong {}, unclear {}\n", stages.right, stages.wrong, stages.unclear);
}

TEST_CASE("a kernel that refuses a problem of its own domain breaks every law that needs an answer") {
  Kernel refuses = harmed([](auto&, auto&) {});
  refuses.forward = [](const Inputs&, const Outputs&, std::span<std::byte>) { throw Refused("not today"); };
  static Judge judge;
  const Recipe recipe = fitted(regime_named("usual-decay")->draw(2, Tier::quick), refuses.contract);
  const Finding finding = checked(refuses, property_named("repeated-runs-agree"), recipe, judge);
  CHECK(finding.verdict == Verdict::failed_property);
  CHECK(finding.detail == "refused a problem inside its domain: not today");
}
