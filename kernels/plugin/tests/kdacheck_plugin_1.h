/* Version 1 of the interface, as libraries were built with it: they must go on loading.
 *
 * The C interface by which a shared library hands kernels of Kimi Delta Attention to kdacheck.
 *
 * A library exports one function, kdacheck_plugin(). It is loaded in a child process; a crash or a hang there is a verdict,
 * not the end of the run. Judge it with:  ./kdacheck verify --plugin ./libmine.so
 *
 * Mathematics, shapes and names: per value head, S [K,V],
 *   S_t = (I - beta_t k_t k_t^T) Diag(alpha_t) S_{t-1} + beta_t k_t v_t^T,   o_t = S_t^T (scale q_t)
 *   DPLR:  S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T
 * value head j reads q/k head j / (HV/H). Plain C, no dependency. */
#ifndef KDACHECK_PLUGIN_H
#define KDACHECK_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KDACHECK_PLUGIN_VERSION 1u

/* Stored formats. */
enum { KDACHECK_FP64 = 0, KDACHECK_FP32 = 1, KDACHECK_BF16 = 3, KDACHECK_FP16 = 4 };

/* How the decay is given; x is the tensor g. */
enum {
  KDACHECK_GATE_LOG_DECAY = 0, /* alpha = exp(x), x <= 0 */
  KDACHECK_GATE_SOFTPLUS = 1,  /* ln alpha = -exp(A_log) softplus(x + dt_bias) */
  KDACHECK_GATE_BOUNDED = 2,   /* ln alpha = lower_bound sigmoid(exp(A_log) (x + dt_bias)) */
  KDACHECK_GATE_SIGMOID = 3,   /* alpha = sigmoid(x) */
  KDACHECK_GATE_ABSENT = 4     /* alpha = 1, no tensor g */
};
enum { KDACHECK_BETA_VALUE = 0, KDACHECK_BETA_SIGMOID = 1, KDACHECK_BETA_TWICE_SIGMOID = 2 };
enum { KDACHECK_RULE_KDA = 0, KDACHECK_RULE_DPLR = 1 };

/* data == NULL: the tensor is absent (or, for a result, not wanted). Strides count elements; the last is 1. */
typedef struct {
  void* data;
  int32_t format;
  int32_t reserved;
  int64_t shape[4];
  int64_t stride[4];
} kdacheck_tensor;

typedef struct {
  int64_t B, T, H, HV, K, V;
  int64_t N; /* sequences: B, or the members of cu_seqlens */
  int32_t rule, gate, beta_form, l2norm;
  float scale, lower_bound;
  kdacheck_tensor q, k;          /* [B,T,H,K] */
  kdacheck_tensor v;             /* [B,T,HV,V] */
  kdacheck_tensor g;             /* [B,T,HV,K] */
  kdacheck_tensor beta;          /* [B,T,HV] */
  kdacheck_tensor a, b;          /* [B,T,HV,K], DPLR only */
  kdacheck_tensor A_log;         /* [HV] */
  kdacheck_tensor dt_bias;       /* [HV,K] */
  kdacheck_tensor initial_state; /* [N,HV,K,V] fp32, or [N,HV,V,K] if the contract says state_layout=v_first */
  const int64_t* cu_seqlens;     /* [N+1], or NULL: B sequences of T tokens */
} kdacheck_inputs;

typedef struct {
  kdacheck_tensor o;           /* [B,T,HV,V] */
  kdacheck_tensor final_state; /* as initial_state; data == NULL: not wanted */
} kdacheck_outputs;

typedef struct {
  kdacheck_tensor d_o;           /* cotangent of o; data == NULL: zero */
  kdacheck_tensor d_final_state; /* cotangent of the final state; data == NULL: zero */
} kdacheck_cotangents;

/* Gradients in the shapes of their primals; data == NULL: not wanted. */
typedef struct {
  kdacheck_tensor dq, dk, dv, dg, dbeta, da, db, dA_log, ddt_bias, dinitial_state;
} kdacheck_gradients;

/* 0: done. Anything else: refused, nothing written; the reason is a sentence in `why` (why_size bytes, NUL-terminated). */
typedef int (*kdacheck_forward_fn)(const kdacheck_inputs*, const kdacheck_outputs*, void* workspace, size_t workspace_bytes, char* why,
                                   size_t why_size);
typedef int (*kdacheck_backward_fn)(const kdacheck_inputs*, const kdacheck_cotangents*, const kdacheck_gradients*, void* workspace,
                                    size_t workspace_bytes, char* why, size_t why_size);

typedef struct {
  const char* name;     /* "mine.chunk64" */
  const char* summary;  /* one line */
  const char* contract; /* precision contract and domain, `key=value ...`; README lists the keys */
  size_t (*workspace_bytes)(const kdacheck_inputs*, int backward); /* NULL: none needed; the memory is 64-byte aligned */
  kdacheck_forward_fn forward;
  kdacheck_backward_fn backward; /* NULL: none */
} kdacheck_kernel;

typedef struct {
  uint32_t version; /* KDACHECK_PLUGIN_VERSION */
  uint32_t count;
  const kdacheck_kernel* kernels;
} kdacheck_library;

/* What a library exports. `version` is the caller's; return NULL if it is not understood. */
const kdacheck_library* kdacheck_plugin(uint32_t version);

#ifdef __cplusplus
}
#endif
#endif
