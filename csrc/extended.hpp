// r = b - A x (or A^H x) for double precision, accumulated in double-double: as if in about 32 digits, then rounded.
// Error-free transformations: Knuth's sum of two numbers, and Dekker's product with Veltkamp's splitting, which needs
// no fused multiply-add (Ogita, Rump and Oishi 2005, doi:10.1137/030601818). Beyond 2^996 the splitting overflows and
// the result is NaN; the caller then keeps the ordinary residual.
#pragma once

#include <complex>
#include <cstdint>

#include "kernels.hpp"

namespace backsolve {

struct Twofold {
  double high = 0, low = 0;

  void add(double v) {
    const double s = high + v, t = s - high;
    low += (high - (s - t)) + (v - t);
    high = s;
  }
  void add_product(double a, double b) {
    const double p = a * b;
    const double ca = kSplit * a, cb = kSplit * b;
    const double ah = ca - (ca - a), al = a - ah, bh = cb - (cb - b), bl = b - bh;
    add(p);
    low += ((ah * bh - p) + ah * bl + al * bh) + al * bl;
  }
  double value() const { return high + low; }

 private:
  static constexpr double kSplit = 134217729.0;  // 2^27 + 1
};

inline void subtract(Twofold (&sum)[2], double a, double x) { sum[0].add_product(-a, x); }
inline void subtract(Twofold (&sum)[2], std::complex<double> a, std::complex<double> x) {
  sum[0].add_product(-a.real(), x.real());
  sum[0].add_product(a.imag(), x.imag());
  sum[1].add_product(-a.real(), x.imag());
  sum[1].add_product(-a.imag(), x.real());
}
inline void store(const Twofold (&sum)[2], double& r) { r = sum[0].value(); }
inline void store(const Twofold (&sum)[2], std::complex<double>& r) { r = {sum[0].value(), sum[1].value()}; }

template <bool Adjoint, class I, class T>
void residual_extended(const Pattern<I>& pattern, const T* data, const T* x, const T* b, T* r, std::int64_t batch,
                       std::int64_t k) {
  const Rows<I>& rows = Adjoint ? pattern.columns() : pattern.rows();
  const std::int64_t n = pattern.n_rows;
  for_rows(rows, batch, 10 * batch * pattern.nnz() * k, [&](std::int64_t at, std::int64_t i, std::int64_t) {
    const T* values = data + at * pattern.nnz();
    const T* in = x + at * n * k;
    for (std::int64_t c = 0; c < k; ++c) {
      const std::int64_t here = (at * n + i) * k + c;
      Twofold sum[2];
      sum[0].add(std::real(b[here]));
      sum[1].add(std::imag(b[here]));
      for (I e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e) {
        const T a = Adjoint ? conjugate(values[rows.slot[e]]) : values[e];
        subtract(sum, a, in[static_cast<std::int64_t>(rows.indices[e]) * k + c]);
      }
      store(sum, r[here]);
    }
  });
}

}  // namespace backsolve
