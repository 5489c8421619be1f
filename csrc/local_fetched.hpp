// Rows and columns of a matrix that is stored nowhere: those that a function of the user has made so far.
//
// A list is checked when it comes in, once: indices, values, the diagonal, dominance as promised, and that rows and
// columns which have both been fetched hold the same entries.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "local_hash.hpp"
#include "local_margins.hpp"

namespace backsolve::local {

// Dominance that is promised of every list, and the least margin; it is not where `dominant` is false.
struct Promise {
  bool dominant = false;
  double least = 0;
};

// What `View` is for arrays. A list lies as a whole at its place, by ascending indices.
class FetchedLists {
 public:
  using value_type = double;
  static constexpr bool fetched = true;
  const char* name;

  FetchedLists(std::int64_t n, const char* name_, Promise promise) : name(name_), n_(n), promise_(promise) {}

  bool known(std::int64_t i) const { return places_.find(i) != nullptr; }
  // Entries of a list that is not there: what somebody said, else one, the least that it can have.
  std::int64_t expected(std::int64_t i) const {
    const std::int64_t* count = expected_.find(i);
    return count ? *count : 1;
  }
  // Says how many; whether that had been said before.
  bool expect(std::int64_t i, std::int64_t count) {
    if (expected_.find(i)) return true;
    expected_.insert(i, count);
    return false;
  }
  std::int64_t lists() const { return static_cast<std::int64_t>(margin_.size()); }
  std::int64_t entries() const { return static_cast<std::int64_t>(idx_.size()); }
  std::int64_t count(std::int64_t i) const {
    const std::size_t at = place(i);
    return ptr_[at + 1] - ptr_[at];
  }
  // Calls f(j, value, number of the entry): the one it came with, or its position among all that have come.
  template <class F>
  void each(std::int64_t i, F&& f) const {
    const std::size_t at = place(i);
    for (std::int64_t k = ptr_[at]; k < ptr_[at + 1]; ++k) f(idx_[k], val_[k], slot_.empty() ? k : slot_[k]);
  }
  double gap() const { return gap_; }  // the least margin over |diagonal|
  double diagonal(std::int64_t i) const { return diagonal_[place(i)]; }
  double margin(std::int64_t i) const { return margin_[place(i)]; }
  template <class F, class G>
  void each(std::int64_t i, F&& f, G&&) const {
    each(i, f);
  }
  void prefetch(std::int64_t) const {}
  void prefetch_entries(std::int64_t) const {}
  template <class F>
  void prefetch_targets(std::int64_t, F&&) const {}

  // Takes list i with its entries, unless it is there; `slot` may be null, for this list as for all others. `across`
  // are the lists of the other direction, this one if the matrix is symmetric, null if nobody can tell.
  void append(const FetchedLists* across, std::int64_t i, std::int64_t count, const std::int64_t* idx, const double* val,
              const std::int64_t* slot) {
    if (known(i)) return;
    read(i, count, idx, val, slot);
    const Single list{i, &entries_};
    double d = 0;
    bool stored = false;
    for (const Entry& e : entries_)
      if (e.j == i) d = e.value, stored = true;
    const double least = local::margin(list, i);
    if (promise_.dominant) check_promise(i, stored, d, least);
    if (across) compare(*across, i);
    for (const Entry& e : entries_) {
      idx_.push_back(e.j);
      val_.push_back(e.value);
      if (slot) slot_.push_back(e.slot);
      if (across) ++mentioned_.insert(e.j, 0);
    }
    ids_.push_back(i);
    ptr_.push_back(entries());
    diagonal_.push_back(d);
    margin_.push_back(least);
    if (d != 0) gap_ = std::min(gap_, least / std::fabs(d));
    places_.insert(i, lists() - 1);
  }

 private:
  struct Entry {
    std::int64_t j;
    double value;
    std::int64_t slot;
  };
  struct Single {
    using value_type = double;
    std::int64_t i;
    const std::vector<Entry>* entries;
    std::int64_t count(std::int64_t) const { return static_cast<std::int64_t>(entries->size()); }
    template <class F>
    void each(std::int64_t, F&& f) const {
      for (const Entry& e : *entries) f(e.j, e.value, e.slot);
    }
  };

  std::size_t place(std::int64_t i) const {
    const std::int64_t* at = places_.find(i);
    if (!at) malformed(std::string(name) + " " + std::to_string(i) + " is read before it was fetched");
    return static_cast<std::size_t>(*at);
  }
  std::string called(std::int64_t i) const { return std::string(name) + " " + std::to_string(i); }
  static std::string number(double x) {
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", x);
    return text;
  }

