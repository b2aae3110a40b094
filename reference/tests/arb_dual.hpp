#pragma once
// Test truth: Arb balls of more than 1000 bits with one derivative (forward mode), and the naive token recurrence on them.
// It shares nothing with the certified code: other numbers, other library functions, other direction of differentiation.

#include "../problem.hpp"

#include <arb.h>

#include <vector>

namespace kdacheck::test {

inline constexpr slong arb_precision = 1100;

/// An Arb ball.
class Arb {
public:
  Arb(double x = 0) {
    arb_init(x_);
    arb_set_d(x_, x);
  }
  Arb(const Arb& other) {
    arb_init(x_);
    arb_set(x_, other.x_);
  }
  Arb& operator=(const Arb& other) {
    arb_set(x_, other.x_);
    return *this;
  }
  ~Arb() { arb_clear(x_); }
  arb_ptr get() { return x_; }
  arb_srcptr get() const { return x_; }

  friend Arb operator+(const Arb& a, const Arb& b) {
    Arb r;
    arb_add(r.x_, a.x_, b.x_, arb_precision);
    return r;
  }
  friend Arb operator-(const Arb& a, const Arb& b) {
    Arb r;
    arb_sub(r.x_, a.x_, b.x_, arb_precision);
    return r;
  }
  friend Arb operator*(const Arb& a, const Arb& b) {
    Arb r;
    arb_mul(r.x_, a.x_, b.x_, arb_precision);
    return r;
  }
  friend Arb operator/(const Arb& a, const Arb& b) {
    Arb r;
    arb_div(r.x_, a.x_, b.x_, arb_precision);
    return r;
  }

private:
  arb_t x_;
};

inline Arb exp(const Arb& x) {
  Arb r;
  arb_exp(r.get(), x.get(), arb_precision);
  return r;
}

/// Upper bound of |x|.
inline double magnitude(const Arb& x) {
  mag_t m;
  mag_init(m);
  arb_get_mag(m, x.get());
  const double result = mag_get_d(m);
  mag_clear(m);
  return result;
}

/// Value and derivative with respect to one input element; `moving` is false while the derivative is zero.
struct Dual {
  Arb value;
  Arb slope;
  bool moving = false;
  Dual(double x = 0) : value(x) {}
  Dual(Arb x, Arb dx, bool moves) : value(std::move(x)), slope(std::move(dx)), moving(moves) {}
};

inline Dual operator+(const Dual& a, const Dual& b) {
  const bool moves = a.moving || b.moving;
  return {a.value + b.value, moves ? a.slope + b.slope : Arb(), moves};
}
inline Dual operator-(const Dual& a, const Dual& b) {
  const bool moves = a.moving || b.moving;
  return {a.value - b.value, moves ? a.slope - b.slope : Arb(), moves};
}
inline Dual operator*(const Dual& a, const Dual& b) {
  Dual r(a.value * b.value, Arb(), a.moving || b.moving);
  if (a.moving) r.slope = r.slope + a.slope * b.value;
  if (b.moving) r.slope = r.slope + a.value * b.slope;
  return r;
}
inline Dual exp(const Dual& x) {
  Dual r(exp(x.value), Arb(), x.moving);
  if (x.moving) r.slope = r.value * x.slope;
  return r;
}
inline Dual sigmoid(const Dual& x) {
  const Arb e = exp(Arb(0) - x.value);
  Dual r(Arb(1) / (Arb(1) + e), Arb(), x.moving);
  if (x.moving) r.slope = r.value * e / (Arb(1) + e) * x.slope;
  return r;
}
inline Dual softplus(const Dual& x) {
  const Arb e = exp(x.value);
  Dual r(Arb(), Arb(), x.moving);
  arb_log1p(r.value.get(), e.get(), arb_precision);
  if (x.moving) r.slope = e / (Arb(1) + e) * x.slope;
  return r;
}
inline Dual reciprocal_root(const Dual& x) {
  Dual r(Arb(), Arb(), x.moving);
  arb_rsqrt(r.value.get(), x.value.get(), arb_precision);
  if (x.moving) r.slope = Arb(-0.5) * r.value / x.value * x.slope;
  return r;
}

/// An input element to differentiate by.
struct Direction {
  Input input = Input::q;
  std::size_t element = 0;
};

struct ArbOutputs {
  std::vector<Dual> o, final_state;
  Dual loss; ///< <d_o, o> + <d_final_state, final_state>
};

/// Naive forward pass. With a direction, the slopes are derivatives by that element.
inline ArbOutputs arb_forward(const Problem& p, const Direction* direction = nullptr) {
  const auto [B, T, H, HV, K, V] = p.shape;
  const auto N = static_cast<std::size_t>(sequence_count(p));
  const auto element = [&](Input input, std::int64_t index) {
    Dual x(p[input].empty() ? 0.0 : static_cast<double>(p[input][static_cast<std::size_t>(index)]));
    if (direction && direction->input == input && direction->element == static_cast<std::size_t>(index)) {
      x.slope = Arb(1);
      x.moving = true;
    }
    return x;
  };
  ArbOutputs out;
  out.o.resize(static_cast<std::size_t>(B * T * HV * V));
  out.final_state.resize(N * static_cast<std::size_t>(HV * K * V));
  for (const Sequence& s : sequences(p))
    for (std::int64_t h = 0; h < HV; ++h) {
      const std::int64_t first_state = (s.index * HV + h) * K * V, qk = h / (HV / H);
      std::vector<Dual> S(static_cast<std::size_t>(K * V));
      for (std::int64_t i = 0; i < K * V; ++i) S[static_cast<std::size_t>(i)] = element(Input::initial_state, first_state + i);
      Dual rate(1);
      if (!p.A_log.empty()) rate = std::isinf(p.A_log[static_cast<std::size_t>(h)]) ? Dual(0) : exp(element(Input::A_log, h));
      for (std::int64_t t = s.first; t < s.first + s.length; ++t) {
        const auto unit = [&](Input input) {
          std::vector<Dual> x;
          for (std::int64_t i = 0; i < K; ++i) x.push_back(element(input, (t * H + qk) * K + i));
          if (!p.options.l2norm) return x;
          Dual sum(1e-6);
          for (const Dual& c : x) sum = sum + c * c;
          const Dual inverse = reciprocal_root(sum);
          for (Dual& c : x) c = c * inverse;
          return x;
        };
        const std::vector<Dual> q = unit(Input::q), k = unit(Input::k);
        std::vector<Dual> alpha, a, b;
        for (std::int64_t i = 0; i < K; ++i) {
          const Dual x = element(Input::g, (t * HV + h) * K + i), bias = element(Input::dt_bias, h * K + i);
          switch (p.options.gate) {
          case GateForm::log_decay: alpha.push_back(exp(x)); break;
          case GateForm::softplus: alpha.push_back(exp(Dual(0) - rate * softplus(x + bias))); break;
          case GateForm::bounded: alpha.push_back(exp(Dual(p.options.lower_bound) * sigmoid(rate * (x + bias)))); break;
          case GateForm::sigmoid: alpha.push_back(sigmoid(x)); break;
          default: alpha.push_back(Dual(1));
          }
        }
        Dual strength(1);
        if (p.options.rule == Rule::kda) {
          strength = element(Input::beta, t * HV + h);
          if (p.options.beta != BetaForm::value) strength = sigmoid(strength);
          if (p.options.beta == BetaForm::twice_sigmoid) strength = Dual(2) * strength;
        }
        for (std::int64_t i = 0; i < K; ++i) {
          const std::int64_t at = (t * HV + h) * K + i;
          a.push_back(p.options.rule == Rule::kda ? strength * k[static_cast<std::size_t>(i)] : element(Input::a, at));
          b.push_back(p.options.rule == Rule::kda ? alpha[static_cast<std::size_t>(i)] * k[static_cast<std::size_t>(i)]
                                                  : element(Input::b, at));
        }
        for (std::int64_t j = 0; j < V; ++j) {
          const Dual v = element(Input::v, (t * HV + h) * V + j);
          Dual read, output;
          for (std::size_t i = 0; i < b.size(); ++i) read = read + b[i] * S[i * static_cast<std::size_t>(V) + static_cast<std::size_t>(j)];
          for (std::size_t i = 0; i < b.size(); ++i) {
            Dual& state = S[i * static_cast<std::size_t>(V) + static_cast<std::size_t>(j)];
            state = alpha[i] * state - a[i] * read + strength * k[i] * v;
            output = output + q[i] * state;
          }
          const auto at = static_cast<std::size_t>((t * HV + h) * V + j);
          out.o[at] = Dual(p.options.scale) * output;
          if (!p.d_o.empty()) out.loss = out.loss + Dual(p.d_o[at]) * out.o[at];
        }
      }
      for (std::size_t i = 0; i < S.size(); ++i) {
        const std::size_t at = static_cast<std::size_t>(first_state) + i;
        out.final_state[at] = S[i];
        if (!p.d_final_state.empty()) out.loss = out.loss + Dual(p.d_final_state[at]) * S[i];
      }
    }
  return out;
}

/// Upper bound of |value + low - truth|.
inline double distance(const Arb& truth, double value, double low) { return magnitude(truth - Arb(value) - Arb(low)); }

} // namespace kdacheck::test
