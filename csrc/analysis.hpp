// Facts about a matrix: margins of dominance without rounding, the fill of a Cholesky factor without values, and a
// Cholesky factorization that tells where it breaks down, and along which vector.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "pattern.hpp"

namespace backsolve {

// A sum of doubles held without error: parts of growing size that do not overlap (Shewchuk 1997).
class ExactSum {
 public:
  void clear() { parts_.clear(); }
  void add(double x) {
    std::size_t kept = 0;
    for (double y : parts_) {
      if (std::fabs(x) < std::fabs(y)) std::swap(x, y);
      const double high = x + y, low = y - (high - x);
      if (low != 0) parts_[kept++] = low;
      x = high;
    }
    parts_.resize(kept);
    parts_.push_back(x);
  }
  // Rounded down; of the same sign as the sum, since that is a multiple of the smallest double.
  double floor() const {
    double high = 0;
    for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
      const double x = high, y = *part;
      high = x + y;
      const double low = y - (high - x);
      if (low < 0) return std::nextafter(high, -std::numeric_limits<double>::infinity());
      if (low > 0) return high;
    }
    return high;
  }

 private:
  std::vector<double> parts_;
};

// Bounds of a modulus: itself where it is a number that the type holds, else moved by more than the error of hypot.
template <class T>
double modulus(const T& v, int direction) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::fabs(static_cast<double>(v));
  } else {
    const double re = std::fabs(static_cast<double>(v.real())), im = std::fabs(static_cast<double>(v.imag()));
    if (re == 0 || im == 0) return re + im;
    constexpr double ulps = 4 * std::numeric_limits<double>::epsilon();
    return std::hypot(re, im) * (1 + direction * ulps);
  }
}

// |a_ii| - sum_{j != i} |a_ij| of each row, rounded down: exact in sign for real values, a lower bound for complex ones.
// With the rows of the transpose, the margins of the columns.
template <class I, class T>
void margins(const Rows<I>& rows, bool transposed, const T* values, double* out) {
  ExactSum sum;
  const std::int64_t n = static_cast<std::int64_t>(rows.indptr.size()) - 1;
  for (std::int64_t i = 0; i < n; ++i) {
    sum.clear();
    for (I e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e) {
      const T& v = values[transposed ? rows.slot[e] : e];
      sum.add(rows.indices[e] == i ? modulus(v, -1) : -modulus(v, 1));
    }
    out[i] = sum.floor();
  }
}

// The elimination tree of a symmetric pattern, parent -1 at roots, and the entries of each column of its Cholesky
// factor, the diagonal one included.
template <class I>
struct Symbolic {
  std::vector<I> parent, counts;
};

// Liu 1990: row i of the factor is the subtree that the entries of row i of A span, and i becomes the parent of its
// roots. Links to ancestors are shortened on the way.
template <class I>
std::vector<I> elimination_tree(const Rows<I>& rows) {
  const I n = static_cast<I>(rows.indptr.size() - 1);
  std::vector<I> parent(n, I{-1}), shortcut(n, I{-1});
  for (I i = 0; i < n; ++i)
    for (I e = rows.indptr[i]; e < rows.indptr[i + 1]; ++e)
      for (I j = rows.indices[e]; j >= 0 && j < i;) {
        const I next = shortcut[j];
        shortcut[j] = i;
        if (next < 0) parent[j] = i;
        j = next;
      }
  return parent;
}

// Children before their parents, and each subtree in one piece.
template <class I>
std::vector<I> postorder(const std::vector<I>& parent) {
  const I n = static_cast<I>(parent.size());
  std::vector<I> child(n, I{-1}), sibling(n, I{-1}), order, stack;
  order.reserve(n);
  for (I j = n - 1; j >= 0; --j)
    if (parent[j] >= 0) {
      sibling[j] = child[parent[j]];
      child[parent[j]] = j;
    }
  for (I root = 0; root < n; ++root) {
    if (parent[root] >= 0) continue;
    stack.push_back(root);
    while (!stack.empty()) {
      const I top = stack.back(), down = child[top];
      if (down >= 0) {
        child[top] = sibling[down];
        stack.push_back(down);
      } else {
        order.push_back(top);
        stack.pop_back();
      }
    }
  }
  return order;
}

