// Every law of gradients refuses a backward pass in which just what it claims is broken, and accepts the one that this
// was planted in.

#include "planted.hpp"

#include <atomic>
#include <cmath>
#include <map>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

using Harm = void (*)(const Inputs&, const Cotangents&, const GradientOutputs&);

/// The token recurrence of the suite, with something done to its gradients.
Kernel harmed(Harm harm) {
  Kernel kernel = built_in("cpu.recurrence.fp32");
  kernel.backward = [harm, backward = kernel.backward](const Inputs& in, const Cotangents& loss, const GradientOutputs& out,
                                                       std::span<std::byte> workspace) {
    backward(in, loss, out, workspace);
    harm(in, loss, out);
  };
  return kernel;
}

/// The same on inputs and cotangents that something was done to.
Kernel misled(void (*mislead)(Inputs&, Cotangents&)) {
  Kernel kernel = built_in("cpu.recurrence.fp32");
  kernel.backward = [mislead, backward = kernel.backward](const Inputs& in, const Cotangents& loss, const GradientOutputs& out,
                                                          std::span<std::byte> workspace) {
    Inputs other = in;
    Cotangents other_loss = loss;
    mislead(other, other_loss);
    backward(other, other_loss, out, workspace);
  };
  return kernel;
}

void about_gradients(const Catches& catches) {
  const Kernel& right = built_in("cpu.recurrence.fp32");
  const auto check = [&](std::string_view law, const Kernel& wrong, const char* regime = "usual-decay") {
    catches(law, wrong, regime, right);
  };
  check("gradients-agree-with-the-oracle", harmed([](auto&, auto&, auto& out) { scale_all(out[Input::g], 1.001f); }));
  check("gradients-are-right-at-every-length", harmed([](auto& in, auto&, auto& out) {
          if (in.shape.T % 16 != 0) scale_all(out[Input::k], 1.001f);
        }));
  check("gradients-of-long-runs-stay-right", harmed([](auto& in, auto&, auto& out) {
          if (in.shape.T > 1024) add_to(out[Input::v], 0, 1.0f);
        }),
        "long-sequences");
  check("each-loss-gives-its-part", harmed([](auto&, auto& loss, auto& out) {
          if (!loss.d_o || !loss.d_final_state) scale_all(out[Input::v], 1.001f);
        }));
  check("gradients-are-linear-in-the-loss", harmed([](auto&, auto&, auto& out) { add_to(out[Input::v], 0, 1e-3f); }));
  check("what-cannot-matter-gets-no-gradient",
        harmed([](auto&, auto&, auto& out) { add_to(out[Input::k], out[Input::k].elements() - 1, 1e-30f); }));
  check("packed-gradients-equal-separate-ones", harmed([](auto& in, auto&, auto& out) {
          if (!in.cu_seqlens.empty()) add_to(out[Input::beta], 0, 1e-3f);
        }));
  check("gradients-pass-through-a-split", harmed([](auto& in, auto&, auto& out) {
          if (in[Input::initial_state]) scale_all(out[Input::initial_state], 1.001f);
        }));
  check("grouped-gradients-are-sums", harmed([](auto& in, auto&, auto& out) {
          if (in.shape.HV > in.shape.H) scale_all(out[Input::k], 0.5f);
        }));
  check("gradient-order-is-invisible", harmed([](auto&, auto&, auto& out) { add_to(out[Input::v], 0, 1e-3f); }));
  check("gradients-are-finite", harmed([](auto&, auto&, auto& out) { add_to(out[Input::q], 0, NAN); }));
  check("dbeta-is-right-at-beta-zero", harmed([](auto& in, auto&, auto& out) {
          for (std::int64_t i = 0;
               in[Input::beta] && out[Input::beta] && in[Input::beta].stride == out[Input::beta].stride && i < out[Input::beta].elements();
               ++i)
            if (load(in[Input::beta], i) == 0) store(out[Input::beta], i, 0.0f);
        }));
  check("absent-gate-or-state-changes-no-gradient", harmed([](auto& in, auto&, auto& out) {
          if (!in[Input::g] || !in[Input::initial_state]) add_to(out[Input::k], 0, 1e-3f);
        }));
  check("gradients-not-wanted-change-no-other", harmed([](auto&, auto&, auto& out) {
          if (!out[Input::q] && out[Input::k]) scale_all(out[Input::k], 1.001f);
        }));
  check("reused-memory-gives-new-gradients", harmed([](auto& in, auto&, auto& out) {
          static thread_local std::map<const void*, float> first; // of v, kept by address
          const float now = load(in[Input::v], 0), before = first.emplace(in[Input::v].data, now).first->second;
          add_to(out[Input::v], 0, now - before);
        }));
  check("repeated-gradients-agree", harmed([](auto&, auto&, auto& out) {
          static std::atomic<int> calls{0};
          if (++calls % 2) add_to(out[Input::v], 0, 1e-3f);
        }));
  check("backward-touches-nothing-else", harmed([](auto& in, auto&, auto&) { scale_all(in[Input::k], 0.5f); }));
  check("the-backward-runs-the-same-forward", misled([](Inputs& in, Cotangents&) {
          if (!in[Input::beta]) return;
          static thread_local std::vector<float> rounded; // the strengths that the backward pass runs the forward with
          rounded.clear();
          for (std::int64_t i = 0; i < in[Input::beta].elements(); ++i) rounded.push_back(round_to(Format::bf16, load(in[Input::beta], i)));
          in[Input::beta].data = rounded.data();
        }));
  Kernel adding = right;
  adding.backward = [backward = right.backward](const Inputs& in, const Cotangents& loss, const GradientOutputs& out,
                                                std::span<std::byte> workspace) {
    const float before = load(out[Input::v], 0);
    backward(in, loss, out, workspace);
    store(out[Input::v], 0, before);
  };
  check("every-gradient-element-is-written", adding);
  check("strided-inputs-give-the-same-gradients",
        misled([](Inputs& in, Cotangents&) { in[Input::v].stride = contiguous_strides(in[Input::v].shape); }));
  check("a-nan-loss-stays-in-its-place", harmed([](auto&, auto& loss, auto& out) {
          bool any = false;
          for (std::int64_t i = 0; loss.d_o && i < loss.d_o.elements(); ++i) any = any || std::isnan(load(loss.d_o, i));
          if (any) scale_all(out[Input::v], NAN);
        }));
  check("value-gradient-channels-are-independent", harmed([](auto& in, auto& loss, auto& out) {
          for (std::int64_t j = 0; loss.d_o && loss.d_o.elements() > 0 && j < in.shape.V; ++j)
            add_to(out[Input::v], j, 1e-2f * load(loss.d_o, in.shape.V - 1 - j));
        }));
}

} // namespace

