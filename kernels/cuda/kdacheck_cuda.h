#ifndef KDACHECK_CUDA_H
#define KDACHECK_CUDA_H
/* Kimi Delta Attention on a CUDA device: forward and backward passes over device memory, on a stream of the caller's.
 *
 *   S_t = (I - beta_t k_t k_t^T) Diag(alpha_t) S_{t-1} + beta_t k_t v_t^T,    o_t = S_t^T (scale q_t)
 *   DPLR: S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T
 *
 * Every function checks its arguments first: on anything but KDACHECK_CUDA_OK nothing was launched and nothing written,
 * and the text is one sentence that names the argument. Functions allocate nothing, do not synchronise, and can be
 * captured in a CUDA graph; they may be called from several threads. Compiled for compute capability 9.0. */

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define KDACHECK_CUDA_API __attribute__((visibility("default")))
#else
#define KDACHECK_CUDA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum kdacheck_cuda_status {
  KDACHECK_CUDA_OK = 0,
  KDACHECK_CUDA_NO_DEVICE,         /* no GPU, or its driver does not answer */
  KDACHECK_CUDA_OLD_DEVICE,        /* compute capability is not 9.0 */
  KDACHECK_CUDA_NULL_POINTER,      /* a tensor that is due is absent, or one that has no place is present */
  KDACHECK_CUDA_NOT_DEVICE_MEMORY, /* host memory where device memory is due */
  KDACHECK_CUDA_BAD_SHAPE,
  KDACHECK_CUDA_BAD_FORMAT,
  KDACHECK_CUDA_BAD_OPTION,
  KDACHECK_CUDA_BAD_LAYOUT,    /* strides or alignment */
  KDACHECK_CUDA_BAD_SEQUENCES, /* cu_seqlens */
  KDACHECK_CUDA_SMALL_WORKSPACE,
  KDACHECK_CUDA_LAUNCH_FAILED
};

typedef struct kdacheck_cuda_result {
  int status; /* kdacheck_cuda_status */
  char text[160];
} kdacheck_cuda_result;

enum kdacheck_cuda_format { KDACHECK_CUDA_FP32 = 0, KDACHECK_CUDA_BF16 = 1, KDACHECK_CUDA_FP16 = 2 };
enum kdacheck_cuda_rule { KDACHECK_CUDA_KDA = 0, KDACHECK_CUDA_DPLR = 1 };
enum kdacheck_cuda_gate {                              /* x is the tensor g */
                          KDACHECK_CUDA_LOG_DECAY = 0, /* ln alpha = x */
                          KDACHECK_CUDA_SOFTPLUS,      /* ln alpha = -exp(A_log) softplus(x + dt_bias) */
                          KDACHECK_CUDA_BOUNDED,       /* ln alpha = lower_bound sigmoid(exp(A_log) (x + dt_bias)) */
                          KDACHECK_CUDA_SIGMOID,       /* alpha = sigmoid(x) */
                          KDACHECK_CUDA_NO_GATE        /* alpha = 1 */
};
enum kdacheck_cuda_beta { KDACHECK_CUDA_BETA_VALUE = 0, KDACHECK_CUDA_BETA_SIGMOID, KDACHECK_CUDA_BETA_TWICE_SIGMOID };

enum kdacheck_cuda_kernel {
  KDACHECK_CUDA_RECURRENCE = 0, /* token by token in fp32: any K, V <= 256, any option, any format and alignment */
  KDACHECK_CUDA_CHUNK_FAST,     /* chunks of 16; bf16 operands; state, sums, triangular solve in fp32. K and V multiples of 16
                                   (fastest at K 64 and 128); q, k, v, o (and a, b) all bf16 or all fp16; rows 16-byte aligned;
                                   DPLR with K 64 or 128 */
  KDACHECK_CUDA_CHUNK_ACCURATE, /* the same with operands of 11 bits or more (tf32, fp16, two bf16 terms); no DPLR */
  KDACHECK_CUDA_DECODE          /* 1 to 8 tokens a sequence; updates the fp32 state (K-first) in place; K a multiple of 16 up to
                                   256, V a multiple of 4; no DPLR, no cu_seqlens */
};

