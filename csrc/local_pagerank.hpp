// Queries on a graph by pushes: x = keep s + f P^T x for sparse s, with bounds of the error that rounding cannot break.
//
// M = I - f P^T has M^-1 >= 0, so for x, its approximation x^ and the residual r = b - M x^ (in exact arithmetic)
//   -|r-|_1 / margin <= x_k - x^_k <= |r+|_1 / margin                      margin = 1 - f, or 1 - f max strength (Katz)
//   -max_j (r-_j / w_j) w_k / m <= x_k - x^_k <= max_j (r+_j / w_j) w_k / m      for w > 0 with M w >= m w ("scale")
// where r+ and r- are the positive and the negative part. For an undirected graph w = strengths has P^T w = w, m = 1 - f.
// Computed residuals differ from r by at most `drift` in the 1-norm, which adds drift / margin to each bound.
//
// Nodes without edges that lead on ("dangling") are never pushed. Their row of P is zero, so what lies in r there may
// be moved to x at the end, exactly ("absorb"). Two more policies come from that solution y at no cost:
//   self   the walk stays: M_vv = 1 - f, x_v = r_v / (1 - f).
//   seeds  the walk returns to the seeds: P gets the rank-one term (indicator of dangling nodes) s^T, so that
//          M~ = M - f s dang^T. With x^ = k y^ the residual is
//            (1 - f) s - M~ x^ = k r + s [(1 - f) + f k dang^T y^ - k (1 - f)],
//          zero in the bracket for k = (1 - f) / ((1 - f) - f dang^T y^). M~ has the margin 1 - f as M has it, so r and
//          drift count k times, and what rounding leaves of the bracket (rho) is added. For y^ <= y, k <= 1 / (1 - f).
//          The bound by w holds where no walk ends in a dangling node (undirected graphs; the caller knows).
#pragma once

#include <array>
#include <exception>
#include <mutex>
#include <memory>

#include "local_push.hpp"
#include "local_topk.hpp"
#include "parallel.hpp"

namespace backsolve::pagerank {

enum Dangling : int { kAbsorb = 0, kSelf = 1, kSeeds = 2 };
enum class Goal : int { scale = 0, sum = 1, largest = 2, best = 3 };  // what `tol` bounds; the k best

struct Stop {
  Goal goal = Goal::scale;
  double tol = 0;
  std::int64_t k = 0;
  bool ordered = false;
  std::int64_t budget = 0;  // edges read
};

struct Seeds {
  const std::int64_t* ids;
  const double* weights;
  std::int64_t count;
};

// 0: reached. 1: rounding allows no more (or the best are tied within tol). 2: the budget is spent.
enum Verdict : std::int64_t { kReached = 0, kFloor = 1, kSpent = 2 };

struct Answer {
  std::vector<std::int64_t> ids;
  std::vector<double> values;
  Bounds bounds;
  double lost = 0;    // x^ on dangling nodes
  double spread = 1;  // k above
  std::int64_t touched = 0, edges = 0, pushes = 0, proved = 0;
  std::int64_t verdict = kReached;
};

template <class G>
class Query {
 public:
  Query(Worker& worker, const G& g, const Rule& rule, const Stop& stop) : w_(worker), g_(g), rule_(rule), stop_(stop) {}

  Answer run(const Seeds& seeds) {
    add(seeds);
    double theta = first_threshold();
    double target = stop_.goal == Goal::scale ? stop_.tol * rule_.unit : 0;
    Answer a;
    for (int refreshed = 0;;) {
      theta = std::max(theta, target);
      w_.enqueue_above(theta);
      const bool within = w_.settle(g_, rule_, theta, stop_.budget);
      if (stop_.goal == Goal::scale && within && theta > target) {
        theta /= 4;
        continue;
      }
      measure();
      if (stop_.goal == Goal::scale && within && theta * spread_ > stop_.tol * rule_.unit) {
        theta = target = (1 - 1e-3) * stop_.tol * rule_.unit / spread_;  // residuals count k times
        continue;
      }
      a.verdict = within ? kFloor : kSpent;
      if (reached(a)) a.verdict = kReached;
      if (a.verdict != kFloor || tied_ || stop_.goal == Goal::scale) break;
      if (sum_ > w_.drift) {
        theta = next(theta);
      } else if (refreshed++ < 3) {
        w_.refresh(g_, rule_, [&] { add(seeds); });
      } else {
        break;
      }
    }
    finish(a);
    return a;
  }

