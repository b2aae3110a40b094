#pragma once
// The words, types and functions that nvcc adds to the language, for a host compiler.
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 __ldcs(const float4* from) { return *from; }
inline void __stcs(float4* to, float4 x) { *to = x; }
inline float __fmul_rn(float x, float y) { return x * y; }
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