/* Strides in elements, outermost dimension first; all zero: dense, row-major. The last dimension is always dense. */
typedef struct kdacheck_cuda_tensor {
  void* data; /* device memory; NULL: absent */
  int format; /* kdacheck_cuda_format */
  int64_t stride[3];
} kdacheck_cuda_tensor;

/* B sequences of T tokens, or packed ones (B = 1); H query/key heads, HV value heads, a multiple of H. */
typedef struct kdacheck_cuda_problem {
  int64_t B, T, H, HV, K, V;
  int rule, gate, beta_form;
  int l2norm;        /* normalise q and k: x / sqrt(sum x^2 + 1e-6) */
  int state_v_first; /* states are [N,HV,V,K] */
  float lower_bound; /* of KDACHECK_CUDA_BOUNDED, <= 0 */
  float scale;
  kdacheck_cuda_tensor q, k;      /* [B,T,H,K] */
  kdacheck_cuda_tensor v;         /* [B,T,HV,V] */
  kdacheck_cuda_tensor g;         /* [B,T,HV,K] */
  kdacheck_cuda_tensor beta;      /* [B,T,HV]: stride[0], stride[1]; heads are dense */
  kdacheck_cuda_tensor a, b;      /* [B,T,HV,K], DPLR only */
  const float *A_log, *dt_bias;   /* [HV], [HV,K] dense; dt_bias may be absent */
  const float* initial_state;     /* [N,HV,K,V] dense; absent: zero */
  float* final_state;             /* absent: not wanted. May be the same memory as initial_state */
  kdacheck_cuda_tensor o;         /* [B,T,HV,V] */
  const int64_t* cu_seqlens;      /* device, [N+1]: 0 = first <= ... <= last = T; absent: N = B */
  const int64_t* cu_seqlens_host; /* the same numbers in host memory, read before the call returns */
  int64_t sequences;              /* N where cu_seqlens is given */
  /* Decode only: state is [slots,HV,K,V], sequence n owns slot[n]; negative: skipped, its o is left as it is. Slots of one
   * call must differ. NULL: sequence n owns slot n. */
  float* state;
  const int32_t* slot; /* device, [B] */
  int64_t slots;
} kdacheck_cuda_problem;

/* Bytes of workspace that the kernel needs for the problem; it must be aligned to 256 bytes. KDACHECK_CUDA_CHUNK_FAST takes at
 * most the states of 256 heads, and 17 KB, to hand a head's state from one multiprocessor to another; the other kernels none. */
KDACHECK_CUDA_API kdacheck_cuda_result kdacheck_cuda_workspace_bytes(int kernel, const kdacheck_cuda_problem*, size_t* bytes);

/* Enqueues the forward pass; `stream` is a cudaStream_t (NULL: the default stream). */
KDACHECK_CUDA_API kdacheck_cuda_result kdacheck_cuda_forward(int kernel, const kdacheck_cuda_problem*, void* workspace,
                                                             size_t workspace_bytes, void* stream);

/* What a backward pass reads besides the problem, and what it writes, through gate, l2norm and sigmoid to the tensors as they
 * are stored. Gradients have the shape of their primal, any format, and the primal's rules for strides and alignment; rows
 * must not overlap. Those that are absent are not written. `o` and `final_state` of the problem are not used. */
typedef struct kdacheck_cuda_gradients {
  kdacheck_cuda_tensor d_o;    /* [B,T,HV,V] in the format of v; absent: zero */
  const float* d_final_state;  /* [N,HV,K,V] dense, V-first like the states; absent: zero */
  kdacheck_cuda_tensor dq, dk; /* [B,T,H,K], summed over the value heads of a group */
  kdacheck_cuda_tensor dv, dg; /* [B,T,HV,V], [B,T,HV,K] */
  kdacheck_cuda_tensor dbeta;  /* [B,T,HV] */
  kdacheck_cuda_tensor da, db; /* [B,T,HV,K], DPLR only */
  float *d_A_log, *d_dt_bias;  /* [HV], [HV,K] dense */
  float* d_initial_state;      /* as d_final_state; may be wanted where initial_state is absent */
} kdacheck_cuda_gradients;

