// Where a side keeps what it knows of the nodes that it has touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "local_hash.hpp"
#include "local_view.hpp"

namespace backsolve::local {

struct Site {
  double r = 0, x = 0, weight = 0;
  std::uint32_t place = 0;  // among the touched, counted from 1; 0: not touched
  std::uint32_t queued = 0;
};

// An array over all nodes, of which only touched pages exist.
class PagedSites {
 public:
  explicit PagedSites(std::int64_t n) : pages_(n) {}
  Site& operator[](std::int64_t i) { return pages_[i]; }
  const Site& operator[](std::int64_t i) const { return pages_[i]; }
  const Site* find(std::int64_t i) const { return pages_[i].place ? &pages_[i] : nullptr; }
  void clear(const std::vector<std::int64_t>& touched) {
    for (const std::int64_t i : touched) pages_[i] = Site{};
  }

 private:
  Pages<Site> pages_;
};

// One for each node that was asked for; references hold until the next new node.
class HashedSites {
 public:
  explicit HashedSites(std::int64_t) {}
  Site& operator[](std::int64_t i) {
    const std::int64_t at = places_.insert(i, static_cast<std::int64_t>(sites_.size()));
    if (at == static_cast<std::int64_t>(sites_.size())) sites_.emplace_back();
    return sites_[static_cast<std::size_t>(at)];
  }
  const Site& operator[](std::int64_t i) const { return sites_[static_cast<std::size_t>(*places_.find(i))]; }
  const Site* find(std::int64_t i) const {
    const std::int64_t* at = places_.find(i);
    return at ? &sites_[static_cast<std::size_t>(*at)] : nullptr;
  }
  void clear(const std::vector<std::int64_t>&) {
    places_.clear();
    sites_.clear();
  }

 private:
  IdMap places_;
  std::vector<Site> sites_;
};

}  // namespace backsolve::local
