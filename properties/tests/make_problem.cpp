#include "../cases/recipe.hpp"

#include <catch2/catch.hpp>

#include <bit>
#include <cmath>
#include <thread>

using namespace kdacheck;

namespace {

constexpr InputFormats fp32{};
constexpr InputFormats bf16{Format::bf16, Format::bf16, Format::bf16};

/// FNV-1a over the bits of every tensor.
std::uint64_t fingerprint(const Problem& p) {
  std::uint64_t hash = 14695981039346656037u;
  const auto add = [&](std::uint64_t word) { hash = (hash ^ word) * 1099511628211u; };
  const auto tensor = [&](const std::vector<float>& values) {
    add(values.size());
    for (float x : values) add(std::bit_cast<std::uint32_t>(x));
  };
  for (Input input : all_inputs) tensor(p[input]);
  tensor(p.d_o);
  tensor(p.d_final_state);
  for (std::int64_t end : p.cu_seqlens) add(static_cast<std::uint64_t>(end));
  return hash;
}

Recipe drawn(const char* regime, std::uint64_t seed = 0) { return regime_named(regime)->draw(seed, Tier::quick); }

/// Elements of the first `length` tokens of a tensor [1,T,...].
std::vector<float> first_tokens(const std::vector<float>& values, std::int64_t T, std::int64_t length) {
  return {values.begin(), values.begin() + std::ssize(values) / T * length};
}

} // namespace

