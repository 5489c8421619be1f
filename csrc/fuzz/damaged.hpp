// Matrices of a few rows, most of them damaged, in arrays that end where they say: what AddressSanitizer watches.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "../local_view.hpp"

namespace backsolve::fuzz {

using Random = std::mt19937_64;

template <class T>
T any_integer(Random& g) {
  switch (g() % 6) {
    case 0: return std::numeric_limits<T>::max();
    case 1: return std::numeric_limits<T>::min();
    case 2: return static_cast<T>(-1);
    case 3: return static_cast<T>(g() % 70);
    default: return static_cast<T>(g());
  }
}

template <class T>
T any_value(Random& g) {
  switch (g() % 8) {
    case 0: return std::numeric_limits<T>::quiet_NaN();
    case 1: return std::numeric_limits<T>::infinity();
    case 2: return 0;
    case 3: return std::numeric_limits<T>::denorm_min();
    case 4: return std::numeric_limits<T>::max();
    case 5: return -1;
    default: return static_cast<T>(std::ldexp(1.0, static_cast<int>(g() % 200) - 100));
  }
}

// A dominant matrix and its columns; `break_something` then writes anything anywhere.
template <class P, class I, class T>
struct Damaged {
  std::int64_t n;
  std::vector<P> ptr, t_ptr, slot;
  std::vector<I> idx, t_idx;
  std::vector<T> val;
  std::vector<double> weight;  // of the nodes: a barrier

  Damaged(Random& g, bool positive) : n(static_cast<std::int64_t>(g() % 40)) {
    ptr.push_back(0);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t degree = static_cast<std::int64_t>(g() % 6);
      for (std::int64_t k = 0; k < degree; ++k) {
        idx.push_back(static_cast<I>(g() % static_cast<std::uint64_t>(n)));
        val.push_back(static_cast<T>((positive ? 1 : -1) * (1 + static_cast<double>(g() % 100)) / 100));
      }
      if (!positive) idx.push_back(static_cast<I>(i)), val.push_back(static_cast<T>(10 + static_cast<double>(g() % 9)));
      ptr.push_back(static_cast<P>(idx.size()));
      weight.push_back(1 + static_cast<double>(g() % 3));
    }
    t_ptr.assign(static_cast<std::size_t>(n) + 1, 0);
    for (const I j : idx) ++t_ptr[static_cast<std::size_t>(j) + 1];
    for (std::int64_t i = 0; i < n; ++i) t_ptr[i + 1] = static_cast<P>(t_ptr[i + 1] + t_ptr[i]);
    t_idx.resize(idx.size()), slot.resize(idx.size());
    std::vector<P> next(t_ptr.begin(), t_ptr.end() - (n >= 0));
    for (std::int64_t i = 0; i < n; ++i)
      for (P k = ptr[i]; k < ptr[i + 1]; ++k) {
        const P place = next[static_cast<std::size_t>(idx[k])]++;
        t_idx[place] = static_cast<I>(i), slot[place] = k;
      }
  }

  void break_something(Random& g) {
    for (std::uint64_t times = 1 + g() % 3; times > 0; --times) switch (g() % 7) {
        case 0: set(g, ptr, any_integer<P>(g)); break;
        case 1: set(g, t_ptr, any_integer<P>(g)); break;
        case 2: set(g, idx, any_integer<I>(g)); break;
        case 3: set(g, t_idx, any_integer<I>(g)); break;
        case 4: set(g, slot, any_integer<P>(g)); break;
        case 5: set(g, val, any_value<T>(g)); break;
        default: set(g, weight, any_value<double>(g)); break;
      }
  }

  local::View<P, I, T> rows() const {
    return {n, static_cast<std::int64_t>(idx.size()), static_cast<std::int64_t>(val.size()), ptr.data(), idx.data(), nullptr, val.data(), "row"};
  }
  local::View<P, I, T> columns() const {
    return {n, static_cast<std::int64_t>(t_idx.size()), static_cast<std::int64_t>(val.size()), t_ptr.data(), t_idx.data(), slot.data(), val.data(), "column"};
  }

 private:
  template <class V>
  static void set(Random& g, std::vector<V>& array, V value) {
    if (!array.empty()) array[g() % array.size()] = value;
  }
};

// Runs trial(random, broken) as often as said; a whole matrix must not be refused. Returns the exit status of a program.
template <class F>
int run(int argc, char** argv, const char* what, F&& trial) {
  const long trials = argc > 1 ? std::atol(argv[1]) : 20'000;
  Random g(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  long done = 0, refused = 0;
  for (long at = 0; at < trials; ++at) {
    const bool broken = g() % 4 != 0;
    try {
      trial(g, broken);
      ++done;
    } catch (const std::invalid_argument& error) {
      ++refused;
      if (!broken) return std::printf("%s: a whole matrix was refused: %s\n", what, error.what()), 1;
    }
  }
  std::printf("%s: %ld trials, %ld answered, %ld refused\n", what, trials, done, refused);
  return done && refused ? 0 : 1;
}

}  // namespace backsolve::fuzz