// Gilbert, Ng and Peyton 1994, O(nnz α(nnz, n)). Column j counts the row subtrees that contain j. A subtree is the
// union of the paths from its leaves to its root i, so it adds one at each leaf, takes one away where the paths from two
// neighbouring leaves meet, and one at the parent of i; sums over descendants then count. In postorder, j is a leaf of
// subtree i if no descendant of j was one before.
template <class I>
Symbolic<I> symbolic(const Rows<I>& rows) {
  const I n = static_cast<I>(rows.indptr.size() - 1);
  std::vector<I> parent = elimination_tree(rows), order = postorder(parent);
  std::vector<I> first(n, I{-1}), newest(n, I{-1}), last(n, I{-1}), ahead(n), counts(n, I{0});
  for (I k = 0; k < n; ++k)
    for (I j = order[k]; j >= 0 && first[j] < 0; j = parent[j]) first[j] = k;
  std::iota(ahead.begin(), ahead.end(), I{0});
  const auto meet = [&ahead](I j) {
    I root = j;
    while (ahead[root] != root) root = ahead[root];
    while (ahead[j] != root) j = std::exchange(ahead[j], root);
    return root;
  };
  for (I k = 0; k < n; ++k) {
    const I j = order[k];
    if (first[j] == k) ++counts[j];  // a leaf of the whole tree: its own subtree is this one node
    if (parent[j] >= 0) --counts[parent[j]];
    for (I e = rows.indptr[j]; e < rows.indptr[j + 1]; ++e) {
      const I i = rows.indices[e];
      if (i <= j || first[j] <= newest[i]) continue;
      newest[i] = first[j];
      ++counts[j];
      if (last[i] >= 0) --counts[meet(last[i])];
      last[i] = j;
    }
    if (parent[j] >= 0) ahead[j] = parent[j];
  }
  for (const I j : order)
    if (parent[j] >= 0) counts[parent[j]] += counts[j];
  return {std::move(parent), std::move(counts)};
}

// Entries of the longest row of the Cholesky factor, the diagonal one included: O(entries of the factor).
template <class I>
std::int64_t longest_row(const Rows<I>& rows) {
  const std::vector<I> parent = elimination_tree(rows);
  const I n = static_cast<I>(parent.size());
  std::vector<I> mark(n, I{-1});
  std::int64_t longest = 0;
  for (I i = 0; i < n; ++i) {
    std::int64_t length = 1;
    mark[i] = i;
    for (I e = rows.indptr[i]; e < rows.indptr[i + 1] && rows.indices[e] < i; ++e)
      for (I j = rows.indices[e]; mark[j] != i; j = parent[j], ++length) mark[j] = i;
    longest = std::max(longest, length);
  }
  return longest;
}

// Cholesky, row by row, of A - shift I for Hermitian A, of which the lower triangle is read. `row` is -1 if it runs to
// the end; else the row whose pivot is not positive, and v, zero behind it, makes vᴴ (A - shift I) v that pivot.
template <class T>
struct Breakdown {
  std::int64_t row;
  std::vector<T> v;
};

template <class I, class T>
Breakdown<T> cholesky(const Rows<I>& rows, const T* values, double shift) {
  const I n = static_cast<I>(rows.indptr.size() - 1);
  const auto [parent, counts] = symbolic(rows);
  std::vector<std::int64_t> begin(static_cast<std::size_t>(n) + 1, 0);
  for (I j = 0; j < n; ++j) begin[j + 1] = begin[j] + counts[j] - 1;
  std::vector<std::int64_t> end(begin.begin(), begin.end() - 1);
  std::vector<I> below(begin[n]), mark(n, I{-1}), path, reached;
  std::vector<T> factor(begin[n]), x(n, T{});
  std::vector<double> pivot(n);
  for (I i = 0; i < n; ++i) {
    double square_of_pivot = -shift;
    reached.clear();
    mark[i] = i;
    for (I e = rows.indptr[i]; e < rows.indptr[i + 1] && rows.indices[e] <= i; ++e) {
      I j = rows.indices[e];
      if (j == i) {
        square_of_pivot = std::real(values[e]) - shift;
        continue;
      }
      x[j] = values[e];
      for (path.clear(); mark[j] != i; j = parent[j]) {
        mark[j] = i;
        path.push_back(j);
      }
      reached.insert(reached.end(), path.rbegin(), path.rend());
    }
    // Every path was put behind those that it leads to: from the back, columns come before the ones they change.
    for (auto at = reached.rbegin(); at != reached.rend(); ++at) {
      const I k = *at;
      const T l = x[k] / pivot[k];
      x[k] = T{};
      for (std::int64_t p = begin[k]; p < end[k]; ++p) x[below[p]] -= times(l, conjugate(factor[p]));
      square_of_pivot -= std::norm(l);
      below[end[k]] = i;
      factor[end[k]++] = l;
    }
    if (!(square_of_pivot > 0)) {
      // A - shift I = [[L Lᴴ, L lᴴ], [l Lᴴ, a]] in its first rows: v = (-L⁻ᴴ lᴴ, 1).
      std::vector<T> v(n, T{});
      v[i] = T{1};
      for (I k = i - 1; k >= 0; --k) {
        T sum{};
        for (std::int64_t p = begin[k]; p < end[k]; ++p) sum += times(conjugate(factor[p]), v[below[p]]);
        v[k] = -sum / pivot[k];
      }
      return {i, std::move(v)};
    }
    pivot[i] = std::sqrt(square_of_pivot);
  }
  return {-1, {}};
}

}  // namespace backsolve
