// Pushes along the edges of a graph: Gauss-Seidel on the residual of M x = b, touching what the mass reaches.
//
// M = I - f P^T, where row v of P holds the weights of v's edges, divided by their sum (PageRank) or not (Katz). A push
// at v moves (a part w of) r_v into x_v and f P_vj r_v into r_j of every neighbour j. It goes on in rounds (first in,
// first out) until |r_v| <= theta scale_v everywhere; theta falls geometrically (local_pagerank.hpp).
//
// Nobody recomputes the residual: `drift` bounds the 1-norm of what rounding has put between r and the residual of the
// stored x, by running error analysis (Wilkinson; Higham 2002, section 3.3). With u = 2^-53, one push of the amount a
// at v, row strength d, coefficient c = fl(fl(f a) / d), adds at most
//   u |x_v new| (1 + f)     x_v + a is rounded: the amount that x_v took differs from a, and M's column has norm 1 + f
//   u |r_v new|             r_v - a is rounded
//   6 u f |a|               c w: products, the quotient, and d (summed in doubled precision: error below 2 u d);
//                           both f are f d where rows are not divided by their strength
//   u |r_j new| for each j  the additions
// and 2^-500 for each edge, which covers underflow, as strengths lie in [2^-500, 2^500].
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "local_view.hpp"

namespace backsolve::pagerank {

using local::malformed;
using local::Pages;
using local::View;

inline constexpr double kUnit = 0x1p-53;
inline constexpr double kTiny = 0x1p-500;

#if defined(__GNUC__)
inline void prefetch(const void* p) { __builtin_prefetch(p); }
#else
inline void prefetch(const void*) {}
#endif

// What a neighbour needs when it is touched, four to a cache line. `scale` stays from query to query; the rest is
// cleared through the list of touched nodes.
struct Node {
  double r = 0;
  float scale = 0;  // weight of the threshold over Rule::unit; infinite where a push would reach nobody; 0: not yet known
  std::uint32_t state = 0;
};
inline constexpr std::uint32_t kQueued = 1u << 31, kTouched = 1u << 30, kPlace = kTouched - 1;

// A node that has been pushed, or is a seed.
struct Active {
  std::int64_t id;
  double x;
};

// Weights of thresholds and bounds: the same number everywhere, the length of the row, or given.
enum class Scale : int { one = 0, length = 1, given = 2 };

struct Rule {
  double factor = 0;         // f
  double keep = 1;           // seeds are multiplied by it: 1 - f, or 1
  bool by_strength = true;   // rows are divided by their strength
  int dangling = 0;          // see local_pagerank.hpp
  Scale scale = Scale::one;
  double unit = 1;           // of scales: the largest, so that they fit a float
  double largest = 1;        // scale of all nodes, at most
  double least = 1;          // scale of nodes with edges, at least
  double margin = 0;         // every column of M: diagonal - the rest >= margin; no bound in the 1-norm where <= 0
  double scale_margin = 0;   // M scale >= scale_margin scale; no bound by the scale where <= 0
  double omega = 1;          // over-relaxation, given up in a query where a round raises the 1-norm of r
  bool positive = true;      // x >= 0 is known
};

// The graph: lists of edges, one row for each node, and sums of rows (null: lengths).
template <class P, class I, class T>
struct Graph {
  View<P, I, T> rows;  // val null: every weight is 1
  const double* strength = nullptr;
  const double* scale = nullptr;

  double strength_of(std::int64_t v, std::int64_t count) const {
    return strength ? strength[v] : static_cast<double>(count);
  }
};

// A list of nodes that is written beyond its end, into room that was made before.
class NodeList {
 public:
  std::int64_t* room(std::int64_t more) {
    const std::size_t need = size_ + static_cast<std::size_t>(more) + 1;
    if (need > store_.size()) store_.resize(std::max(need, 2 * store_.size()));
    return store_.data() + size_;
  }
  void end_at(const std::int64_t* end) { size_ = static_cast<std::size_t>(end - store_.data()); }
  void push_back(std::int64_t v) {
    *room(1) = v;
    ++size_;
  }
  void clear() noexcept { size_ = 0; }
  std::size_t size() const { return size_; }
  std::int64_t operator[](std::size_t q) const { return store_[q]; }
  const std::int64_t* begin() const { return store_.data(); }
  const std::int64_t* end() const { return store_.data() + size_; }

