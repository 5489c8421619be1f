// One side of a local solve: N x = b by pushes, where N is M (pushes read columns) or M^T (they read rows).
//
// A push at i adds the step omega r_i / N_ii to x_i and subtracts step N[:, i] from r: Gauss-Seidel (Southwell 1946) on
// the residual, which touches the neighbours of i and nobody else. Pushes go on first in, first out while
// |r_i| > eps weight_i; the caller lowers eps geometrically. Weights say in which sense N is dominant:
//   rows     weight_i = (<N> w)_i, a lower bound of the margin: afterwards |x - x^|_i <= eps w_i.
//   columns  weight_i = entries of column i / v_i: then sum v|r| falls by at least its share of each push, and the work
//            is at most |b|_1 / (omega delta eps) (Andersen, Chung & Lang 2006).
// w and v are barriers, 1 unless given. What is certified is never r as pushed, but the residual made anew from x.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "local_margins.hpp"
#include "local_nodes.hpp"
#include "local_sites.hpp"
#include "local_view.hpp"
#include "subnormals.hpp"

namespace backsolve::local {

// Sites: where the state of the nodes lies. The lists that kernels read may be `fetched` ones, of which some are not
// there: a push that needs one waits, and what it needs is said by `wanted`.
template <class Sites>
class BasicSide {
 public:
  explicit BasicSide(std::int64_t n) : n_(n), site_(n) {}

  std::int64_t n() const { return n_; }
  std::int64_t work() const { return work_; }      // entries read by pushes, and for margins that were not kept
  std::int64_t pushes() const { return pushes_; }
  std::int64_t volume() const { return volume_; }  // entries of the lists that have been pushed, each counted once
  const std::vector<std::int64_t>& touched() const { return touched_; }
  const Site* find(std::int64_t i) const { return site_.find(i); }
  double tau(const Site& s) const { return s.place <= tau_.size() ? tau_[s.place - 1] : 0; }

  // Takes time for what was touched only.
  void clear() {
    site_.clear(touched_);
    touched_.clear();
    tau_.clear();
    terms_.clear();
    work_ = pushes_ = volume_ = 0;
    columns_hold_ = true;
  }

  // r += value at each index.
  template <class V>
  void load(const V& columns, const V& rows, const Weights& weights, const std::int64_t* index, const double* value,
            std::int64_t count) {
    const Subnormals kept;
    for (std::int64_t k = 0; k < count; ++k) {
      if (static_cast<std::uint64_t>(index[k]) >= static_cast<std::uint64_t>(n_))
        malformed("the right-hand side has the index " + std::to_string(index[k]) + "; it must lie in [0, " +
                  std::to_string(n_) + ").");
      touch(columns, rows, weights, index[k]).r += value[k];
    }
  }

