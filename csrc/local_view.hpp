// One side of a sparse matrix, list by list, out of arrays that nobody has looked at.
//
// A local solve reads a few thousand lists of a matrix that may be a file of a hundred million rows. Checking all of it
// first would cost more than the solve, so every position is checked where it is read: whatever the arrays hold,
// nothing outside of them is touched, and what is wrong is named.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

// Fuzzing takes the heap, whose ends are watched.
#if (defined(__unix__) || defined(__APPLE__)) && !defined(BACKSOLVE_FUZZ)
#define BACKSOLVE_MAPS 1
#include <sys/mman.h>
#else
#define BACKSOLVE_MAPS 0
#endif

namespace backsolve::local {

[[noreturn]] inline void malformed(const std::string& what) { throw std::invalid_argument(what); }

// Asks the memory for what will be read soon. The empty statement is not nothing: GCC takes functions that do no more than
// prefetch for functions that do nothing, and drops the calls.
inline void ask([[maybe_unused]] const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
  asm volatile("" ::"r"(address));
#endif
}

// Memory that is zero, and takes room only where it has been written: an array over all nodes, for the touched ones.
template <class T>
class Pages {
 public:
  Pages() = default;
  explicit Pages(std::int64_t count) : bytes_(static_cast<std::size_t>(count) * sizeof(T)) {
    if (count < 0 || (count && bytes_ / sizeof(T) != static_cast<std::size_t>(count))) throw std::bad_alloc();
    if (!bytes_) return;
#if BACKSOLVE_MAPS
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(p);
#else
    data_ = static_cast<T*>(std::calloc(static_cast<std::size_t>(count), sizeof(T)));
    if (!data_) throw std::bad_alloc();
#endif
  }
  ~Pages() { release(); }
  Pages(Pages&& o) noexcept : data_(std::exchange(o.data_, nullptr)), bytes_(std::exchange(o.bytes_, 0)) {}
  Pages& operator=(Pages&& o) noexcept {
    if (this != &o) {
      release();
      data_ = std::exchange(o.data_, nullptr);
      bytes_ = std::exchange(o.bytes_, 0);
    }
    return *this;
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](std::int64_t i) { return data_[i]; }
  const T& operator[](std::int64_t i) const { return data_[i]; }

 private:
  void release() noexcept {
    if (!data_) return;
#if BACKSOLVE_MAPS
    munmap(data_, bytes_);
#else
    std::free(data_);
#endif
    data_ = nullptr;
  }
  T* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Rows of a matrix (ptr, idx, val: CSR) or its columns, which point through `slot` into the values of the rows.
// P: positions, I: indices, T: values. `name` is what a list is called in messages: "row" or "column".
template <class P, class I, class T>
struct View {
  using value_type = T;
  static constexpr bool fetched = false;  // all lists are there
  std::int64_t n = 0;       // lists, and what indices stay below
  std::int64_t stored = 0;  // length of idx, and of slot
  std::int64_t values = 0;  // length of val
  const P* ptr = nullptr;
  const I* idx = nullptr;
  const P* slot = nullptr;  // null: value k belongs to index k
  const T* val = nullptr;
  const char* name = "row";