TEST_CASE("the bits of a recipe's tensors are those of the day they were pinned") {
  // A change here changes every golden tensor and every replay token's meaning: raise the token's version with it.
  struct Pin {
    const char* token;
    InputFormats formats;
    std::uint64_t expected;
  };
  const InputFormats fp16{Format::fp16, Format::fp32, Format::fp16};
  const Pin pins[] = {
      {"k1,gaussian-keys,T=130,K=64,V=32,scale=1p-3,gates=jitter,decay=1.99999ap-5,decay_spread=1p+0,state=gaussian,loss=everywhere,"
       "b5e3ae61",
       fp32, 0xd90dc2fc40ede9edu},
      {"k1,near-identical-keys,T=22,H=2,HV=2,K=100,V=48,scale=1.99999ap-4,keys=near_identical,key_noise=1.94294ap-6,gates=jitter,decay=1."
       "64598ep-10,decay_spread=1p+0,betas=near_one,beta_center=1p+0,beta_spread=1.5aa8f2p-6,loss=everywhere,seed=1,0018e4e7",
       bf16, 0x35dc7967cdbadb99u},
      {"k1,uniform-keys,T=61,K=32,V=128,scale=1.6a09e6p-3,keys=uniform,gates=jitter,decay=1.5eb1eap-7,decay_spread=1p+0,betas=sigmoid_"
       "gauss,beta_spread=1p+0,state=asymmetric,loss=everywhere,seed=5,b6c16c27",
       fp16, 0x19ff68ae84130d16u},
      {"k1,converged-memory,T=129,HV=2,K=40,V=24,scale=1.43d136p-3,gates=jitter,decay=1.50c782p-17,decay_spread=1p+0,betas=near_one,beta_"
       "center=1p+0,values=converged,residual=1.3f462ap-4,state=gaussian,state_scale=1p+2,loss=everywhere,e728e0a4",
       bf16, 0x9925cdb1eec2f436u},
      {"k1,converged-memory,T=16,H=2,HV=8,K=32,V=32,scale=1.6a09e6p-3,keys=uniform,gates=jitter,decay=1.390cb8p-13,decay_spread=1p+0,betas="
       "near_one,beta_center=1p+0,values=converged,residual=1.37276p-8,state=warm,state_scale=1p+2,loss=everywhere,seed=1,a700e9ce",
       fp32, 0x4041fe370328ae0eu},
      {"k1,trained-gates,T=17,H=2,HV=2,K=32,V=64,gate=softplus,beta=twice_sigmoid,l2norm=yes,scale=1.6a09e6p-3,key_norm=1.6a09e6p+2,query_"
       "norm=1.6a09e6p+2,gates=trained,decay=1p+0,decay_spread=1p+2,betas=sigmoid_gauss,beta_center=1p+0,beta_spread=1p+0,state=asymmetric,"
       "loss=everywhere,seed=2,facd2c87",
       fp32, 0x3365c22597eef5abu},
      {"k1,bounded-gate,B=2,T=13,H=2,HV=2,K=24,V=16,gate=bounded,lower_bound=-1.2038c6p+2,beta=sigmoid,l2norm=yes,scale=1.a20bd8p-3,key_"
       "norm=1.3988e2p+2,query_norm=1.3988e2p+2,gates=jitter,decay=1.e48476p-6,decay_spread=1.333334p-2,gate_model=bounded,gate_bias=no,"
       "betas=sigmoid_gauss,beta_spread=1p+0,loss=everywhere,seed=1,4382f850",
       bf16, 0x00c639ab12797e43u},
      {"k1,sigmoid-gate,T=65,H=2,HV=2,K=32,V=16,gate=sigmoid,beta=sigmoid,l2norm=yes,scale=1.6a09e6p-3,key_norm=1.6a09e6p+2,query_norm=1."
       "6a09e6p+2,gates=logits,decay=1.4p+5,decay_spread=1p+0,gate_model=sigmoid,betas=sigmoid_gauss,beta_spread=1p+0,state=gaussian,loss="
       "everywhere,dd4d6dba",
       fp32, 0x35216b6f7662148eu},
      {"k1,packed,T=20,K=64,V=64,lengths=3+4+2+11,scale=1p-3,gates=jitter,decay=1.99999ap-5,decay_spread=1p+0,state=gaussian,loss="
       "everywhere,seed=3,9c5425ba",
       bf16, 0x3873943e6a97cc8au},
      {"k1,exact-walsh-keys,T=70,K=128,V=16,keys=walsh,key_noise=1p+0,betas=zero_one,beta_spread=0p+0,values=small_integers,state=integers,"
       "loss=everywhere,4d1a346b",
       bf16, 0x026f704f59c3bafbu},
      {"k1,exact-unit-keys,T=129,HV=2,K=40,V=24,keys=signed_unit,key_noise=1p+0,betas=halves,beta_spread=0p+0,values=small_integers,state="
       "integers,loss=everywhere,5d32573a",
       fp32, 0xdc127572c50abbffu},
      {"k1,exact-residual,T=1,K=64,V=32,keys=walsh,betas=constant,beta_center=1p+0,beta_spread=0p+0,values=held,state=held,loss=everywhere,"
       "a9c2acc2",
       bf16, 0xafc1b1db20b1c41cu},
      {"k1,dplr-of-kda,T=130,K=64,V=32,rule=dplr,scale=1p-3,gates=jitter,decay=1.478ae6p-2,decay_spread=1p+0,state=gaussian,loss="
       "everywhere,527eabd3",
       bf16, 0xb9c1ca5c9fdc57f5u},
      {"k1,dplr-rwkv7,T=65,H=2,HV=2,K=32,V=16,rule=dplr,scale=1.6a09e6p-3,gates=jitter,decay=1.64718p-5,decay_spread=1p+0,state=gaussian,"
       "loss=everywhere,dplr=rwkv7,d46761fc",
       fp32, 0x6a142dfce67651ebu},
      {"k1,warm-chunk,T=60,H=2,HV=4,K=12,V=8,scale=1.279a74p-2,keys=near_identical,key_noise=1.99999ap-5,gates=jitter,decay=1.0624dep-10,"
       "decay_spread=1p+0,state=warm,loss=everywhere,seed=1,0ffb935c",
       fp32, 0xd3ded23ba3f53058u},
      {"k1,anything,T=145,H=2,HV=2,K=16,V=32,lengths=63+34+6+41+0x6+1,scale=1p-2,keys=constant,key_noise=1.3f918ap-3,gates=published_init,"
       "decay=1.6f9c06p-1,decay_spread=1.be232p-2,beta_center=1.7f55bap-3,beta_spread=1.fec2acp-7,values=constant,residual=1.e39a54p-10,"
       "state_scale=1.026e5p+3,loss=final_state_only,seed=192,73e47c69",
       fp32, 0xc6f97477dd069320u},
      {"k1,anything,T=130,K=64,V=32,gate=softplus,lower_bound=-1.43910cp+0,scale=1p-3,key_noise=1.46d07p-4,key_norm=1.69f71cp-17,gates=per_"
       "channel,decay=1.ad4bc2p-11,decay_spread=1.f47196p-1,betas=sigmoid_gauss,beta_center=1.0b9412p-2,beta_spread=1.ce22aap+1,values="
       "zero,residual=1.0955bap-2,state=warm,state_scale=1.af0826p-3,loss=everywhere,seed=640,64a802be",
       bf16, 0xa6ab4c0178260c2du},
      {"k1,mixed-decay,T=112,K=60,V=25,scale=1.08654ap-3,gates=mixed,decay=1.bfc7e4p+3,decay_spread=1p+0,state=gaussian,loss=everywhere,"
       "seed=9,cdc9a534",
       fp32, 0x1b10eddfe66c6919u},
      {"k1,beta-logits,T=113,H=2,HV=2,K=8,V=60,beta=twice_sigmoid,scale=1.6a09e6p-2,gates=jitter,decay=1.99999ap-5,decay_spread=1p+0,betas="
       "sigmoid_gauss,beta_center=1p+0,beta_spread=1.8p+1,state=gaussian,loss=everywhere,seed=3,8fd99379",
       bf16, 0xbeff271efc204d09u},
  };
  for (const Pin& pin : pins) {
    const std::uint64_t now = fingerprint(make_problem(from_token(pin.token), pin.formats));
    CAPTURE(pin.token);
    CHECK(now == pin.expected);
  }
}