  // Pushes while |r_i| > eps weight_i somewhere, or until `budget` entries have been read, or as long as the lists that
  // are there suffice. Whether it is done.
  template <class V>
  bool push(const V& columns, const V& rows, const Weights& weights, double eps, double omega, std::int64_t budget) {
    const Subnormals kept;
    queue_.clear();
    for (const std::int64_t i : touched_) {
      Site& s = site_[i];
      s.queued = waits(s, eps);
      if (s.queued) queue_.push_back(i);
    }
    bool waiting = false;
    const std::int64_t limit = work_ + std::min(budget, std::numeric_limits<std::int64_t>::max() - work_);
    while (!queue_.empty()) {
      next_.clear();
      const bool far = touched_.size() > kNear;
      for (std::size_t at = 0; at < queue_.size(); ++at) {
        if (work_ >= limit) return false;
        if (far) prefetch_ahead(columns, weights, at);
        const std::int64_t i = queue_[at];
        Site& s = site_[i];
        s.queued = 0;
        if (!waits(s, eps)) continue;
        if constexpr (V::fetched) {
          if (weights.sense == Sense::columns) s.weight = column_weight(columns, weights, i);
          if (!waits(s, eps)) continue;
          if (!ready(columns, rows, weights, i)) {
            s.queued = waiting = true;  // it stays so for this call, and is not looked at again
            continue;
          }
          if (weights.sense == Sense::columns) s.weight = column_weight(columns, weights, i);
          if (!waits(s, eps)) continue;
        }
        const double d = columns.diagonal(i), step = omega * s.r / d;
        if (!(std::fabs(d) > 0 && std::fabs(d) < kInfinite)) bad_diagonal(columns, i, d);
        if (!(std::fabs(step) >= kNormal && std::fabs(step) < kInfinite)) continue;  // what is left, the bound will count
        if (s.x == 0) enter(columns, weights, i);
        s.x += step;
        const std::int64_t count = columns.count(i);
        std::int64_t* end = next_.room(count);
        const auto take = [&](std::int64_t j, double value, std::int64_t) {
          Site& t = touch(columns, rows, weights, j);
          t.r -= value * step;
          const bool enters = !t.queued & waits(t, eps);
          *end = j;
          end += enters;
          t.queued |= enters;
        };
        if (far)
          columns.each(i, take, [&](std::int64_t j) { prefetch_site(columns, weights, j); });
        else
          columns.each(i, take);
        next_.end_at(end);
        work_ += count;
        ++pushes_;
      }
      queue_.swap(next_);
    }
    return !waiting;
  }

  // Whether a push at i needs no list that is not there; those that it needs become wanted.
  template <class V>
  bool ready(const V& columns, const V& rows, const Weights& weights, std::int64_t i) {
    if (!columns.known(i)) {
      wanted_columns.push_back(i);
      return false;
    }
    if (weights.sense == Sense::columns) return true;
    const std::size_t before = wanted_rows.size();
    columns.each(i, [&](std::int64_t j, double, std::int64_t) {
      if (!rows.known(j)) wanted_rows.push_back(j);
    });
    return wanted_rows.size() == before;
  }

  std::vector<std::int64_t> wanted_columns, wanted_rows;  // of N; whoever fetches them clears these

  // x_i += step at each index, r -= N step.
  template <class V>
  void add(const V& columns, const V& rows, const Weights& weights, const std::int64_t* index, const double* step,
           std::int64_t count) {
    const Subnormals kept;
    for (std::int64_t k = 0; k < count; ++k) {
      const std::int64_t i = index[k];
      if (static_cast<std::uint64_t>(i) >= static_cast<std::uint64_t>(n_)) malformed("an index of the step is out of range");
      if (step[k] == 0) continue;
      Site& s = touch(columns, rows, weights, i);
      if (s.x == 0) enter(columns, weights, i);
      s.x += step[k];
      columns.each(i, [&](std::int64_t j, double value, std::int64_t) {
        touch(columns, rows, weights, j).r -= value * step[k];
      });
      work_ += columns.count(i);
    }
  }