/* Bytes of workspace that the backward pass needs; it must be aligned to 256 bytes. At K = V = 128 and one value head a key head, for a
 * token and head: 3472 (fast) or 3080 (accurate), 2048 of it only for sequences longer than 64. Where that would be more than 1.5 times
 * inputs, outputs and gradients in 16 bits (grouped heads, long keys), heads are taken in rounds, whole groups or value heads of the only
 * group, each in the memory of the round before: less memory, and less that can run at once.
 * DPLR: 3760, 1024 H / HV more where heads are grouped. KDACHECK_CUDA_RECURRENCE: 4112 (DPLR 6152), and 524,288 for a sequence and
 * value head. */
KDACHECK_CUDA_API kdacheck_cuda_result kdacheck_cuda_backward_workspace_bytes(int kernel, const kdacheck_cuda_problem*, size_t* bytes);

/* Enqueues the backward pass of a kernel but decode, for all that its forward pass takes (accurate: K at most 128, and V at most 128
 * unless K is 64): recomputes what the forward pass had. No atomics: the same call gives the same bits. */
KDACHECK_CUDA_API kdacheck_cuda_result kdacheck_cuda_backward(int kernel, const kdacheck_cuda_problem*, const kdacheck_cuda_gradients*,
                                                              void* workspace, size_t workspace_bytes, void* stream);

/* The gate alone, as the recurrence computes it: ln alpha of every token and channel, and its sums over each chunk of a sequence from the
 * chunk's first token to its own. */
typedef struct kdacheck_cuda_gates_call {
  int64_t B, T, HV, K;
  int gate;                     /* kdacheck_cuda_gate, but KDACHECK_CUDA_NO_GATE */
  float lower_bound;            /* of KDACHECK_CUDA_BOUNDED, <= 0 */
  int64_t chunk;                /* tokens, 1 to 4096; chunks begin with each sequence */
  kdacheck_cuda_tensor g;       /* [B,T,HV,K] */
  const float *A_log, *dt_bias; /* [HV], [HV,K] dense; dt_bias may be absent */
  const int64_t* cu_seqlens;    /* as in kdacheck_cuda_problem */
  const int64_t* cu_seqlens_host;
  int64_t sequences;
  kdacheck_cuda_tensor log_decay, sums; /* [B,T,HV,K], any format; an absent one is not wanted */
} kdacheck_cuda_gates_call;
KDACHECK_CUDA_API kdacheck_cuda_result kdacheck_cuda_gates(const kdacheck_cuda_gates_call*, void* stream);

/* The transition alone, of one token or a few, on a batch of states in place:
 *   S <- (Diag(d) - a b^T) S + k v^T
 * KDA's is d = alpha, a = beta k, b = k (.) alpha, with beta k for k. In fp32; element (i, j) of one step is wrong by at most
 * (K + 4) u / (1 - (K + 4) u), u = 2^-24, times |d_i S_ij| + |a_i| sum_m |b_m S_mj| + |k_i v_j|. Its bits depend neither on the batch nor
 * on how tokens are cut into calls. NaN and infinity pass through. */
typedef struct kdacheck_cuda_transition_call {
  int64_t B, T, HV, K, V;       /* T 1 to 8, K 1 to 256, V a multiple of 4 up to 256 */
  kdacheck_cuda_tensor d, a, b; /* [B,T,HV,K]; d is the factor, not its logarithm */
  kdacheck_cuda_tensor k, v;    /* [B,T,HV,K], [B,T,HV,V]; both absent: nothing is added */
  float* state;                 /* [slots,HV,K,V] dense, 16-byte aligned; sequence n owns slot[n], as in kdacheck_cuda_problem */
  const int32_t* slot;          /* device, [B]; those that are negative or no slot: skipped. NULL: sequence n owns slot n */
  int64_t slots;
} kdacheck_cuda_transition_call;
KDACHECK_CUDA_API kdacheck_cuda_result kdacheck_cuda_transition(const kdacheck_cuda_transition_call*, void* stream);

/* KDACHECK_CUDA_OK if the current device can run the kernels. */
KDACHECK_CUDA_API kdacheck_cuda_result kdacheck_cuda_device(void);

#ifdef __cplusplus
}
#endif
#endif
