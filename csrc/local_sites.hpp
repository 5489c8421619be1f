// What a side of a local solve keeps for each unknown, what it weighs them by, and what rounding costs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "local_margins.hpp"
#include "local_view.hpp"

namespace backsolve::local {

inline constexpr double kLeast = std::numeric_limits<double>::denorm_min();
inline constexpr double kNormal = std::numeric_limits<double>::min();
inline constexpr double kInfinite = std::numeric_limits<double>::infinity();

// What one operation can lose by being too small.
inline double least() { return flushes() ? kNormal : kLeast; }

// m u / (1 - m u): what m roundings can add up to (Higham 2002, lemma 3.1); infinite where it says nothing.
inline double gamma(double m) {
  const double mu = m * (std::numeric_limits<double>::epsilon() / 2);
  return mu < 0.5 ? mu / (1 - mu) : kInfinite;
}

enum class Sense { rows, columns };

// Unknowns whose state and lists stay in the caches: to ask for them would only take time.
inline constexpr std::size_t kNear = 1 << 12;

// How thresholds and bounds weigh the unknowns of one side.
struct Weights {
  Sense sense = Sense::rows;
  bool rows = false, columns = false;  // in which senses N is known to be dominant everywhere
  const double* kept = nullptr;        // lower bounds of (<N> w)_i, known to be current; null: made at first touch
  const double* w = nullptr;           // null: 1
  const double* v = nullptr;
};

struct Site {
  double r = 0, x = 0, weight = 0;
  std::uint32_t place = 0;  // among the touched, counted from 1; 0: not touched
  std::uint32_t queued = 0;
};

struct Bounds {
  double rows = kInfinite;     // max (|r| + tau)_k / (<N> w)_k
  double columns = kInfinite;  // sum v_k (|r| + tau)_k
  std::int64_t weakest = -1;   // a touched row without a proven margin
};

// An array over all nodes, of which only touched pages exist.
class PagedSites {
 public:
  explicit PagedSites(std::int64_t n) : pages_(n) {}
  Site& operator[](std::int64_t i) { return pages_[i]; }
  const Site& operator[](std::int64_t i) const { return pages_[i]; }
  const Site* find(std::int64_t i) const { return pages_[i].place ? &pages_[i] : nullptr; }
  void prefetch(std::int64_t i) const { ask(&pages_[i]); }
  void clear(const std::vector<std::int64_t>& touched) {
    for (const std::int64_t i : touched) pages_[i] = Site{};
  }

 private:
  Pages<Site> pages_;
};

}  // namespace backsolve::local
