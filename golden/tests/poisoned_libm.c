/* A mathematical library of which every function that libraries round differently says NaN: what is the same under it owes them nothing.
   fma, sqrt, frexp and their like are exact everywhere and stay. */
#include <math.h>

#define POISONED(function)                                                                                                                 \
  double function(double x) { return (void)x, NAN; }                                                                                       \
  float function##f(float x) { return (void)x, NAN; }                                                                                      \
  long double function##l(long double x) { return (void)x, NAN; }
POISONED(exp)
POISONED(exp2)
POISONED(exp10)
POISONED(expm1)
POISONED(log)
POISONED(log2)
POISONED(log10)
POISONED(log1p)
POISONED(sin)
POISONED(cos)
POISONED(tan)
POISONED(asin)
POISONED(acos)
POISONED(atan)
POISONED(sinh)
POISONED(cosh)
POISONED(tanh)
POISONED(erf)
POISONED(erfc)
POISONED(cbrt)
POISONED(tgamma)
POISONED(lgamma)

#define POISONED_OF_TWO(function)                                                                                                          \
  double function(double x, double y) { return (void)x, (void)y, NAN; }                                                                    \
  float function##f(float x, float y) { return (void)x, (void)y, NAN; }                                                                    \
  long double function##l(long double x, long double y) { return (void)x, (void)y, NAN; }
POISONED_OF_TWO(pow)
POISONED_OF_TWO(atan2)
POISONED_OF_TWO(hypot)

void sincos(double x, double* sine, double* cosine) { (void)x, *sine = *cosine = NAN; }
void sincosf(float x, float* sine, float* cosine) { (void)x, *sine = *cosine = NAN; }
void sincosl(long double x, long double* sine, long double* cosine) { (void)x, *sine = *cosine = NAN; }
