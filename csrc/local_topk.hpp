// Which entries of an approximation are proved to be the largest, given bounds of its errors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace backsolve::pagerank {

// -below(w_k) <= x_k - x^_k <= above(w_k) for a node of scale w_k; `sum` bounds the 1-norm.
struct Bounds {
  static constexpr double none = std::numeric_limits<double>::infinity();
  double sum = none, up = none, down = none, up_scale = none, down_scale = none, offset = 0, factor = 1;

  double above(double w) const { return std::min(up, up_scale * w + offset); }
  double below(double w) const { return std::min(down, down_scale * w + offset); }
  double largest(double w) const { return std::max(above(w), below(w)); }
};

struct Contender {
  std::int64_t id;
  double x, scale;
};

struct Ranking {
  bool certain;         // the first k are the k largest, in this order if that was asked for
  std::int64_t proved;  // how many of them are surely among the k largest
  double width;         // of the widest interval among those that keep the rest from being proved
};

// Brings the k largest to the front, largest first; equal ones by number. Nodes that are not listed have x^ = 0 and a
// scale of at most `largest`.
inline Ranking rank(std::vector<Contender>& all, const Bounds& bounds, double largest, std::int64_t n, std::int64_t k,
                    bool ordered) {
  const auto before = [](const Contender& a, const Contender& b) { return a.x != b.x ? a.x > b.x : a.id < b.id; };
  const std::size_t count = std::min(all.size(), static_cast<std::size_t>(k));
  if (count < all.size()) std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count), all.end(), before);
  std::sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count), before);
  const bool others = static_cast<std::int64_t>(all.size()) < n;
  double rival = others ? bounds.above(largest) : 0;  // no x is negative
  for (std::size_t q = count; q < all.size(); ++q) rival = std::max(rival, all[q].x + bounds.above(all[q].scale));
  Ranking found{static_cast<std::int64_t>(count) == std::min(k, n), 0, 0};
  if (!found.certain) found.width = bounds.above(largest);
  for (std::size_t q = 0; q < count; ++q) {
    const double low = std::max(all[q].x - bounds.below(all[q].scale), 0.0);
    double next = rival;
    if (ordered && q + 1 < count) next = std::max(next, all[q + 1].x + bounds.above(all[q + 1].scale));
    if (low >= rival) ++found.proved;
    if (low < next) {
      found.certain = false;
      found.width = std::max(found.width, next - low);
    }
  }
  return found;
}

}  // namespace backsolve::pagerank
