// Products with a sparse matrix A given by a Pattern and its values, batch after batch:
//   matmat    y = A x   or  y = A^H x
//   outer     s_e = sum_k y_ik conj(x_jk)   for every stored entry e = (i, j)
//   residual  r = b - A x  (or A^H x), with the norms that judge a solve
// Values are (batch, nnz), vectors (batch, n, k), all C-contiguous; the caller has checked the sizes.
// Sums run in double precision for float32 input.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <utility>
#include <vector>

#include "parallel.hpp"
#include "pattern.hpp"

namespace backsolve {

// Which machine code: of several, that for the processor at hand, where the linker can choose. All give the same bits:
// no product is fused with a sum, so AVX-512 is not among them, for which GCC fuses complex products whatever it is told.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define BACKSOLVE_FOR_THE_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define BACKSOLVE_FOR_THE_PROCESSOR
#endif

template <class T> struct Wide { using type = double; };
template <class R> struct Wide<std::complex<R>> { using type = std::complex<double>; };
template <class T> using wide_t = typename Wide<T>::type;

template <class T> inline T conjugate(T v) { return v; }
template <class R> inline std::complex<R> conjugate(std::complex<R> v) { return {v.real(), -v.imag()}; }

inline double magnitude(double v) { return std::fabs(v); }
inline double magnitude(std::complex<double> v) { return std::hypot(v.real(), v.imag()); }
inline double square(double v) { return v * v; }
inline double square(std::complex<double> v) { return v.real() * v.real() + v.imag() * v.imag(); }

// Plain complex products: std::complex's operator* tests for NaN on every call unless told otherwise.
inline double times(double a, double b) { return a * b; }
inline std::complex<double> times(std::complex<double> a, std::complex<double> b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

// Calls block.template operator()<Width>(first) for runs of 8, 4, 2 and 1 columns, which are summed in registers.
template <class Block>
void for_columns(std::int64_t k, const Block& block) {
  std::int64_t c = 0;
  for (; k - c >= 8; c += 8) block.template operator()<8>(c);
  if (k - c >= 4) block.template operator()<4>(c), c += 4;
  if (k - c >= 2) block.template operator()<2>(c), c += 2;
  if (k - c >= 1) block.template operator()<1>(c);
}

// Calls row(batch, i) for all rows of all batches, threads permitting.
template <class I, class Row>
void for_rows(const Rows<I>& rows, std::int64_t batch, std::int64_t work, const Row& row) {
  const std::int64_t per_batch = rows.chunk_count();
  for_chunks(batch * per_batch, work, [&](std::int64_t chunk) {
    const std::int64_t at = chunk / per_batch, part = chunk % per_batch;
    for (std::int64_t i = rows.chunks[part]; i < rows.chunks[part + 1]; ++i) row(at, i, chunk);
  });
}

// The values of A^H in the order of its rows: `matmat` then needs no slots, which cost it half as much again.
template <class I, class T>
void turn(const Pattern<I>& pattern, const T* data, T* turned, std::int64_t batch) {
  const Rows<I>& columns = pattern.columns();
  const std::int64_t nnz = pattern.nnz(), chunks = columns.chunk_count();
  for_chunks(batch * chunks, batch * nnz, [&](std::int64_t chunk) {
    const std::int64_t here = chunk / chunks * nnz, part = chunk % chunks;
    for (I e = columns.indptr[columns.chunks[part]]; e < columns.indptr[columns.chunks[part + 1]]; ++e)
      turned[here + e] = conjugate(data[here + columns.slot[e]]);
  });
}

// With `Turned`, data are the values that `turn` made.
template <bool Adjoint, class I, class T, bool Turned = false>
void matmat(const Pattern<I>& pattern, const T* data, const T* x, T* y, std::int64_t batch, std::int64_t k) {
  static_assert(Adjoint || !Turned);
  using W = wide_t<T>;
  const Rows<I>& rows = Adjoint ? pattern.columns() : pattern.rows();
  const std::int64_t n_out = Adjoint ? pattern.n_cols : pattern.n_rows;
  const std::int64_t n_in = Adjoint ? pattern.n_rows : pattern.n_cols;
  for_rows(rows, batch, batch * pattern.nnz() * k, [&](std::int64_t at, std::int64_t i, std::int64_t) {
    const T* values = data + at * pattern.nnz();
    const T* in = x + at * n_in * k;
    T* out = y + (at * n_out + i) * k;
    for_columns(k, [&]<int Width>(std::int64_t k0) {
      W sum[Width] = {};
      for (I e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e) {
        W a;
        if constexpr (Adjoint && !Turned) a = conjugate(static_cast<W>(values[rows.slot[e]]));
        else a = static_cast<W>(values[e]);
        const T* row = in + static_cast<std::int64_t>(rows.indices[e]) * k + k0;
        for (int c = 0; c < Width; ++c) sum[c] += times(a, static_cast<W>(row[c]));
      }
      for (int c = 0; c < Width; ++c) out[k0 + c] = static_cast<T>(sum[c]);
    });
  });
}

// The kernel for a product; `turned` is for adjoint ones.
template <class I, class T>
auto matmat_for(bool adjoint, bool turned) {
  return !adjoint ? matmat<false, I, T> : turned ? matmat<true, I, T, true> : matmat<true, I, T>;
}

template <class I, class T>
void outer(const Pattern<I>& pattern, const T* y, const T* x, T* s, std::int64_t batch, std::int64_t k) {
  using W = wide_t<T>;
  const Rows<I>& rows = pattern.rows();
  for_rows(rows, batch, batch * pattern.nnz() * k, [&](std::int64_t at, std::int64_t i, std::int64_t) {
    const T* left = y + (at * pattern.n_rows + i) * k;
    const T* right = x + at * pattern.n_cols * k;
    T* out = s + at * pattern.nnz();
    for (I e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e) {
      const T* row = right + static_cast<std::int64_t>(rows.indices[e]) * k;
      W sum{};
      for (std::int64_t c = 0; c < k; ++c)
        sum += times(static_cast<W>(left[c]), conjugate(static_cast<W>(row[c])));
      out[e] = static_cast<T>(sum);
    }
  });
}

// The largest quotient of a run of them; divides once, at the end.
struct LargestRatio {
  double above = 0, below = 1;
  void add(double a, double b) {
    if (!(a * below <= above * b)) above = a, below = b;  // also taken by NaN, which then stays
  }
  double value() const { return above == 0 ? 0.0 : above / below; }
};

// What judges one column of a solve.
struct Norms {
  double r_max = 0, x_max = 0, b_max = 0;
  double a_max = 0;                // max_i s_i with s_i = sum_j |a_ij|: the infinity-norm of A
  LargestRatio omega;              // |r_i| / (|A||x| + |b|)_i (Oettli and Prager 1964)
  LargestRatio r_scaled, b_scaled; // |r_i| / s_i and |b_i| / s_i
  double r_square = 0, b_square = 0, x_square = 0;
  double curvature = 0;            // Re x^H b

  static double larger(double a, double b) { return a >= b ? a : b != b || a == a ? b : a; }  // keeps NaN
  // One row: x_i, b_i, sum_j a_ij x_j, sum_j |a_ij| |x_j| and sum_j |a_ij|; r_i is rounded.
  template <class W, class T>
  void add_row(W v, W wanted, W product, double weight, double row_sum, T& r) {
    const W rest = wanted - product;
    const double r_size = magnitude(rest), b_size = magnitude(wanted), s = row_sum > 0 ? row_sum : 1.0;
    r = static_cast<T>(rest);
    r_max = larger(r_max, r_size);
    x_max = larger(x_max, magnitude(v));
    b_max = larger(b_max, b_size);
    a_max = larger(a_max, row_sum);
    if (r_size != 0) omega.add(r_size, weight + b_size);
    r_scaled.add(r_size, s);
    b_scaled.add(b_size, s);
    r_square += square(rest);
    b_square += square(wanted);
    x_square += square(v);
    curvature += std::real(times(conjugate(v), wanted));
  }
  void add(const Norms& other) {
    r_max = larger(r_max, other.r_max);
    x_max = larger(x_max, other.x_max);
    b_max = larger(b_max, other.b_max);
    a_max = larger(a_max, other.a_max);
    omega.add(other.omega.above, other.omega.below);
    r_scaled.add(other.r_scaled.above, other.r_scaled.below);
    b_scaled.add(other.b_scaled.above, other.b_scaled.below);
    r_square += other.r_square;
    b_square += other.b_square;
    x_square += other.x_square;
    curvature += other.curvature;
  }
  // In the order of pattern.py's NORMS.
  void write(double* norms) const {
    for (const double v : {a_max, r_max, x_max, b_max, omega.value(), r_scaled.value(), b_scaled.value(), r_square,
                           b_square, x_square, curvature})
      *norms++ = v;
  }
};
inline constexpr int kNorms = 11;

// norms is (batch, k, 11), in the order of pattern.py's NORMS.
template <bool Adjoint, class I, class T>
void residual(const Pattern<I>& pattern, const T* data, const T* x, const T* b, T* r, double* norms,
              std::int64_t batch, std::int64_t k) {
  using W = wide_t<T>;
  const Rows<I>& rows = Adjoint ? pattern.columns() : pattern.rows();
  const std::int64_t n = pattern.n_rows, chunks = rows.chunk_count();
  std::vector<Norms> partial(static_cast<std::size_t>(batch * chunks * k));
  for_chunks(batch * chunks, 2 * batch * pattern.nnz() * k, [&](std::int64_t chunk) {
    const std::int64_t at = chunk / chunks, part = chunk % chunks;
    const T* values = data + at * pattern.nnz();
    const T* in = x + at * n * k;
    for_columns(k, [&]<int Width>(std::int64_t k0) {
      Norms found[Width];
      for (std::int64_t i = rows.chunks[part]; i < rows.chunks[part + 1]; ++i) {
        const std::int64_t here = (at * n + i) * k + k0;
        W sum[Width] = {};
        double scale[Width] = {}, row_sum = 0;
        for (I e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e) {
          const W a = Adjoint ? conjugate(static_cast<W>(values[rows.slot[e]])) : static_cast<W>(values[e]);
          const double size = magnitude(a);
          const T* row = in + static_cast<std::int64_t>(rows.indices[e]) * k + k0;
          row_sum += size;
          for (int c = 0; c < Width; ++c) {
            const W v = static_cast<W>(row[c]);
            sum[c] += times(a, v);
            scale[c] += size * magnitude(v);
          }
        }
        for (int c = 0; c < Width; ++c)
          found[c].add_row(static_cast<W>(x[here + c]), static_cast<W>(b[here + c]), sum[c], scale[c], row_sum, r[here + c]);
      }
      for (int c = 0; c < Width; ++c) partial[chunk * k + k0 + c] = found[c];
    });
  });
  for (std::int64_t at = 0; at < batch; ++at)
    for (std::int64_t c = 0; c < k; ++c) {
      Norms total;
      for (std::int64_t part = 0; part < chunks; ++part) total.add(partial[(at * chunks + part) * k + c]);
      total.write(norms + (at * k + c) * kNorms);
    }
}

// What O(nnz) can tell against a matrix being Hermitian positive definite: a diagonal entry that is not real and
// positive, or a 2x2 minor a_ii a_jj - |a_ij|^2 that is not. Returns the place (i, j), or (-1, -1).
template <class I, class T>
std::pair<std::int64_t, std::int64_t> not_definite(const Pattern<I>& pattern, const T* data) {
  const Rows<I>& rows = pattern.rows();
  std::vector<double> scale(static_cast<std::size_t>(pattern.n_rows), 0.0);
  for (std::int64_t i = 0; i < pattern.n_rows; ++i) {
    for (I e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e)
      if (rows.indices[e] == i && std::imag(static_cast<wide_t<T>>(data[e])) == 0)
        scale[i] = std::real(static_cast<wide_t<T>>(data[e]));
    if (!(scale[i] > 0)) return {i, i};
    scale[i] = std::sqrt(scale[i]);
  }
  constexpr double slack = 1 + 1e-6;  // rounding of single precision is no evidence
  for (std::int64_t i = 0; i < pattern.n_rows; ++i)
    for (I e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e) {
      const std::int64_t j = rows.indices[e];
      if (j != i && magnitude(static_cast<wide_t<T>>(data[e])) >= scale[i] * scale[j] * slack) return {i, j};
    }
  return {-1, -1};
}

// The place of the first value that is NaN or larger than `limit` in modulus (in a component, if complex), or -1.
// Whole runs are looked through at once, and a run only where it has such a value.
template <class T>
BACKSOLVE_FOR_THE_PROCESSOR
std::int64_t first_beyond(const T* values, std::int64_t count, double limit) {
  constexpr std::int64_t run = 512;
  const auto beyond = [&](std::int64_t e) {
    const wide_t<T> v = static_cast<wide_t<T>>(values[e]);
    if constexpr (std::is_floating_point_v<T>) return std::int64_t{!(std::fabs(v) <= limit)};
    else return std::int64_t{!(std::fabs(std::real(v)) <= limit) | !(std::fabs(std::imag(v)) <= limit)};
  };
  for (std::int64_t begin = 0; begin < count; begin += run) {
    const std::int64_t end = std::min(begin + run, count);
    std::int64_t found = 0;
    for (std::int64_t e = begin; e < end; ++e) found += beyond(e);
    if (found)
      for (std::int64_t e = begin; e < end; ++e)
        if (beyond(e)) return e;
  }
  return -1;
}

}  // namespace backsolve