TEST_CASE("threads and order do not change a bit") {
  const std::vector<const char*> names{"gaussian-keys", "converged-memory", "packed", "trained-gates", "dplr-rwkv7", "exact-unit-keys"};
  std::vector<std::uint64_t> alone, together(names.size());
  for (const char* name : names) alone.push_back(fingerprint(make_problem(drawn(name, 1), bf16)));
  std::vector<std::thread> threads;
  for (std::size_t i = names.size(); i-- > 0;)
    threads.emplace_back([&, i] {
      for (int again = 0; again < 3; ++again) together[i] = fingerprint(make_problem(drawn(names[i], 1), bf16));
    });
  for (auto& thread : threads) thread.join();
  CHECK(alone == together);
}

TEST_CASE("every stored number is a number of its format") {
  for (const Regime& regime : regimes())
    for (const InputFormats& formats :
         {bf16, InputFormats{Format::fp16, Format::fp16, Format::fp16}, InputFormats{Format::bf16, Format::fp32, Format::fp16}}) {
      const Problem p = make_problem(regime.draw(1, Tier::quick), formats);
      INFO(regime.name);
      CHECK(malformed(p).value_or("") == "");
      for (Input input : all_inputs)
        for (float x : p[input]) REQUIRE((round_to(format_of(input, formats), x) == x || std::isinf(x)));
      for (float x : p.d_o) REQUIRE((round_bf16(x) == x && round_fp16(x) == x));
    }
}

TEST_CASE("a longer sequence, more heads or more sequences begin with the same tensors") {
  for (const char* name :
       {"gaussian-keys", "near-identical-keys", "converged-memory", "mixed-decay", "published-init", "exact-unit-keys", "dplr-rwkv7"}) {
    Recipe longer = drawn(name);
    longer.shape = {1, 50, 2, 2, 16, 8};
    Recipe shorter = longer;
    shorter.shape.T = 20;
    const Problem p = make_problem(longer, fp32), q = make_problem(shorter, fp32);
    INFO(name);
    for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::a, Input::b})
      if (!p[input].empty()) CHECK(first_tokens(p[input], 50, 20) == q[input]);
    CHECK(p.initial_state == q.initial_state);

    Recipe fewer = shorter;
    fewer.shape.H = fewer.shape.HV = 1;
    const Problem one = make_problem(fewer, fp32);
    for (std::size_t t = 0; t < 20; ++t)
      for (std::size_t c = 0; c < 16; ++c) REQUIRE(one.k[t * 16 + c] == q.k[t * 32 + c]);
    for (std::size_t t = 0; t < 20; ++t)
      for (std::size_t c = 0; c < 8; ++c) REQUIRE(one.v[t * 8 + c] == q.v[t * 16 + c]);
  }
}

