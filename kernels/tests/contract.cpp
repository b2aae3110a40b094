#include "../contract.hpp"

#include <catch2/catch.hpp>

#include <cmath>

using namespace kdacheck;

namespace {

Contract parsed(std::string_view text) {
  const ParsedContract result = parse_contract(text);
  INFO(text << ": " << result.error);
  REQUIRE(result.contract.has_value());
  return *result.contract;
}

void refused(std::string_view text, std::string_view named) {
  const ParsedContract result = parse_contract(text);
  INFO(text << ": " << result.error);
  CHECK_FALSE(result.contract.has_value());
  CHECK(result.error.find(named) != std::string::npos);
}

/// Two tokens, one head, K = 2, V = 1, everything inside the default domain.
Problem small() {
  Problem problem;
  problem.shape = {.B = 1, .T = 2, .H = 1, .HV = 1, .K = 2, .V = 1};
  problem.q = problem.k = {1, 0, 0, 1};
  problem.v = {1, 2};
  problem.g = {-0.5f, 0, -1, -2};
  problem.beta = {0.5f, 1};
  return problem;
}

std::string reason(const Contract& contract, const Problem& problem) { return outside_domain(contract, problem).value_or("inside"); }

} // namespace

TEST_CASE("the default contract is the empty text") {
  CHECK(to_text(Contract{}).empty());
  CHECK(parsed("") == Contract{});
  CHECK(parsed(" \t\n ") == Contract{});
}

TEST_CASE("the contract of the design page reads as it is meant") {
  const Contract c = parsed("input=bf16 operands=bf16 scores=tf32 accumulate=fp32 cumsum=fp32 state=fp32 order=residual_first output=bf16 "
                            "chunk=64 g_min=-5 beta_max=1 repeat=bitwise batch=bitwise prefix=bitwise");
  CHECK(c.input == Format::bf16);
  CHECK(c.operands == Format::bf16);
  CHECK(c.scores == Format::tf32);
  CHECK(c.order == Order::residual_first);
  CHECK(c.g_min == -5);
  CHECK(to_text(c) == "input=bf16 output=bf16 operands=bf16 scores=tf32 order=residual_first g_min=-5");
}

TEST_CASE("scores follow operands unless they are given") {
  CHECK(parsed("operands=fp16").scores == Format::fp16);
  CHECK(parsed("scores=tf32 operands=fp16").scores == Format::tf32);
  CHECK(parsed("operands=bf16 scores=fp32").scores == Format::fp32);
  CHECK(to_text(parsed("operands=bf16 scores=bf16")) == "operands=bf16");
}

TEST_CASE("every key survives a round trip when it differs from its default") {
  const std::string all =
      "input=fp16 gate_input=bf16 beta_input=bf16 output=fp16 operands=tf32 scores=bf16 accumulate=fp64 cumsum=bf16 solve=fp16 state=bf16 "
      "gradient=bf16 gradient_state=bf16 tf32=truncate exp_ulp=0.75 order=wy chunk=16 decay_gradient=sums repeat=none batch=none "
      "prefix=none rule=kda,dplr "
      "gates=softplus,absent "
      "betas=sigmoid,twice_sigmoid decay=head scale=rsqrt_K l2norm=both K=16..256/16 V=64 T=1.. grouped=no packed=no initial_state=no "
      "decode=1..4 memory=device state_layout=v_first "
      "strided=yes g_min=-0.1 beta_min=-1 beta_max=2 k_norm_max=inf";
  CHECK(to_text(parsed(all)) == all);
  CHECK(parsed(to_text(parsed(all))) == parsed(all));
}

TEST_CASE("a faulty contract is refused in a sentence that names the key") {
  refused("colour=red", "'colour' is not a key");
  refused("chunk", "'chunk' is not of the form");
  refused("chunk=0", "chunk");
  refused("chunk=64x", "chunk must be");
  refused("decay_gradient=maybe", "decay_gradient must be products or sums");
  refused("chunk=16 chunk=16", "'chunk' is given twice");
  refused("input=int8", "input must be");
  refused("order=random", "order must be");
  refused("repeat=maybe", "repeat must be");
  refused("gates=", "gates must be");
  refused("gates=absent,absent", "gates must be");
  refused("rule=kda,", "rule must be");
  refused("K=8..4", "K must be");
  refused("K=1..256/0", "K must be");
  refused("V=-1", "V must be");
  refused("g_min=nan", "g_min must be");
  refused("g_min=1", "g_min");
  refused("beta_min=1 beta_max=0", "beta_min");
  refused("packed=maybe", "packed must be");
  refused("decay=token", "decay must be");
  refused("scale=nan", "scale must be");
  refused("scale=0.1", "scale must be"); // no number of fp32, so that no problem could have it
  refused("decode=0..4", "decode");
  refused("memory=disk", "memory must be");
  refused("gradient_state=int8", "gradient_state must be");
}

