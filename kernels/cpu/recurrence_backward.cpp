// Reverse mode of the recurrence, token by token in fp32 (rounded_token.cpp where the contract is coarser), with the state before each
// token computed again in segments.
//
// KDA, with X = Diag(alpha) S_{t-1}, w = v - X^T k, Lambda the cotangent of S_t and m = Lambda^T k:
//   dq = S_t do     dv = beta m     dbeta = m . w     dk = beta (Lambda w - X m)     Y = Lambda - beta k m^T
//   dg = rows of X . Y              cotangent of S_{t-1}: Diag(alpha) Y
// DPLR, with w = -S_{t-1}^T b and u = Lambda^T a:
//   dq = S_t do     da = Lambda w     dk = Lambda v     dv = Lambda^T k     db = -S_{t-1} u
//   dg = alpha rows of S_{t-1} . Lambda                 cotangent of S_{t-1}: Diag(alpha) Lambda - b u^T
//
// Where the contract says decay_gradient=sums, dg is what is left of a running sum over the tokens from t on, which starts as the rows of
// S_T . dS_T: it gains q dq - beta k (Lambda w + X m), or q dq - a da - k dk before and b db after dg is taken from it (DPLR).

#include "recurrence_backward.hpp"

#include "accept.hpp"
#include "gradient_rows.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "reverse.hpp"
#include "rounded_token.hpp"
#include "rows.hpp"

#include <algorithm>