  std::pair<std::int64_t, std::int64_t> range(std::int64_t i) const {
    const std::int64_t first = ptr[i], last = ptr[i + 1];
    if (first < 0 || last < first || last > stored) bad_range(i);
    return {first, last};
  }
  std::int64_t count(std::int64_t i) const {
    const auto [first, last] = range(i);
    return last - first;
  }
  // Calls f(j, value, position of the value) for what list i stores.
  template <class F>
  void each(std::int64_t i, F&& f) const {
    each(i, f, [](std::int64_t) {});
  }
  // The same, and soon(j) some entries before f(j, ...).
  template <class F, class G>
  void each(std::int64_t i, F&& f, G&& soon) const {
    const auto [first, last] = range(i);
    for (std::int64_t k = first; k < last; ++k) {
      const std::int64_t j = idx[k], s = slot ? static_cast<std::int64_t>(slot[k]) : k;
      if (static_cast<std::uint64_t>(j) >= static_cast<std::uint64_t>(n)) bad_index(i, k);
      if (static_cast<std::uint64_t>(s) >= static_cast<std::uint64_t>(values)) bad_slot(i, k);
      if (k + kAhead < last) target(k + kAhead, soon);
      f(j, static_cast<double>(val[s]), s);
    }
  }
  // Ask the memory for where list i lies; later for its entries; and later still for what they point to, which f(j) does
  // for each unknown, of a long list for the first ones.
  void prefetch(std::int64_t i) const { ask(ptr + i); }
  void prefetch_entries(std::int64_t i) const {
    const std::int64_t first = ptr[i], last = ptr[i + 1] - 1;
    if (first < 0 || last < first || last >= stored) return;
    ask(idx + first), ask(idx + last);
    if (slot)
      ask(slot + first), ask(slot + last);
    else
      ask(val + first), ask(val + last);
  }
  template <class F>
  void prefetch_targets(std::int64_t i, F&& f) const {
    const std::int64_t first = ptr[i], last = std::min<std::int64_t>(ptr[i + 1], first + kAhead);
    if (first < 0 || last > stored) return;
    for (std::int64_t k = first; k < last; ++k) target(k, f);
  }
  bool known(std::int64_t) const { return true; }
  std::int64_t expected(std::int64_t i) const { return count(i); }
  // The sum of what is stored at (i, i); zero where nothing is.
  double diagonal(std::int64_t i) const {
    const auto [first, last] = range(i);
    if (i > static_cast<std::int64_t>(std::numeric_limits<I>::max())) return 0;
    // Without a branch in the loop: where the entry stands is as good as random.
    const I own = static_cast<I>(i);
    const I* list = idx + first;
    I found = 0, at = 0;
    const I count = static_cast<I>(std::min<std::int64_t>(last - first, std::numeric_limits<I>::max()));
    for (I k = 0; k < count; ++k) {
      const I is = list[k] == own;
      found += is;
      at += is * k;
    }
    double d = 0;
    for (std::int64_t k = found == 1 ? first + at : first; found > 0 && k < last; ++k) {
      if (static_cast<std::int64_t>(idx[k]) != i) continue;
      const std::int64_t s = slot ? static_cast<std::int64_t>(slot[k]) : k;
      if (static_cast<std::uint64_t>(s) >= static_cast<std::uint64_t>(values)) bad_slot(i, k);
      d += static_cast<double>(val[s]);
      if (found == 1) break;
    }
    return d;
  }

  static constexpr std::int64_t kAhead = 16;
  template <class F>
  void target(std::int64_t k, F&& f) const {
    const std::int64_t j = idx[k];
    if (static_cast<std::uint64_t>(j) < static_cast<std::uint64_t>(n)) f(j);
    if (slot && static_cast<std::uint64_t>(slot[k]) < static_cast<std::uint64_t>(values)) ask(val + slot[k]);
  }

  [[noreturn, gnu::cold, gnu::noinline]] void bad_range(std::int64_t i) const {
    malformed("the positions of " + std::string(name) + " " + std::to_string(i) + " run from " +
              std::to_string(ptr[i]) + " to " + std::to_string(ptr[i + 1]) + "; they must not fall, and must lie in [0, " +
              std::to_string(stored) + "]: the index arrays are damaged, or belong to another matrix.");
  }
  [[noreturn, gnu::cold, gnu::noinline]] void bad_index(std::int64_t i, std::int64_t k) const {
    malformed(std::string(name) + " " + std::to_string(i) + " has the index " + std::to_string(idx[k]) +
              " (position " + std::to_string(k) + "); indices must lie in [0, " + std::to_string(n) +
              "): the index arrays are damaged, or belong to another matrix.");
  }
  [[noreturn, gnu::cold, gnu::noinline]] void bad_slot(std::int64_t i, std::int64_t k) const {
    malformed(std::string(name) + " " + std::to_string(i) + " points to the value " +
              std::to_string(slot ? static_cast<std::int64_t>(slot[k]) : k) + " of " + std::to_string(values) +
              ": the index arrays are damaged, or belong to another matrix.");
  }
};

}  // namespace backsolve::local
