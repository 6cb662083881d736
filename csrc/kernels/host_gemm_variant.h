// What the host kernel is made of, for each instruction set one; the choice among them is host_gemm.cpp's.
#pragma once

#include <cstdint>

#include "kernels/linear_types.h"

namespace q8ta::kernels {

// Packed weights: panels of 32 output channels; in a panel, for each 4 k in turn, those 4 bytes of each
// channel. Padding is 0. It is the order that every instruction set's dot product of 4 bytes wants.
inline constexpr int64_t kPanelColumns = 32;
inline constexpr int64_t kBytesInStep = 4;

/// Output channels that are computed together, and rows of x at most.
inline constexpr int64_t kGroupColumns = 2 * kPanelColumns;
inline constexpr int64_t kGroupRows = 12;

/// Bytes behind the last panel that may be read: a kernel reads whole tiles, and multiplies the rest by 0.
inline constexpr int64_t kReadBehindPanels = 2048;

/// y = linear(x), everything in host memory.
struct HostGemm {
  LinearProblem problem;  ///< its M is not used
  HostChannels channels;
  const int8_t* x;  ///< [M, K], contiguous
  int64_t M;
  const int8_t* weights;       ///< rows of K bytes, or packed panels
  const int8_t* weights_end;   ///< of what may be read, of rows
  int64_t weight_stride;       ///< bytes from row to row, or from panel to panel
  const int32_t* column_sums;  ///< of packed weights, of each panel's columns
  void* y;                     ///< [M, N]

  bool* invalid_scale;  ///< set if a weight scale is not finite and > 0

  uint8_t* prepared_x;       ///< M rows
  int64_t prepared_stride;   ///< bytes of such a row
  int32_t* x_compensations;  ///< [M], only for weights in rows
};

/// One way to multiply: weights in rows, or packed.
struct HostPath {
  int64_t (*prepared_row_bytes)(int64_t K);
  /// Rewrites rows of x as `multiply` reads them.
  void (*prepare)(const HostGemm& gemm, int64_t first_row, int64_t end_row);
  /// Computes rows of y in kGroupColumns columns from group * kGroupColumns on, epilogue included.
  void (*multiply)(const HostGemm& gemm, int64_t first_row, int64_t end_row, int64_t group);
  int64_t row_multiple = 1;  ///< of which first_row is one
};

struct HostVariant {
  const char* name;
  bool (*runs_here)();
  HostPath rows;
  HostPath packed;  ///< null functions: it never packs
};

/// Null where the compiler or its target does not know the instructions.
const HostVariant* amx_variant();
const HostVariant* avx512_vnni_variant();
const HostVariant* avx_vnni_variant();
const HostVariant* avx2_variant();
const HostVariant* neon_dot_variant();
const HostVariant* portable_variant();

}  // namespace q8ta::kernels