  void read(std::int64_t i, std::int64_t count, const std::int64_t* idx, const double* val, const std::int64_t* slot) {
    entries_.clear();
    bool sorted = true;
    for (std::int64_t k = 0; k < count; ++k) {
      if (static_cast<std::uint64_t>(idx[k]) >= static_cast<std::uint64_t>(n_))
        malformed(called(i) + " has the index " + std::to_string(idx[k]) + "; indices must lie in [0, " +
                  std::to_string(n_) + ").");
      if (!std::isfinite(val[k]))
        malformed(called(i) + " has the value " + number(val[k]) + " at " + std::to_string(idx[k]) +
                  "; values must be finite.");
      sorted = sorted && (k == 0 || idx[k - 1] < idx[k]);
      entries_.push_back({idx[k], val[k], slot ? slot[k] : 0});
    }
    if (sorted) return;
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.j < b.j; });
    for (std::size_t k = 1; k < entries_.size(); ++k)
      if (entries_[k].j == entries_[k - 1].j)
        malformed(called(i) + " has the index " + std::to_string(entries_[k].j) + " twice; add up what belongs together.");
  }

  void check_promise(std::int64_t i, bool stored, double d, double least) const {
    if (!stored || d == 0)
      malformed(called(i) + " has no diagonal entry, or zero there; dominance by " + name + "s was promised.");
    if (!(least > 0))
      malformed(called(i) + " is not dominant: its margin, |diagonal| - sum of the others' moduli, is " + number(least) +
                "; dominance by " + name + "s was promised.");
    if (!(least >= promise_.least))
      malformed(called(i) + " has the margin " + number(least) + "; at least " + number(promise_.least) +
                " was promised: promise less.");
  }

  // Entries of list i in lists across it that have been fetched must be there with the same value, and no others.
  void compare(const FetchedLists& across, std::int64_t i) const {
    std::int64_t common = 0;
    for (const Entry& e : entries_) {
      if (!across.known(e.j)) continue;
      double other = 0;
      if (!across.value_at(e.j, i, other) || other != e.value) differ(across, i, e.j, e.value, other);
      ++common;
    }
    const std::int64_t* named = across.mentioned_.find(i);
    if ((named ? *named : 0) == common) return;
    for (const std::int64_t j : across.ids_) {  // an entry across that list i lacks: rare enough to look for it slowly
      double other = 0;
      if (across.value_at(j, i, other) && !holds(j)) differ(across, i, j, 0, other);
    }
  }
  bool holds(std::int64_t j) const {
    for (const Entry& e : entries_)
      if (e.j == j) return true;
    return false;
  }
  bool value_at(std::int64_t i, std::int64_t j, double& value) const {
    const std::size_t at = place(i);
    const auto first = idx_.begin() + ptr_[at], last = idx_.begin() + ptr_[at + 1];
    const auto found = std::lower_bound(first, last, j);
    if (found == last || *found != j) return false;
    value = val_[static_cast<std::size_t>(found - idx_.begin())];
    return true;
  }
  [[noreturn]] void differ(const FetchedLists& across, std::int64_t i, std::int64_t j, double mine, double other) const {
    malformed(called(i) + " has " + number(mine) + " at " + std::to_string(j) + ", and " + across.called(j) + " has " +
              number(other) + " at " + std::to_string(i) +
              (this == &across ? ": the matrix was said to be symmetric." : ": rows and columns must be of one matrix."));
  }

  std::int64_t n_;
  Promise promise_;
  double gap_ = 1;
  IdMap places_, mentioned_, expected_;  // list: its place; index: in how many lists it is; list: its entries, perhaps
  std::vector<std::int64_t> ids_, ptr_{0}, idx_, slot_;
  std::vector<double> val_, diagonal_, margin_;
  std::vector<Entry> entries_;
};

// The margin of a list was made when it came in; barriers are for matrices that are stored.
inline double margin(const FetchedLists& lists, std::int64_t i, const double*) { return lists.margin(i); }

// The lists of one matrix. Whoever reads or appends holds `guard`.
class Fetched {
 public:
  Fetched(std::int64_t n, bool symmetric, bool both, Promise rows, Promise columns)
      : n_(n), symmetric_(symmetric), both_(both), rows_(n, "row", rows), columns_(n, "column", columns) {}

  std::int64_t n() const { return n_; }
  const FetchedLists& rows() const { return rows_; }
  const FetchedLists& columns() const { return symmetric_ ? rows_ : columns_; }

  // Takes `count` lists, one after the other in idx and val.
  void append(bool columns, std::int64_t count, const std::int64_t* id, const std::int64_t* length,
              const std::int64_t* idx, const double* val, const std::int64_t* slot) {
    FetchedLists& own = columns && !symmetric_ ? columns_ : rows_;
    const FetchedLists* across = symmetric_ ? &rows_ : !both_ ? nullptr : columns ? &rows_ : &columns_;
    for (std::int64_t k = 0; k < count; ++k) {
      own.append(across, id[k], length[k], idx, val, slot);
      idx += length[k];
      val += length[k];
      if (slot) slot += length[k];
    }
  }

  FetchedLists& own_columns() { return symmetric_ ? rows_ : columns_; }

  mutable std::mutex guard;

 private:
  std::int64_t n_;
  bool symmetric_, both_;
  FetchedLists rows_, columns_;
};

}  // namespace backsolve::local
