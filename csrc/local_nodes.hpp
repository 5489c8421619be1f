// A list of nodes that is written beyond its end, so that whether a node joins it need not be a branch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace backsolve::local {

class NodeList {
 public:
  // Where the next nodes go; as many as said may be written there, and `end_at` says how many stay.
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
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  std::int64_t operator[](std::size_t q) const { return store_[q]; }
  const std::int64_t* begin() const { return store_.data(); }
  const std::int64_t* end() const { return store_.data() + size_; }
  void swap(NodeList& other) noexcept {
    store_.swap(other.store_);
    std::swap(size_, other.size_);
  }

 private:
  std::vector<std::int64_t> store_;
  std::size_t size_ = 0;
};

}  // namespace backsolve::local
