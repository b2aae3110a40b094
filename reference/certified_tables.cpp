#include "certified_exp.hpp"
#include "certified_log.hpp"

#include <initializer_list>
#include <mpfr.h>

namespace kdacheck::certified {
namespace {

/// Takes x apart into doubles; x keeps the rest.
void take_apart(mpfr_ptr x, double& high, double* low) {
  high = mpfr_get_d(x, MPFR_RNDN);
  mpfr_sub_d(x, x, high, MPFR_RNDN);
  if (low) *low = mpfr_get_d(x, MPFR_RNDN);
}

LogTable make_log_table() {
  LogTable table{};
  mpfr_t x;
  mpfr_init2(x, 256);
  for (int j = 0; j <= 32; ++j) {
    mpfr_set_si_2exp(x, j, -5, MPFR_RNDN);
    mpfr_log1p(x, x, MPFR_RNDN);
    take_apart(x, table.high[j], &table.low[j]);
  }
  for (int i = 0; i < 10; ++i) {
    mpfr_set_ui(x, 1, MPFR_RNDN);
    mpfr_div_ui(x, x, static_cast<unsigned long>(2 * i + 1), MPFR_RNDN);
    take_apart(x, table.inverse_odd_high[i], &table.inverse_odd_low[i]);
  }
  mpfr_clear(x);
  return table;
}

ExpTable make_exp_table() {
  ExpTable table{};
  mpfr_t x, part;
  mpfr_init2(x, 256);
  mpfr_init2(part, 36);
  const auto take = [&](double& high, double* low) { take_apart(x, high, low); };
  for (int j = 0; j < 64; ++j) {
    mpfr_set_si_2exp(x, j, -6, MPFR_RNDN);
    mpfr_exp2(x, x, MPFR_RNDN);
    take(table.power_high[j], &table.power_low[j]);
  }
  mpfr_const_log2(x, MPFR_RNDN);
  mpfr_ui_div(x, 64, x, MPFR_RNDN);
  take(table.steps_per_unit, nullptr);
  mpfr_const_log2(x, MPFR_RNDN);
  mpfr_div_2ui(x, x, 6, MPFR_RNDN);
  for (double* step : {&table.step_first, &table.step_second}) {
    mpfr_set(part, x, MPFR_RNDN);
    *step = mpfr_get_d(part, MPFR_RNDN);
    mpfr_sub(x, x, part, MPFR_RNDN);
  }
  take(table.step_third, nullptr);
  for (int n = 0; n < 12; ++n) {
    mpfr_fac_ui(x, static_cast<unsigned long>(n), MPFR_RNDN);
    mpfr_ui_div(x, 1, x, MPFR_RNDN);
    take(table.inverse_factorial[n], n < 6 ? &table.inverse_factorial_low[n] : nullptr);
  }
  mpfr_clear(x);
  mpfr_clear(part);
  return table;
}

} // namespace

const ExpTable exp_table = make_exp_table();
const LogTable log_table = make_log_table();

} // namespace kdacheck::certified