  // Makes r = b - N x anew, and tau, which bounds what rounding did to it:
  // tau_k = gamma(m_k + 2) (|b| + |N| |x|)_k + 4 (m_k + 2) least, m_k the terms of its sum.
  //
  // r_k is a sum of m_k products, or b_k among them: each term passes at most one product and m_k additions, so that
  // rounding does at most gamma(m_k + 1) T, T the sum of their moduli (Higham 2002, section 3.1; in any order). T itself
  // is summed the same way, so that T <= (1 + 2 gamma(m_k + 1)) times its computed value; gamma, its two products and
  // the last sum round 6 times. Where a product underflows, and where numbers below the normal ones are flushed also
  // where a sum does, r and T lose up to `least` each time: at most 2 (m_k + 1) times, and 4 times in the last line.
  // Rows without a touched unknown or b_k have r_k = 0 exactly.
  template <class V>
  void recompute(const V& columns, const V& rows, const Weights& weights, const std::int64_t* index,
                 const double* value, std::int64_t count) {
    const Subnormals kept;
    for (const std::int64_t i : touched_) site_[i].r = 0;
    tau_.assign(touched_.size(), 0);
    terms_.assign(touched_.size(), 0);
    const auto part = [&](std::int64_t j, double change) {
      Site& t = touch(columns, rows, weights, j);
      if (t.place > tau_.size()) tau_.resize(t.place, 0), terms_.resize(t.place, 0);
      t.r += change;
      tau_[t.place - 1] += std::fabs(change);
      ++terms_[t.place - 1];
    };
    for (std::int64_t k = 0; k < count; ++k) part(index[k], value[k]);
    const std::size_t before = touched_.size();
    for (std::size_t at = 0; at < before; ++at) {
      const std::int64_t i = touched_[at];
      const double x = site_[i].x;
      if (x != 0) columns.each(i, [&](std::int64_t j, double v, std::int64_t) { part(j, -v * x); });
    }
    const double tiny = 4 * least();
    for (std::size_t at = 0; at < touched_.size(); ++at) {
      const double m = terms_[at];
      tau_[at] = gamma(m + 2) * tau_[at] * (1 + 2 * gamma(m + 4)) + tiny * (m + 2);
    }
  }

  // Bounds of the error in each sense that N is dominant in, from r and tau, rounded upwards.
  //
  // Each quotient passes 2 roundings and each term of the sum at most N + 2, N the touched: the computed bounds are at
  // least 1 - gamma(N + 2) times the exact ones, less half of the least number for each operation that underflows.
  // Margins are lower bounds already; sizes are checked for NaN, as std::max drops it.
  template <class V>
  Bounds bounds(const V& rows, const Weights& weights) const {
    const Subnormals kept;
    Bounds found;
    double largest = 0, sum = 0, longest = 0;
    for (std::size_t at = 0; at < touched_.size(); ++at) {
      const std::int64_t k = touched_[at];
      const Site& s = site_[k];
      const double size = std::fabs(s.r) + (at < tau_.size() ? tau_[at] : 0);
      sum += size * (weights.v ? weights.v[k] : 1);
      longest = std::max(longest, at < terms_.size() ? static_cast<double>(terms_[at]) : 0.0);
      if (weights.rows) {
        const double below = weights.sense == Sense::rows ? s.weight : row_margin(rows, weights, k);
        if (!(below > 0)) {
          found.weakest = k;
          largest = kInfinite;
        } else {
          largest = std::max(largest, size / below);
        }
      }
      if (!std::isfinite(size)) sum = kInfinite, largest = kInfinite;
    }
    const double up = 1 + 4 * gamma(longest + static_cast<double>(touched_.size()) + 16);
    const double few = touched_.empty() ? 0 : 4 * least(), many = touched_.empty() ? 0 : static_cast<double>(touched_.size()) + 4;
    if (weights.rows) found.rows = largest * up + few;
    if (weights.columns && columns_hold_) found.columns = sum * up + many * least();
    return found;
  }

  // The largest eps at which a push is waiting: max |r_i| / weight_i; and how the residual stands: sum v |r|.
  std::pair<double, double> standing(const Weights& weights) const {
    double largest = 0, sum = 0;
    for (const std::int64_t i : touched_) {
      const Site& s = site_[i];
      if (!(std::fabs(s.r) >= kNormal)) continue;
      largest = std::max(largest, std::fabs(s.r) / s.weight);
      sum += std::fabs(s.r) * (weights.v ? weights.v[i] : 1);
    }
    return {largest, sum};
  }

 private:
  // Below the normal numbers a push would leave as much as it takes, and go on for ever.
  static bool waits(const Site& s, double eps) {
    const double size = std::fabs(s.r);
    return (size > eps * s.weight) & (size >= kNormal);
  }

