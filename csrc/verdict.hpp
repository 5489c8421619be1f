// The quick verdict on a solve: whether nothing is left to do or to say. What is not settled is judged at leisure, by
// methods/judge.py, which also sets the standard.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels.hpp"

namespace backsolve {

// What judge.py's `standard` makes, in this order.
struct Standard {
  double accurate;  // componentwise backward error at rounding level
  double allowed;   // backward error that is on target
  double doubt;     // share of b that may be left in rows scaled alike
  double low, high;  // sizes of b that need no scaling
  double largest;   // rows of A that can be summed
  double rtol, atol;
  double by_residual, definite;  // 0 or 1

  static constexpr std::size_t size = 10;
  static Standard of(const double* v) { return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]}; }
};

// norms is (columns, 11), as `residual` writes them. False for NaN.
inline bool settled(const double* norms, std::int64_t columns, const Standard& s) {
  for (const double* v = norms; v != norms + columns * kNorms; v += kNorms) {
    const double a_max = v[0], r_max = v[1], x_max = v[2], b_max = v[3], omega = v[4], r_scaled = v[5], b_scaled = v[6];
    const double r_square = v[7], b_square = v[8], x_square = v[9], curvature = v[10];
    if (!(b_max == 0 || (s.low <= b_max && b_max <= s.high))) return false;
    if (!(omega <= s.accurate && r_scaled <= s.doubt * b_scaled)) return false;
    if (!(x_max < std::numeric_limits<double>::infinity() && a_max <= s.largest)) return false;
    if (s.definite != 0 && !(curvature >= -1e-6 * std::sqrt(x_square * b_square))) return false;
    const bool met = s.by_residual != 0 ? std::sqrt(r_square) <= std::fmax(s.rtol * std::sqrt(b_square), s.atol)
                                   : r_max <= s.allowed * (a_max * x_max + b_max);
    if (!met) return false;
  }
  return true;
}

}  // namespace backsolve