namespace kdacheck::cpu {
namespace {

struct Record {
  float* state; ///< [K,V] before the token
};

struct Slice {
  TokenRows token;
  TokenAdjoint d;
  float *adjoint = nullptr, *row = nullptr;
  float* last = nullptr; ///< [K,V] state after the last token, where dg is a running sum
  SharedGradients shared;
  Walk walk;
};

Slice take_slice(Arena& arena, const Contract& contract, const Inputs& inputs) {
  constexpr std::int64_t segment_tokens = 64; // as many states are kept inside a segment
  const std::int64_t K = padded(inputs.shape.K), V = padded(inputs.shape.V), longest = longest_sequence(inputs);
  Slice slice;
  slice.token = take_token_rows(arena, inputs);
  for (float** row : {&slice.d.d_o, &slice.d.v, &slice.d.from_state, &slice.d.from_adjoint}) *row = arena.floats(V);
  for (float** row : {&slice.d.q, &slice.d.k, &slice.d.a, &slice.d.b, &slice.d.g, &slice.row}) *row = arena.floats(K);
  slice.adjoint = arena.floats(K * V);
  if (contract.decay_gradient == DecayGradient::sums) slice.last = arena.floats(K * V), slice.d.g_sum = arena.floats(K);
  slice.shared = take_shared_gradients(arena, inputs, longest);
  slice.walk = take_walk(arena, longest, 1, K * V, static_cast<std::size_t>(K * V) * sizeof(float), segment_tokens);
  return slice;
}

/// Lambda in the adjoint, w and m of some columns.
template <int wide>
void gather_kda(const TokenRows& token, std::int64_t K, std::int64_t V, std::int64_t first, const float* state, float* adjoint,
                TokenAdjoint& d) {
  Lanes d_o[wide], w[wide], m[wide]{};
#pragma GCC unroll 4
  for (int x = 0; x < wide; ++x) {
    d_o[x] = load(d.d_o + first + x * lane_count);
    w[x] = load(token.v + first + x * lane_count);
  }
  for (std::int64_t c = 0; c < K; ++c) {
    const Lanes alpha = broadcast(token.alpha[c]), k = broadcast(token.k[c]), q = broadcast(token.q[c]);
#pragma GCC unroll 4
    for (int x = 0; x < wide; ++x) {
      const std::int64_t at = c * V + first + x * lane_count;
      const Lanes lambda = multiply_add(q, d_o[x], load(adjoint + at));
      store(adjoint + at, lambda);
      w[x] = multiply_add(-k, alpha * load(state + at), w[x]);
      m[x] = multiply_add(k, lambda, m[x]);
    }
  }
#pragma GCC unroll 4
  for (int x = 0; x < wide; ++x) {
    store(d.from_state + first + x * lane_count, w[x]);
    store(d.from_adjoint + first + x * lane_count, m[x]);
  }
}

/// Lambda in the adjoint, w, u and d v of some columns.
template <int wide>
void gather_dplr(const TokenRows& token, std::int64_t K, std::int64_t V, std::int64_t first, const float* state, float* adjoint,
                 TokenAdjoint& d) {
  Lanes d_o[wide], w[wide]{}, u[wide]{}, v[wide]{};
#pragma GCC unroll 4
  for (int x = 0; x < wide; ++x) d_o[x] = load(d.d_o + first + x * lane_count);
  for (std::int64_t c = 0; c < K; ++c) {
    const Lanes k = broadcast(token.k[c]), q = broadcast(token.q[c]), a = broadcast(token.a[c]), b = broadcast(token.b[c]);
#pragma GCC unroll 4
    for (int x = 0; x < wide; ++x) {
      const std::int64_t at = c * V + first + x * lane_count;
      const Lanes lambda = multiply_add(q, d_o[x], load(adjoint + at));
      store(adjoint + at, lambda);
      w[x] = multiply_add(-b, load(state + at), w[x]);
      u[x] = multiply_add(a, lambda, u[x]);
      v[x] = multiply_add(k, lambda, v[x]);
    }
  }
#pragma GCC unroll 4
  for (int x = 0; x < wide; ++x) {
    store(d.from_state + first + x * lane_count, w[x]);
    store(d.from_adjoint + first + x * lane_count, u[x]);
    store(d.v + first + x * lane_count, v[x]);
  }
}

void retreat_kda(const TokenRows& token, std::int64_t K, std::int64_t V, const float* state, float* adjoint, TokenAdjoint& d) {
  std::int64_t at = 0;
  for (; at + 4 * lane_count <= V; at += 4 * lane_count) gather_kda<4>(token, K, V, at, state, adjoint, d);
  for (; at < V; at += lane_count) gather_kda<1>(token, K, V, at, state, adjoint, d);
  Lanes beta_sum{};
  for (std::int64_t j = 0; j < V; j += lane_count) {
    const Lanes w = load(d.from_state + j), m = load(d.from_adjoint + j);
    beta_sum = multiply_add(m, w, beta_sum);
    store(d.v + j, broadcast(token.beta) * m);
  }
  d.beta = sum(beta_sum);
  for (std::int64_t c = 0; c < K; ++c) {
    const Lanes alpha = broadcast(token.alpha[c]), written = broadcast(token.beta * token.k[c]);
    Lanes q{}, lambda_w{}, x_m{}, g{};
    for (std::int64_t j = 0; j < V; j += lane_count) {
      const std::int64_t here = c * V + j;
      const Lanes w = load(d.from_state + j), m = load(d.from_adjoint + j), lambda = load(adjoint + here);
      const Lanes x = alpha * load(state + here), y = multiply_add(-written, m, lambda);
      q = multiply_add(multiply_add(written, w, x), load(d.d_o + j), q);
      lambda_w = multiply_add(lambda, w, lambda_w);
      x_m = multiply_add(x, m, x_m);
      g = multiply_add(x, y, g);
      store(adjoint + here, alpha * y);
    }
    d.q[c] = sum(q);
    const float of_write = sum(lambda_w), of_read = sum(x_m);
    d.k[c] = token.beta * (of_write - of_read);
    d.g[c] = sum(g);
    if (d.g_sum) d.g[c] = d.g_sum[c] += token.q[c] * d.q[c] - token.k[c] * (token.beta * of_write + token.beta * of_read);
  }
}

void retreat_dplr(const TokenRows& token, std::int64_t K, std::int64_t V, const float* state, float* adjoint, TokenAdjoint& d) {
  std::int64_t at = 0;
  for (; at + 4 * lane_count <= V; at += 4 * lane_count) gather_dplr<4>(token, K, V, at, state, adjoint, d);
  for (; at < V; at += lane_count) gather_dplr<1>(token, K, V, at, state, adjoint, d);
  for (std::int64_t c = 0; c < K; ++c) {
    const Lanes alpha = broadcast(token.alpha[c]), k = broadcast(token.k[c]), a = broadcast(token.a[c]), b = broadcast(token.b[c]);
    Lanes q{}, lambda_w{}, lambda_v{}, s_u{}, g{};
    for (std::int64_t j = 0; j < V; j += lane_count) {
      const std::int64_t here = c * V + j;
      const Lanes w = load(d.from_state + j), u = load(d.from_adjoint + j), v = load(token.v + j), lambda = load(adjoint + here);
      const Lanes s = load(state + here), x = alpha * s;
      q = multiply_add(multiply_add(k, v, multiply_add(a, w, x)), load(d.d_o + j), q);
      lambda_w = multiply_add(lambda, w, lambda_w);
      lambda_v = multiply_add(lambda, v, lambda_v);
      s_u = multiply_add(s, u, s_u);
      g = multiply_add(x, lambda, g);
      store(adjoint + here, multiply_add(-b, u, alpha * lambda));
    }
    d.q[c] = sum(q);
    d.a[c] = sum(lambda_w);
    d.k[c] = sum(lambda_v);
    d.b[c] = -sum(s_u);
    d.g[c] = sum(g);
    if (!d.g_sum) continue;
    d.g[c] = d.g_sum[c] += token.q[c] * d.q[c] - (token.a[c] * d.a[c] + token.k[c] * d.k[c]);
    d.g_sum[c] += token.b[c] * d.b[c];
  }
}

} // namespace

std::size_t recurrence_backward_bytes(const Contract& contract, const Inputs& inputs) {
  Arena shared, slice;
  take_parameter_partials(shared, inputs);
  take_slice(slice, contract, inputs);
  return shared.used + slice.used * static_cast<std::size_t>(worker_count(inputs.N() * inputs.shape.H));
}

void recurrence_backward(const Contract& contract, const Inputs& inputs, const Cotangents& cotangents, const GradientOutputs& gradients,
                         std::span<std::byte> workspace) {
  accept(contract, inputs, cotangents, gradients);
  const Shape& s = inputs.shape;
  const std::int64_t K = padded(s.K), V = padded(s.V);
  const bool kda = inputs.options.rule == Rule::kda, rounded = rounds_tokens(contract);
  Arena front{workspace.data()}, measure;
  const ParameterPartials partials = take_parameter_partials(front, inputs);
  take_slice(measure, contract, inputs);
  const double operations = 15.0 * static_cast<double>(s.B * s.T * s.HV) * static_cast<double>(s.K * s.V);
  for_each_task(inputs.N() * s.H, workspace.subspan(front.used), measure.used, operations, [&](std::int64_t index, std::byte* memory) {
    const std::int64_t n = index / s.H, shared_head = index % s.H, group = s.HV / s.H;
    Arena arena{memory};
    Slice slice = take_slice(arena, contract, inputs);
    TokenAdjoint& d = slice.d;
    for (float* padding : {d.q, d.k, d.a, d.b, d.g}) std::fill(padding, padding + K, 0.0f);
    const Sequence sequence = sequence_of(inputs, n);
    std::fill(slice.shared.q, slice.shared.q + sequence.length * K, 0.0f);
    std::fill(slice.shared.k, slice.shared.k + sequence.length * K, 0.0f);
    for (std::int64_t head = shared_head * group; head < (shared_head + 1) * group; ++head) {
      const GateParameterSums sums = clear_sums(partials, inputs, n, head);
      read_state(inputs[Input::initial_state], contract.state_v_first, n, head, s.K, s.V, slice.walk.checkpoints);
      read_state(cotangents.d_final_state, contract.state_v_first, n, head, s.K, s.V, slice.adjoint);
      const auto step = [&](const float* state, float* next) {
        rounded ? advance_rounded(contract, inputs, slice.token, state, next) : advance(inputs, slice.token, state, next);
      };
      const auto advance_token = [&](std::int64_t t, std::int64_t, Record& record, float* next) {
        if (!next) return;
        read_token(inputs, sequence.first + t, head, slice.token);
        step(record.state, next);
      };
      const auto retreat = [&](std::int64_t t, std::int64_t, Record& record) {
        const std::int64_t row = sequence.first + t;
        read_token(inputs, row, head, slice.token);
        if (d.g_sum && t + 1 == sequence.length) {
          step(record.state, slice.last);
          for (std::int64_t c = 0; c < s.K; ++c) d.g_sum[c] = dot(slice.last + c * V, slice.adjoint + c * V, V);
        }
        read_output_cotangent(cotangents, inputs, row, head, 1, d.d_o);
        if (rounded)
          retreat_rounded(contract, inputs, slice.token, record.state, slice.adjoint, d);
        else
          kda ? retreat_kda(slice.token, s.K, V, record.state, slice.adjoint, d)
              : retreat_dplr(slice.token, s.K, V, record.state, slice.adjoint, d);
        for (std::int64_t c = 0; c < K; ++c) {
          slice.shared.q[t * K + c] += inputs.options.scale * d.q[c];
          slice.shared.k[t * K + c] += d.k[c];
        }
        write_gradient(gradients, Input::v, inputs, row, head, 1, d.v);
        if (kda) {
          write_beta_gradient(inputs, gradients, row, head, 1, &d.beta, &slice.token.raw_beta);
        } else {
          write_gradient(gradients, Input::a, inputs, row, head, 1, d.a);
          write_gradient(gradients, Input::b, inputs, row, head, 1, d.b);
        }
        write_gate_gradient(inputs, gradients, row, head, 1, d.g, slice.row, sums);
      };
      walk_back(
          slice.walk, sequence.length, [&](Arena& place) { return Record{place.floats(K * V)}; }, advance_token, retreat);
      write_state(gradients[Input::initial_state], contract.state_v_first, n, head, s.K, s.V, slice.adjoint);
    }
    write_shared(slice.shared, inputs, gradients, sequence.first, shared_head, sequence.length, slice.row);
  });
  write_parameters(partials, inputs, gradients);
}

} // namespace kdacheck::cpu