  // Unknown i is about to leave zero. Certificates by columns rest on its column too, which is read now anyway.
  template <class V>
  void enter(const V& columns, const Weights& weights, std::int64_t i) {
    volume_ += columns.count(i);
    if (!weights.columns || weights.kept) return;
    work_ += columns.count(i);
    const double below = margin(columns, i, weights.v);
    if (below > 0) return;
    if (weights.sense == Sense::columns) bad_margin(columns, i, below);
    columns_hold_ = false;
  }

  template <class V>
  Site& touch(const V& columns, const V& rows, const Weights& weights, std::int64_t i) {
    Site& s = site_[i];
    if (!s.place) {
      if (touched_.size() >= std::numeric_limits<std::uint32_t>::max()) malformed("more than 4294967295 unknowns touched");
      const double weight = weights.sense == Sense::rows ? row_margin(rows, weights, i)
                                                         : column_weight(columns, weights, i);
      if (weights.sense == Sense::rows && !(weight > 0)) bad_margin(rows, i, weight);
      if (weights.sense == Sense::rows && !weights.kept) work_ += rows.count(i);
      touched_.push_back(i);
      s.place = static_cast<std::uint32_t>(touched_.size());
      s.weight = weight;
    }
    return s;
  }

  // Of a column that is not there yet, what is expected of it.
  template <class V>
  static double column_weight(const V& columns, const Weights& weights, std::int64_t i) {
    const std::int64_t count = columns.known(i) ? columns.count(i) : columns.expected(i);
    return static_cast<double>(std::max<std::int64_t>(count, 1)) / (weights.v ? weights.v[i] : 1);
  }

  template <class V>
  static double row_margin(const V& rows, const Weights& weights, std::int64_t i) {
    return weights.kept ? weights.kept[i] : margin(rows, i, weights.w);
  }

  // What pushes further down the queue will read: each stage needs what the one before has asked for.
  template <class V>
  void prefetch_ahead(const V& columns, const Weights& weights, std::size_t at) const {
    if (at + 12 < queue_.size()) columns.prefetch(queue_[at + 12]), site_.prefetch(queue_[at + 12]);
    if (at + 8 < queue_.size()) columns.prefetch_entries(queue_[at + 8]);
    if (at + 4 < queue_.size())
      columns.prefetch_targets(queue_[at + 4], [&](std::int64_t j) { prefetch_site(columns, weights, j); });
  }
  // The state of an unknown, and what its weight is made of at first touch.
  template <class V>
  void prefetch_site(const V& columns, const Weights& weights, std::int64_t j) const {
    site_.prefetch(j);
    if (weights.sense == Sense::columns) columns.prefetch(j);
    if (weights.kept) ask(weights.kept + j);
  }

  template <class V>
  [[noreturn, gnu::cold, gnu::noinline]] void bad_margin(const V& rows, std::int64_t i, double weight) const {
    malformed(std::string(rows.name) + " " + std::to_string(i) +
              (std::isnan(weight) ? " has a value that is not finite" : " is not dominant: its diagonal entry does not exceed the sum of the others by more than rounding") +
              "; every " + rows.name + " that is met must be strictly dominant for this certificate.");
  }
  template <class V>
  [[noreturn, gnu::cold, gnu::noinline]] void bad_diagonal(const V& columns, std::int64_t i, double d) const {
    malformed(std::string(columns.name) + " " + std::to_string(i) + " has the diagonal entry " + std::to_string(d) +
              "; diagonal entries must be stored, finite and not zero.");
  }

  std::int64_t n_ = 0, work_ = 0, pushes_ = 0, volume_ = 0;
  bool columns_hold_ = true;  // no pushed column is known not to be dominant
  Sites site_;
  std::vector<std::int64_t> touched_;
  NodeList queue_, next_;
  std::vector<double> tau_;
  std::vector<std::uint32_t> terms_;
};

using Side = BasicSide<PagedSites>;

}  // namespace backsolve::local