TEST_CASE("laws of gradients notice a backward pass in which they are broken") { about_gradients({}); }

TEST_CASE("every law of gradients has a backward pass here that breaks it") {
  std::set<std::string> names;
  about_gradients({&names});
  for (const Property& property : properties())
    if (property.direction == Direction::backward) {
      INFO(property.name);
      CHECK(names.count(property.name) == 1);
    }
}

namespace {

Stages stages_of_harms() {
  using enum Stage;
  return {.expected = {{"gradients-agree-with-the-oracle", gate_sum},
                       {"gradients-are-right-at-every-length", inputs},
                       {"gradients-of-long-runs-stay-right", residual},
                       {"each-loss-gives-its-part", residual},
                       {"gradients-are-linear-in-the-loss", residual},
                       {"what-cannot-matter-gets-no-gradient", inputs},
                       {"packed-gradients-equal-separate-ones", residual},
                       {"gradients-pass-through-a-split", state_carry},
                       {"grouped-gradients-are-sums", inputs},
                       {"gradient-order-is-invisible", residual},
                       {"gradients-are-finite", output},
                       {"dbeta-is-right-at-beta-zero", residual},
                       {"absent-gate-or-state-changes-no-gradient", inputs},
                       {"gradients-not-wanted-change-no-other", call},
                       {"reused-memory-gives-new-gradients", call},
                       {"repeated-gradients-agree", call},
                       {"backward-touches-nothing-else", call},
                       {"the-backward-runs-the-same-forward", residual},
                       {"every-gradient-element-is-written", call},
                       {"strided-inputs-give-the-same-gradients", inputs},
                       {"a-nan-loss-stays-in-its-place", call},
                       {"value-gradient-channels-are-independent", residual}}};
}

} // namespace

TEST_CASE("the failure of every law is localised to the stage of what was done to the backward pass") {
  Stages stages = stages_of_harms();
  stages.may_be_unclear = {"grouped-gradients-are-sums"};
  about_gradients({nullptr, &stages});
}

TEST_CASE("the stage of what was done to each backward pass, as localised", "[.measure]") {
  Stages stages = stages_of_harms();
  stages.print = true;
  about_gradients({nullptr, &stages});
  fmt::print("stage right {}, wrong {}, unclear {}\n", stages.right, stages.wrong, stages.unclear);
}