 private:
  void add(const Seeds& seeds) {
    for (std::int64_t q = 0; q < seeds.count; ++q) {
      const std::int64_t v = seeds.ids[q];
      if (static_cast<std::uint64_t>(v) >= static_cast<std::uint64_t>(g_.rows.n))
        malformed("seed " + std::to_string(v) + " is no node; nodes are 0 to " + std::to_string(g_.rows.n - 1) + ".");
      const double b = rule_.keep * seeds.weights[q];
      if (b == 0) continue;
      w_.touch(g_, rule_, v);
      w_.nodes[v].r += b;
      w_.drift += kUnit * (6 * std::fabs(b) + std::fabs(w_.nodes[v].r)) + kTiny;
    }
  }

  // A quarter of the largest r over its scale.
  double first_threshold() const {
    double largest = 0;
    for (const std::int64_t v : w_.touched)
      if (const Node& node = w_.nodes[v]; !dangles(node))
        largest = std::max(largest, std::fabs(node.r) / static_cast<double>(node.scale));
    return largest / 4;
  }

  static bool dangles(const Node& node) { return !(node.scale < std::numeric_limits<float>::infinity()); }

  double value(const Node& node) const {
    if (dangles(node)) return spread_ * (rule_.dangling == kSelf ? node.r / (1 - rule_.factor) : node.r);
    const std::uint32_t place = node.state & kPlace;
    const double x = place ? w_.active[place - 1].x : 0.0;
    return spread_ * (rule_.positive && x < 0 ? 0.0 : x);
  }

  // Scale of v, at most and at least: floats are off by 2^-24, those at the edge of their range by anything.
  double scale_above(const Node& node) const { return static_cast<double>(node.scale) * (1 + 0x1p-22) * rule_.unit; }
  double scale_below(std::int64_t v, const Node& node) const {
    if (node.scale > std::numeric_limits<float>::min()) return static_cast<double>(node.scale) * (1 - 0x1p-22) * rule_.unit;
    return rule_.scale == Scale::given ? g_.scale[v] * (1 - 4 * kUnit) : 0.5 * rule_.least;
  }

  // Bounds for x^ as it stands.
  void measure() {
    double up = 0, down = 0, up_scale = 0, down_scale = 0, lost = 0, low = 0, size = 0;
    for (std::size_t q = 0; q < w_.touched.size(); ++q) {
      const std::int64_t v = w_.touched[q];
      w_.ahead(q);
      const Node& node = w_.nodes[v];
      if (dangles(node)) {
        const double next = lost + node.r;  // doubled precision: rho must not grow with the number of nodes
        low += std::fabs(lost) >= std::fabs(node.r) ? (lost - next) + node.r : (node.r - next) + lost;
        lost = next;
        continue;
      }
      const double r = node.r;
      (r > 0 ? up : down) += std::fabs(r);
      double& most = r > 0 ? up_scale : down_scale;
      if (const double least = scale_below(v, node); std::fabs(r) > most * least) most = std::fabs(r) / least;
    }
    for (const Active& one : w_.active) size += std::fabs(one.x);
    lost_ = lost + low;
    size += std::fabs(lost_);
    sum_ = up + down;
    spread_ = 1;
    const double f = rule_.factor, keep = 1 - f;
    double rest = 0;  // rounding besides the drift, in the 1-norm of the residual
    if (rule_.dangling == kSelf) rest = 4 * kUnit * std::fabs(lost_);
    if (rule_.dangling == kSeeds) {
      const double below = keep - f * lost_;
      spread_ = below > keep * keep ? keep / below : 1 / keep;
      rest = std::fabs(keep + f * spread_ * lost_ - spread_ * keep) +
             16 * kUnit * (keep * (1 + spread_) + f * spread_ * std::fabs(lost_));
    }
    const double safe = 1 + 1e-6 + 8 * kUnit * static_cast<double>(w_.edges + w_.pushes);
    const double shift = (spread_ * w_.drift + rest) * safe;
    worst_ = spread_ * std::max(up_scale, down_scale);
    bounds_ = Bounds{};
    bounds_.factor = f;
    const double rounding = 4 * kUnit * spread_ * size;  // of x^ times spread, in the 1-norm
    if (rule_.margin > 0) {
      bounds_.up = (spread_ * up * safe + shift) / rule_.margin * safe + rounding;
      bounds_.down = (spread_ * down * safe + shift) / rule_.margin * safe + rounding;
      bounds_.sum = (spread_ * (up + down) * safe + shift) / rule_.margin * safe + rounding;
      bounds_.offset = shift / rule_.margin * safe + rounding;
    }
    if (rule_.scale_margin > 0) {
      // Without a margin, |M^-1 drift|_k <= w_k max_j (drift_j / w_j) / m <= w_k drift / (least w) / m.
      const double more = rule_.margin > 0 ? 0 : shift / rule_.least;
      bounds_.up_scale = (spread_ * up_scale * safe + more) / rule_.scale_margin * safe;
      bounds_.down_scale = (spread_ * down_scale * safe + more) / rule_.scale_margin * safe;
      if (!(rule_.margin > 0)) bounds_.offset = rounding;
    }
  }

