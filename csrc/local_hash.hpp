// What a local solve keeps of nodes that are too many for an array over all of them: a hash of those that were met.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace backsolve::local {

// A map of numbers >= 0 to numbers: open addressing with linear probing, at most half full. Nothing is ever removed.
class IdMap {
 public:
  // The number of `id`, or null.
  const std::int64_t* find(std::int64_t id) const {
    if (cells_.empty()) return nullptr;
    for (std::size_t at = home(id);; at = (at + 1) & mask_) {
      if (cells_[at].id == id) return &cells_[at].number;
      if (cells_[at].id < 0) return nullptr;
    }
  }
  // The number of `id`, set to `fresh` if it is new. Valid until the next call.
  std::int64_t& insert(std::int64_t id, std::int64_t fresh) {
    if (2 * (size_ + 1) > cells_.size()) grow();
    std::size_t at = home(id);
    while (cells_[at].id >= 0 && cells_[at].id != id) at = (at + 1) & mask_;
    if (cells_[at].id < 0) {
      cells_[at] = {id, fresh};
      ++size_;
    }
    return cells_[at].number;
  }
  void clear() {
    cells_.clear();
    size_ = mask_ = 0;
  }

 private:
  struct Cell {
    std::int64_t id = -1, number = 0;
  };
  // The finalizer of splitmix64 (Steele, Lea & Flood 2014): neighbours of a grid must not fall into one run.
  std::size_t home(std::int64_t id) const {
    std::uint64_t h = static_cast<std::uint64_t>(id);
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    return static_cast<std::size_t>(h ^ (h >> 31)) & mask_;
  }
  void grow() {
    std::vector<Cell> old(cells_.empty() ? 16 : 2 * cells_.size());
    old.swap(cells_);
    mask_ = cells_.size() - 1;
    for (const Cell& cell : old) {
      if (cell.id < 0) continue;
      std::size_t at = home(cell.id);
      while (cells_[at].id >= 0) at = (at + 1) & mask_;
      cells_[at] = cell;
    }
  }
  std::vector<Cell> cells_;
  std::size_t size_ = 0, mask_ = 0;
};

}  // namespace backsolve::local