 private:
  std::vector<std::int64_t> store_;
  std::size_t size_ = 0;
};

class Worker {
 public:
  explicit Worker(std::int64_t n) : nodes(n) {}

  Pages<Node> nodes;
  NodeList touched;
  std::vector<Active> active;
  std::int64_t edges = 0, pushes = 0;
  double drift = 0, omega = 1;
  bool eager = true;  // to over-relax, until a round has raised the 1-norm

  // Everything as before the query; scales stay.
  void clear() noexcept {
    for (std::size_t q = 0; q < touched.size(); ++q) {
      ahead(q);
      nodes[touched[q]].r = 0;
      nodes[touched[q]].state = 0;
    }
    touched.clear();
    active.clear();
    queue_.clear();
    next_.clear();
    edges = pushes = 0;
    drift = 0;
    eager = true;
  }

  template <class G>
  void touch(const G& g, const Rule& rule, std::int64_t v) {
    Node& node = nodes[v];
    if (node.state & kTouched) return;
    touched.push_back(v);
    node.state |= kTouched;
    if (node.scale == 0) node.scale = scale_of(g, rule, v);
  }

  // Makes v active and returns its record.
  Active& record(std::int64_t v) {
    Node& node = nodes[v];
    if (!(node.state & kPlace)) {
      if (active.size() >= kPlace - 1) malformed("a query has reached more than 2^30 nodes.");
      active.push_back({v, 0.0});
      node.state |= static_cast<std::uint32_t>(active.size());
    }
    return active[(node.state & kPlace) - 1];
  }

  void enqueue_above(double theta) {
    for (std::size_t q = 0; q < touched.size(); ++q) {
      const std::int64_t v = touched[q];
      ahead(q);
      Node& node = nodes[v];
      if (std::fabs(node.r) > theta * node.scale && !(node.state & kQueued)) node.state |= kQueued, queue_.push_back(v);
    }
  }

  // Until nothing lies above theta; false if more than `budget` edges have been read before.
  template <class G>
  bool settle(const G& g, const Rule& rule, double theta, std::int64_t budget) {
    while (!queue_.empty()) {
      // Over-relaxation saves a third of the pushes where nodes are pushed again and again, and costs a tenth elsewhere.
      omega = eager && pushes > 2 * static_cast<std::int64_t>(active.size()) ? rule.omega : 1;
      double before = 0, after = 0;  // the part of the 1-norm that this round changes
      for (std::size_t q = 0; q < queue_.size(); ++q) {
        look_ahead(g, q);
        if (edges > budget) return false;
        if (g.rows.val) {
          if (g.rows.slot) push<true, true>(g, rule, queue_[q], theta, before, after);
          else push<true, false>(g, rule, queue_[q], theta, before, after);
        } else {
          push<false, false>(g, rule, queue_[q], theta, before, after);
        }
      }
      if (after > before) eager = false;
      queue_.clear();
      queue_.swap(next_);
    }
    return true;
  }