  bool reached(Answer& a) {
    switch (stop_.goal) {
      // Thresholds at their target, but floats: below 1e-45 of the largest, scales are not told apart.
      case Goal::scale: return a.verdict != kSpent && worst_ <= stop_.tol * (1 + 1e-6);
      case Goal::sum: return bounds_.sum <= stop_.tol;
      case Goal::largest: return bounds_.largest(rule_.largest) <= stop_.tol;
      default: break;
    }
    contenders_.clear();
    for (const std::int64_t v : w_.touched) {
      const Node& node = w_.nodes[v];
      contenders_.push_back({v, value(node), dangles(node) ? rule_.largest : scale_above(node)});
    }
    const Ranking found = rank(contenders_, bounds_, rule_.largest, g_.rows.n, stop_.k, stop_.ordered);
    a.proved = found.proved;
    tied_ = found.width <= stop_.tol;
    return found.certain;
  }

  // Thresholds fall by 4, by less where the goal is near.
  double next(double theta) const {
    if (stop_.goal == Goal::best) return theta / 4;
    const double now = stop_.goal == Goal::sum ? bounds_.sum : bounds_.largest(rule_.largest);
    return theta * std::min(0.9, std::max(0.25, 0.9 * stop_.tol / now));
  }

  void finish(Answer& a) {
    a.bounds = bounds_;
    a.lost = spread_ * lost_;
    a.spread = spread_;
    a.touched = static_cast<std::int64_t>(w_.touched.size());
    a.edges = w_.edges;
    a.pushes = w_.pushes;
    if (stop_.goal == Goal::best) {
      const std::size_t k = std::min(contenders_.size(), static_cast<std::size_t>(stop_.k));
      for (std::size_t q = 0; q < k; ++q) a.ids.push_back(contenders_[q].id), a.values.push_back(contenders_[q].x);
      return;
    }
    a.ids.reserve(w_.active.size());
    a.values.reserve(w_.active.size());
    for (const Active& one : w_.active)
      if (const double x = value(w_.nodes[one.id]); x != 0) a.ids.push_back(one.id), a.values.push_back(x);
    if (lost_ != 0)
      for (const std::int64_t v : w_.touched)
        if (const Node& node = w_.nodes[v]; dangles(node) && node.r != 0) a.ids.push_back(v), a.values.push_back(value(node));
  }

  Worker& w_;
  const G& g_;
  const Rule& rule_;
  const Stop& stop_;
  Bounds bounds_;
  std::vector<Contender> contenders_;
  double lost_ = 0, sum_ = 0, spread_ = 1;
  double worst_ = 0;  // the largest |r| over its scale
  bool tied_ = false;
};

// Workers of one graph and one scale, kept from call to call.
class Workers {
 public:
  explicit Workers(std::int64_t n) : n_(n) {}
  std::unique_ptr<Worker> take() {
    {
      const std::lock_guard<std::mutex> hold(lock_);
      if (!idle_.empty()) {
        auto one = std::move(idle_.back());
        idle_.pop_back();
        return one;
      }
    }
    return std::make_unique<Worker>(n_);
  }
  void give(std::unique_ptr<Worker> one) {
    one->clear();
    const std::lock_guard<std::mutex> hold(lock_);
    idle_.push_back(std::move(one));
  }
  std::int64_t size() const { return n_; }

 private:
  std::int64_t n_;
  std::mutex lock_;
  std::vector<std::unique_ptr<Worker>> idle_;
};

// All queries of a batch; seeds of query q are first[q] .. first[q + 1] - 1. The error of the first one that fails is
// thrown after all have run.
template <class G>
std::vector<Answer> answer(Workers& workers, const G& g, const Rule& rule, const Stop& stop,
                           const std::int64_t* first, std::int64_t queries, const std::int64_t* ids, const double* weights) {
  std::vector<Answer> answers(static_cast<std::size_t>(queries));
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(queries));
  for_chunks(queries, queries > 1 ? kParallelWork : 0, [&](std::int64_t q) {
    try {
      auto worker = workers.take();  // one that failed is not given back
      answers[q] = Query<G>(*worker, g, rule, stop).run({ids + first[q], weights + first[q], first[q + 1] - first[q]});
      workers.give(std::move(worker));
    } catch (...) {
      errors[q] = std::current_exception();
    }
  });
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
  return answers;
}

}  // namespace backsolve::pagerank
