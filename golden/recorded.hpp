#pragma once
// Recorded activations: a problem in a safetensors file, under the names of flash-linear-attention.
//
//   tensor                    shape            dtype            note
//   q k                       [B,T,H,K]        BF16 F16 F32     q, k, v (and a, b) have one dtype
//   v                         [B,T,HV,V]
//   g                         [B,T,HV,K]       BF16 F16 F32     log decay or raw gate input; absent: no decay
//   beta                      [B,T,HV]         BF16 F16 F32     value or logit; absent for DPLR
//   a b                       [B,T,HV,K]       as q             present: the rule is DPLR
//   A_log                     [HV]             BF16 F16 F32     also with extents of 1 around it
//   dt_bias                   [HV,K], [HV*K]   BF16 F16 F32
//   initial_state             [N,HV,K,V]       BF16 F16 F32
//   cu_seqlens                [N+1]            I64 I32          packed sequences; then B = 1
//   do dht                    as o, state      BF16 F16 F32     cotangents
//   o final_state             any              any              recorded outputs: not read
//
//   metadata                  default                        values
//   gate                      from the tensors: no g: absent; A_log: softplus, or bounded if lower_bound is given; else log_decay
//                                                            log_decay softplus bounded sigmoid absent
//   lower_bound               -5                             of the bounded gate
//   beta                      value                          value sigmoid twice_sigmoid
//   l2norm                    no                             yes no: the kernel normalises q and k
//   scale                     K^{-1/2}                       number
//   format, about, about_*                                   remarks, not read. Any other key is an error.

#include "../reference/problem.hpp"
#include "../reference/safetensors.hpp"

#include <filesystem>

namespace kdacheck {

/// The problem in a file. Throws BadFile with one sentence: unreadable or malformed file, missing or unknown tensor,
/// wrong shape or dtype, cu_seqlens that decrease or miss T, a value that is not finite, unknown metadata.
Problem problem_from(const std::filesystem::path&);

/// The same of a table that has been read from `source`.
Problem problem_of(const TensorTable&, const std::string& source);

/// A tensor with bytes of its own.
struct OwnedTensor {
  std::string name;
  ElementType type = ElementType::F32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;
};

/// The tensors of a problem under the names and in the types above.
std::vector<OwnedTensor> tensors_of(const Problem&);
/// Its options as metadata.
Metadata metadata_of(const Problem&);
/// Writes owned tensors; errors as write_safetensors.
void write_tensors(const std::filesystem::path&, const std::vector<OwnedTensor>&, const Metadata&);

/// Writes a problem so that problem_from gives it back (tf32 inputs as fp32). `about` holds remarks under about or about_*. Throws
/// FileTrouble if it cannot write and std::invalid_argument for other remarks.
void save_problem(const std::filesystem::path&, const Problem&, const Metadata& about = {});

/// Whether a metadata key holds a remark: format, about or about_*.
bool is_remark(std::string_view key);

/// The problem with every tensor rounded to the formats a kernel wants; exact where they are wider.
Problem rounded_to(Problem, const InputFormats&);

} // namespace kdacheck