  // The residual anew, from x and what `add_seeds` adds to it: drift is then of the order of one addition for each edge,
  // however many pushes there were. Nothing may be queued.
  template <class G, class AddSeeds>
  void refresh(const G& g, const Rule& rule, const AddSeeds& add_seeds) {
    for (const std::int64_t v : touched) nodes[v].r = 0;
    drift = 0;
    add_seeds();
    for (const Active& one : active) {
      const auto [first, last] = g.rows.range(one.id);
      const double d = g.strength_of(one.id, last - first);
      const double c = rule.by_strength ? rule.factor * one.x / d : rule.factor * one.x;
      double size = std::fabs(nodes[one.id].r -= one.x);
      for (std::int64_t k = first; k < last; ++k) {
        const std::int64_t j = g.rows.idx[k], s = g.rows.slot ? static_cast<std::int64_t>(g.rows.slot[k]) : k;
        if (static_cast<std::uint64_t>(j) >= static_cast<std::uint64_t>(g.rows.n)) g.rows.bad_index(one.id, k);
        if (static_cast<std::uint64_t>(s) >= static_cast<std::uint64_t>(g.rows.values)) g.rows.bad_slot(one.id, k);
        size += std::fabs(nodes[j].r += g.rows.val ? c * static_cast<double>(g.rows.val[s]) : c);
      }
      const double norm = rule.by_strength ? rule.factor : rule.factor * d;
      drift += kUnit * (6 * norm * std::fabs(one.x) + size) + kTiny * static_cast<double>(last - first);
      edges += last - first;
    }
  }

  // For loops over `touched`, at q.
  void ahead(std::size_t q) const {
    if (q + 16 < touched.size()) prefetch(&nodes[touched[q + 16]]);
  }

 private:
  // Rows are short: what hides the way to memory is to ask for the neighbours of the rows that come next.
  template <class G>
  void look_ahead(const G& g, std::size_t q) const {
    const auto& rows = g.rows;
    const auto coming = [&](std::size_t more) { return queue_[std::min(q + more, queue_.size() - 1)]; };
    const std::int64_t far = coming(12), near = coming(6), soon = coming(3);
    prefetch(&rows.ptr[far]);
    prefetch(&nodes[far]);
    const std::int64_t start = rows.ptr[near];
    if (start >= 0 && start < rows.stored) prefetch(&rows.idx[start]), prefetch(&rows.idx[std::min(start + 15, rows.stored - 1)]);
    if (const std::uint32_t place = nodes[near].state & kPlace) prefetch(&active[place - 1]);
    const std::int64_t first = rows.ptr[soon], last = std::min<std::int64_t>(rows.ptr[soon + 1], first + 32);
    if (first < 0 || last > rows.stored) return;
    for (std::int64_t k = first; k < last; ++k)
      if (const std::int64_t j = rows.idx[k]; j >= 0 && j < rows.n) prefetch(&nodes[j]);
  }

  template <class G>
  float scale_of(const G& g, const Rule& rule, std::int64_t v) const {
    const std::int64_t count = g.rows.count(v);
    if (!count || (g.strength && !(g.strength[v] > 0))) return std::numeric_limits<float>::infinity();
    const double w = rule.scale == Scale::one ? 1.0 : rule.scale == Scale::length ? static_cast<double>(count) : g.scale[v];
    return std::max(static_cast<float>(w / rule.unit), std::numeric_limits<float>::denorm_min());
  }

