// Margins of diagonal dominance as lower bounds that hold in floating point.
//
// The margin of list i is |M_ii| - sum_{j != i} |M_ij|, or with weights w >= 0 of the nodes
// |M_ii| w_i - sum_{j != i} |M_ij| w_j, entry i of <M> w. Certificates divide by it, so it must never come out above the
// truth: a matrix with margins of zero easily gets positive ones by rounding.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>
#include <type_traits>

#include "local_view.hpp"
#include "parallel.hpp"

namespace backsolve::local {

// Whether this thread computes with zeros for numbers below the normal ones (as after torch.set_flush_denormal).
inline bool flushes() {
  volatile double least = std::numeric_limits<double>::min();
  volatile double half = least * 0.5;
  return !(half > 0);
}

// A sum, and what was lost in making it (Ogita, Rump & Oishi 2005): the exact sum is `high` plus all losses, of which
// `low` is the sum and `lost` that of the moduli. While nothing is lost the sum is exact, and known to be.
struct KeptSum {
  double high = 0, low = 0, lost = 0;
  void add(double x) {
    const double sum = high + x, part = sum - high, loss = (high - (sum - part)) + (x - part);
    high = sum;
    low += loss;
    lost += std::fabs(loss);
  }
};

struct Unweighted {};

// A lower bound of the margin of list i. `weight` is Unweighted, or a function of the node that gives w >= 0. NaN where
// a value or weight is not finite, a weight is negative, or the sums overflow; repeated entries are summed.
//
// u = 2^-53, m entries. Sums are exact up to the losses, of which `low` knows the sum up to (m + 3) u lost; a product
// with a weight adds u |M_ij| w_j and half of the smallest number; then come low to high and the last subtraction,
// u |result| each. Terms of second order are below 2 m u of the bound of the first. Adding never underflows, but where
// it flushes, each of the 8 operations of `add` loses up to the smallest normal number, and so does reading a value or a
// weight, each of its own type.
template <class V, class Weight = Unweighted>
double margin(const V& view, std::int64_t i, Weight weight = {}) {
  using T = typename V::value_type;
  constexpr bool weighted = !std::is_same_v<Weight, Unweighted>;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(), u = std::numeric_limits<double>::epsilon() / 2;
  KeptSum off, diagonal;
  double products = 0, value_size = 0, weight_size = weighted ? 0 : 1;
  bool valid = true;
  view.each(i, [&](std::int64_t j, double value, std::int64_t) {
    double w = 1;
    if constexpr (weighted) {
      w = weight(j);
      valid = valid && w >= 0;
      value_size = std::max(value_size, std::fabs(value));
      weight_size = std::max(weight_size, w);
      value *= w;
      products += std::fabs(value);
    }
    if (j == i)
      diagonal.add(value);
    else
      off.add(std::fabs(value));
  });
  if (!valid) return nan;
  // With the wrong sign of a diagonal that cancels to nothing, the bound would be one of less.
  const double sign = diagonal.high + diagonal.low < 0 ? -1 : 1;
  KeptSum sum{sign * diagonal.high, sign * diagonal.low - off.low, diagonal.lost + off.lost};
  sum.add(-off.high);
  const double m = static_cast<double>(view.count(i));
  double tiny = 0;
  if (flushes())
    tiny = (8 * m + 32) * std::numeric_limits<double>::min() +
           m * (static_cast<double>(std::numeric_limits<T>::min()) * weight_size +
                std::numeric_limits<double>::min() * value_size);
  const double result = sum.high + sum.low;
  if (sum.lost == 0 && tiny == 0 && (!weighted || m == 0)) return result;
  const double slack = u * ((m + 8) * sum.lost + products + 2 * std::fabs(result));
  return result - (slack * (1 + 4 * (m + 8) * u) + (m + 8) * std::numeric_limits<double>::denorm_min() + tiny);
}

// The same with an array of weights, or null for none.
template <class V>
double margin(const V& view, std::int64_t i, const double* weights) {
  if (!weights) return margin(view, i);
  return margin(view, i, [weights](std::int64_t j) { return weights[j]; });
}

// Margins of some lists, given by their numbers.
template <class P, class I, class T>
void margins_at(const View<P, I, T>& view, const double* weights, const std::int64_t* node, std::int64_t count, double* out) {
  for (std::int64_t k = 0; k < count; ++k) {
    if (static_cast<std::uint64_t>(node[k]) >= static_cast<std::uint64_t>(view.n))
      malformed("nodes must lie in [0, " + std::to_string(view.n) + "); got " + std::to_string(node[k]) + ".");
    out[k] = margin(view, node[k], weights);
  }
}

// Margins of the lists first <= i < last. Threads; the message about a damaged matrix is that of the first bad list.
template <class P, class I, class T>
void margins(const View<P, I, T>& view, const double* weights, std::int64_t first, std::int64_t last, double* out) {
  constexpr std::int64_t size = std::int64_t{1} << 12;
  const std::int64_t chunks = (last - first + size - 1) / size;
  std::atomic<std::int64_t> failed{chunks};
  std::exception_ptr error;
  std::mutex guard;
  const std::int64_t work = view.n ? static_cast<std::int64_t>(8.0 * static_cast<double>(last - first) *
                                                               (1 + static_cast<double>(view.stored) / view.n))
                                   : 0;
  for_chunks(chunks, work, [&](std::int64_t chunk) {
    if (failed.load() < chunk) return;
    try {
      const std::int64_t begin = first + chunk * size, end = std::min(begin + size, last);
      for (std::int64_t i = begin; i < end; ++i) out[i - first] = margin(view, i, weights);
    } catch (const std::exception&) {
      const std::lock_guard lock(guard);
      if (chunk < failed.load()) {
        failed.store(chunk);
        error = std::current_exception();
      }
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace backsolve::local