TEST_CASE("a problem inside the domain has no reason to be refused") {
  CHECK(reason(Contract{}, small()) == "inside");
  CHECK(reason(parsed("K=2 V=1 T=2 g_min=-2 beta_min=0.5 k_norm_max=1 grouped=no packed=no initial_state=no"), small()) == "inside");
}

TEST_CASE("each border of the domain is named when a problem crosses it") {
  CHECK(reason(parsed("K=16..256/16"), small()) == "K=2 is not in 16..256/16");
  CHECK(reason(parsed("V=2.."), small()) == "V=1 is not in 2..");
  CHECK(reason(parsed("T=3..9"), small()) == "T=2 is not in 3..9");
  CHECK(reason(parsed("g_min=-1.5"), small()) == "g=-2 is below g_min=-1.5");
  CHECK(reason(parsed("beta_max=0.75"), small()) == "beta=1 is not in 0..0.75");
  CHECK(reason(parsed("k_norm_max=0.5"), small()) == "|k|=1 is above k_norm_max=0.5");
  CHECK(reason(parsed("rule=dplr"), small()) == "rule kda is not among rule");
  CHECK(reason(parsed("gates=absent"), small()) == "gate form log_decay is not among gates");
  CHECK(reason(parsed("betas=sigmoid"), small()) == "beta form value is not among betas");
  CHECK(reason(parsed("l2norm=inside"), small()) == "l2norm outside the kernel is not offered");
  CHECK(reason(parsed("scale=0.5"), small()) == "scale=1 is not 0.5");
  CHECK(reason(parsed("scale=1"), small()) == "inside");
  CHECK(reason(parsed("scale=rsqrt_K"), small()) == "scale=1 is not K^-1/2");
  CHECK(reason(parsed("decay=head"), small()) == "g differs between channels of a head");
  Problem problem = small();
  problem.options.scale = static_cast<float>(1 / std::sqrt(2.0));
  CHECK(reason(parsed("scale=rsqrt_K"), problem) == "inside");
  problem.g = {-0.5f, -0.5f, 0, 0};
  CHECK(reason(parsed("decay=head"), problem) == "inside");
  problem.options.gate = GateForm::softplus;
  problem.A_log = {0};
  problem.dt_bias = {0, 1};
  CHECK(reason(parsed("decay=head gates=softplus"), problem) == "dt_bias differs between channels of a head");
  problem = small();
  problem.g[1] = 0.25f;
  CHECK(reason(Contract{}, problem) == "g=0.25 is positive");
  problem = small();
  problem.options.l2norm = true;
  CHECK(reason(Contract{}, problem) == "l2norm inside the kernel is not offered");
  problem = small();
  problem.cu_seqlens = {0, 2};
  CHECK(reason(parsed("packed=no"), problem) == "packed sequences are not offered");
  problem = small();
  problem.initial_state = {1, 2};
  CHECK(reason(parsed("initial_state=no"), problem) == "an initial state is not offered");
}

TEST_CASE("raw gates and logits are judged by the decay and the beta they give") {
  Problem problem = small();
  problem.options.gate = GateForm::softplus;
  problem.A_log = {2};
  problem.dt_bias = {0, 10};
  CHECK(reason(parsed("gates=softplus g_min=-80"), problem) == "inside");
  CHECK(reason(parsed("gates=softplus g_min=-70"), problem).starts_with("g=-73.8"));
  problem = small();
  problem.options.beta = BetaForm::twice_sigmoid;
  CHECK(reason(parsed("betas=twice_sigmoid"), problem).starts_with("beta=1.24"));
  CHECK(reason(parsed("betas=twice_sigmoid beta_max=2"), problem) == "inside");
}

TEST_CASE("a value that the input format cannot hold puts the problem outside") {
  Problem problem = small();
  CHECK(reason(parsed("input=bf16"), problem) == "inside");
  problem.v[0] = 1.001f;
  CHECK(reason(parsed("input=bf16"), problem).starts_with("v holds 1.001"));
  CHECK(reason(Contract{}, problem) == "inside");
}