  template <bool Weighted, bool Slots, class G>
  void push(const G& g, const Rule& rule, std::int64_t v, double theta, double& before, double& after) {
    const auto& rows = g.rows;
    Node& node = nodes[v];
    node.state &= ~kQueued;
    const double r = node.r;
    if (!(std::fabs(r) > theta * node.scale)) return;
    const auto [first, last] = rows.range(v);
    const double amount = omega * r, rest = r - amount, d = g.strength_of(v, last - first);
    Active& mine = record(v);
    mine.x += amount;
    node.r = rest;
    const double c = rule.by_strength ? rule.factor * amount / d : rule.factor * amount;
    double gone = std::fabs(r), come = std::fabs(rest), sum = 0;
    // Without branches that depend on the neighbour, as nobody could foresee them: who is touched for the first time and
    // who may be above the threshold (all whose scale is unknown) is written down and looked at afterwards.
    std::int64_t* fresh = touched.room(last - first);
    std::int64_t* raised = raised_.room(last - first);
    for (std::int64_t k = first; k < last; ++k) {
      const std::int64_t j = rows.idx[k];
      if (static_cast<std::uint64_t>(j) >= static_cast<std::uint64_t>(rows.n)) rows.bad_index(v, k);
      double t = c;
      if constexpr (Weighted) {
        const std::int64_t s = Slots ? static_cast<std::int64_t>(rows.slot[k]) : k;
        if (static_cast<std::uint64_t>(s) >= static_cast<std::uint64_t>(rows.values)) rows.bad_slot(v, k);
        const double w = static_cast<double>(rows.val[s]);
        if (!(w >= 0)) bad_weight(v, w);
        if constexpr (!Slots) sum += w;
        t *= w;
      }
      Node& other = nodes[j];
      const double old = other.r, now = old + t;
      const std::uint32_t state = other.state;
      other.r = now;
      other.state = state | kTouched;
      gone += std::fabs(old);
      come += std::fabs(now);
      *fresh = j;
      fresh += !(state & kTouched);
      *raised = j;
      raised += (std::fabs(now) >= theta * static_cast<double>(other.scale)) & !(state & kQueued);
    }
    touched.end_at(fresh);
    for (const std::int64_t* one = raised_.begin(); one != raised; ++one) {
      Node& other = nodes[*one];
      if (other.scale == 0) other.scale = scale_of(g, rule, *one);
      if (std::fabs(other.r) > theta * static_cast<double>(other.scale) && !(other.state & kQueued))
        other.state |= kQueued, next_.push_back(*one);
    }
    // What over-relaxation leaves at v may be above the threshold, though nobody has touched v.
    if (std::fabs(node.r) > theta * static_cast<double>(node.scale) && !(node.state & kQueued))
      node.state |= kQueued, next_.push_back(v);
    if constexpr (Weighted && !Slots)
      if (g.strength && !(std::fabs(sum - d) <= 2 * kUnit * static_cast<double>(last - first + 4) * d)) stale(v, sum, d);
    before += gone;
    after += come;
    ++pushes;
    edges += last - first;
    const double norm = rule.by_strength ? rule.factor : rule.factor * d;  // of column v of M, without its diagonal
    drift += kUnit * ((1 + norm) * std::fabs(mine.x) + 6 * norm * std::fabs(amount) + come) +
             kTiny * static_cast<double>(last - first);
  }

  [[noreturn, gnu::cold, gnu::noinline]] static void bad_weight(std::int64_t v, double w) {
    malformed("row " + std::to_string(v) + " has an edge of weight " + std::to_string(w) +
              "; weights must be finite and not negative: mend the values of the graph.");
  }
  [[noreturn, gnu::cold, gnu::noinline]] static void stale(std::int64_t v, double sum, double d) {
    malformed("the weights of row " + std::to_string(v) + " sum to " + std::to_string(sum) + ", its strength is " +
              std::to_string(d) + ": the weights have changed since; call refresh() of the graph.");
  }

  std::vector<std::int64_t> queue_, next_;
  NodeList raised_;
};

// Sums of rows, in doubled precision (Neumaier 1974), of weights that are checked: finite, not negative, and sums that
// are 0 or within [2^-500, 2^500].
template <class P, class I, class T>
void strengths(const View<P, I, T>& rows, double* out) {
  for (std::int64_t v = 0; v < rows.n; ++v) {
    const auto [first, last] = rows.range(v);
    double sum = 0, low = 0;
    for (std::int64_t k = first; k < last; ++k) {
      const double w = static_cast<double>(rows.val[k]), next = sum + w;
      if (!(w >= 0 && w <= std::numeric_limits<double>::max()))
        malformed("row " + std::to_string(v) + " has an edge of weight " + std::to_string(w) +
                  "; weights must be finite and not negative: mend the values of the graph.");
      low += sum >= w ? (sum - next) + w : (w - next) + sum;
      sum = next;
    }
    sum += low;
    if (sum != 0 && !(sum >= kTiny && sum <= 1 / kTiny))
      malformed("the weights of row " + std::to_string(v) + " sum to " + std::to_string(sum) +
                "; sums must be 0 or lie in [2^-500, 2^500]: scale the weights.");
    out[v] = sum;
  }
}

}  // namespace backsolve::pagerank
