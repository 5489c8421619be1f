// Gaussian elimination along pivots that are known, for many matrices on one Pattern: the lists. lanes.hpp computes.
//
// The columns of M = A^T are the rows of A. With row scales S, rows and columns of S^-1 M in pivotal order are K, upper
// block triangular. Each diagonal block is L U, with L unit lower and U upper triangular; blocks above the diagonal stay
// as they are. So column k of K needs three lists: entries above its block, entries of U above the pivot (both in
// `upper`, in this order), and entries of L below the pivot. Values of L, U and pivots are double or complex double.
//
// Columns that share most of what is subtracted from them are eliminated together, as panels of up to 4: L is then read
// once for all of them. Each column meets the others in the same order as alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "pattern.hpp"

namespace backsolve {

// Lists of indices, one for each column.
struct Columns {
  std::vector<std::int32_t> indptr, indices;
  std::int64_t nnz() const { return static_cast<std::int64_t>(indices.size()); }
};

class Elimination {
 public:
  const Pattern<std::int32_t>& pattern;
  std::int64_t n;
  std::vector<std::int32_t> row, place;  // row[i]: row of M at position i; place: its inverse
  std::vector<std::int32_t> column;      // column[k]: column of M at position k
  std::vector<std::int32_t> first;       // first[k]: where the diagonal block of column k begins
  Columns lower, upper;
  std::vector<std::int32_t> panels;  // bounds of the panels
  Columns before;                    // for each panel the columns before it that any of its own lists in `upper`

  // blocks are the bounds of the diagonal blocks; the indices of L and U are positions in the whole of K.
  Elimination(const Pattern<std::int32_t>& pattern_, const std::int32_t* rows, const std::int32_t* columns,
              const std::int32_t* blocks, std::int64_t block_count, const std::int32_t* l_count,
              const std::int32_t* l_indices, std::int64_t l_nnz, const std::int32_t* u_count,
              const std::int32_t* u_indices, std::int64_t u_nnz)
      : pattern(pattern_), n(pattern_.n_rows) {
    const auto refuse = [](bool bad) {
      if (bad) throw std::invalid_argument("Elimination: these pivots and factors do not belong to this Pattern");
    };
    refuse(pattern.n_cols != n);
    row.assign(rows, rows + n);
    column.assign(columns, columns + n);
    place.assign(static_cast<std::size_t>(n), -1);
    first.assign(static_cast<std::size_t>(n), -1);
    std::vector<bool> taken(static_cast<std::size_t>(n), false);
    for (std::int64_t i = 0; i < n; ++i) {
      refuse(row[i] < 0 || row[i] >= n || place[row[i]] >= 0);
      place[row[i]] = static_cast<std::int32_t>(i);
      refuse(column[i] < 0 || column[i] >= n || taken[column[i]]);
      taken[column[i]] = true;
    }
    refuse(blocks[0] != 0 || blocks[block_count] != n);
    for (std::int64_t block = 0; block < block_count; ++block) {
      refuse(blocks[block + 1] <= blocks[block] || blocks[block + 1] > n);
      std::fill(first.begin() + blocks[block], first.begin() + blocks[block + 1], blocks[block]);
    }
    std::int64_t l = 0, u = 0;
    lower.indptr.assign(1, 0);
    upper.indptr.assign(1, 0);
    lower.indices.reserve(static_cast<std::size_t>(l_nnz));
    upper.indices.reserve(static_cast<std::size_t>(u_nnz));
    std::vector<std::int32_t> seen(static_cast<std::size_t>(n), -1);  // the last column that lists a position
    for (std::int64_t k = 0; k < n; ++k) {
      const auto& a = pattern.rows();
      const auto begin = a.indices.begin() + a.indptr[column[k]], end = a.indices.begin() + a.indptr[column[k] + 1];
      seen[k] = static_cast<std::int32_t>(k);
      for (auto at = begin; at < end; ++at)
        if (place[*at] < first[k]) {
          upper.indices.push_back(place[*at]);
          seen[place[*at]] = static_cast<std::int32_t>(k);
        }
      refuse(u_count[k] < 0 || u + u_count[k] > u_nnz || l_count[k] < 0 || l + l_count[k] > l_nnz);
      for (const auto stop = u + u_count[k]; u < stop; ++u) {
        refuse(u_indices[u] < first[k] || u_indices[u] >= k);
        upper.indices.push_back(u_indices[u]);
        seen[u_indices[u]] = static_cast<std::int32_t>(k);
      }
      for (const auto stop = l + l_count[k]; l < stop; ++l) {
        refuse(l_indices[l] <= k || l_indices[l] >= n || first[l_indices[l]] != first[k]);
        lower.indices.push_back(l_indices[l]);
        seen[l_indices[l]] = static_cast<std::int32_t>(k);
      }
      for (auto at = begin; at < end; ++at) refuse(seen[place[*at]] != k);
      std::sort(lower.indices.begin() + lower.indptr.back(), lower.indices.end());
      std::sort(upper.indices.begin() + upper.indptr.back(), upper.indices.end());
      lower.indptr.push_back(static_cast<std::int32_t>(lower.nnz()));
      upper.indptr.push_back(static_cast<std::int32_t>(upper.nnz()));
    }
    refuse(l != l_nnz || u != u_nnz || std::max(lower.nnz(), upper.nnz()) > std::numeric_limits<std::int32_t>::max());
    find_panels();
  }
  Elimination(const Elimination&) = delete;
  Elimination& operator=(const Elimination&) = delete;

  std::int64_t nnz() const { return lower.nnz() + upper.nnz() + n; }

 private:
  // Panels of 4 or 2 columns where that at least halves, or by a third reduces, how much of L is read.
  void find_panels() {
    panels.assign(1, 0);
    before.indptr.assign(1, 0);
    std::vector<std::int64_t> seen(static_cast<std::size_t>(n), -1);
    for (std::int32_t k = 0, width; k < n; k += width) {
      const std::size_t kept = before.indices.size();
      for (width = 4; width >= 1; width /= 2) {
        if (k + width > n || first[k + width - 1] != first[k]) continue;
        std::int64_t alone = 0, together = 0;
        before.indices.resize(kept);
        for (std::int32_t at = upper.indptr[k]; at < upper.indptr[k + width]; ++at) {
          const std::int32_t j = upper.indices[at];
          if (j >= k) continue;
          const std::int64_t size = lower.indptr[j + 1] - lower.indptr[j];
          alone += size;
          if (seen[j] == 4 * std::int64_t{k} + width) continue;
          seen[j] = 4 * std::int64_t{k} + width;
          together += size;
          before.indices.push_back(j);
        }
        if (width == 1 || 2 * alone >= (width == 4 ? 4 : 3) * together) break;
      }
      std::sort(before.indices.begin() + static_cast<std::ptrdiff_t>(kept), before.indices.end());
      before.indptr.push_back(static_cast<std::int32_t>(before.nnz()));
      panels.push_back(k + width);
    }
  }
};

}  // namespace backsolve