TEST_CASE("packed members hold the same tokens as sequences of their own") {
  Recipe packed = drawn("gaussian-keys");
  packed.shape = {1, 24, 1, 2, 8, 4};
  packed.lengths = {8, 8, 8};
  Recipe batch = packed;
  batch.lengths.clear();
  batch.shape.B = 3;
  batch.shape.T = 8;
  const Problem p = make_problem(packed, fp32), q = make_problem(batch, fp32);
  for (Input input : all_inputs) CHECK(p[input] == q[input]);
  CHECK(p.d_o == q.d_o);
  CHECK(p.d_final_state == q.d_final_state);
}

TEST_CASE("seeds, and heads and tokens under one seed, differ") {
  const Problem p = make_problem(drawn("gaussian-keys", 0), fp32);
  Recipe other = drawn("gaussian-keys", 0);
  other.seed = 1;
  CHECK(fingerprint(p) != fingerprint(make_problem(other, fp32)));
  const auto K = static_cast<std::size_t>(p.shape.K);
  CHECK(std::vector<float>(p.k.begin(), p.k.begin() + static_cast<std::ptrdiff_t>(K)) !=
        std::vector<float>(p.k.begin() + static_cast<std::ptrdiff_t>(K), p.k.begin() + static_cast<std::ptrdiff_t>(2 * K)));
  CHECK(p.q[0] != p.k[0]);
}

TEST_CASE("converged values are what the memory holds, but for the residual") {
  for (const InputFormats& formats : {fp32, bf16}) {
    Recipe recipe = drawn("converged-memory");
    recipe.residual = 0x1p-6f;
    const Problem p = make_problem(recipe, formats);
    const Shape& s = p.shape;
    double residual = 0, size = 0;
    const auto V = static_cast<std::size_t>(s.V), K = static_cast<std::size_t>(s.K);
    std::vector<double> S(p.initial_state.begin(), p.initial_state.begin() + static_cast<std::ptrdiff_t>(K * V)); // head 0
    for (std::int64_t t = 0; t < s.T; ++t) {
      const auto key = static_cast<std::size_t>(t * s.H) * K, gate = static_cast<std::size_t>(t * s.HV) * K,
                 at = static_cast<std::size_t>(t * s.HV);
      for (std::size_t j = 0; j < V; ++j) {
        double read = 0;
        for (std::size_t i = 0; i < K; ++i) read += p.k[key + i] * (S[i * V + j] *= std::exp(p.g[gate + i]));
        const double v = p.v[at * V + j];
        residual += (v - read) * (v - read);
        size += v * v;
        for (std::size_t i = 0; i < K; ++i) S[i * V + j] += p.beta[at] * p.k[key + i] * (v - read);
      }
    }
    const double count = static_cast<double>(s.T) * static_cast<double>(s.V);
    const double noise = std::sqrt(residual / count), held = std::sqrt(size / count);
    // The residual's own rms, plus what rounding v to its format adds.
    CHECK(noise > 0.9 * 0x1p-6);
    CHECK(noise < 1.1 * 0x1p-6 + 2 * unit_roundoff(formats.qkv) * held);
    CHECK(held > 20 * noise);
  }
}

TEST_CASE("a warm state is one that the same traffic leaves, whatever the stored formats") {
  const Recipe recipe = drawn("warm-chunk");
  const Problem p = make_problem(recipe, fp32);
  CHECK(p.initial_state == make_problem(recipe, bf16).initial_state);
  double square = 0;
  for (float x : p.initial_state) square += static_cast<double>(x) * x;
  CHECK(square > 0);
  // Values have unit variance and keys unit length: a memory of up to 64 of them holds at most that much.
  CHECK(square < 64.0 * static_cast<double>(p.shape.V * p.shape.HV * sequence_count(p)) * 1.5);
}
