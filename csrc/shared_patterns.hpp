// Patterns that compiled programs use, found by a digest of their content.
//
// A program outlives the call that compiled it, and may be loaded from disk by another process: it names its Pattern by
// content, never by address. A digest that stands for nothing here is an error, and the sizes of all arrays are checked
// against the Pattern that was found, so no name can lead a kernel outside its arrays.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>

#include "pattern.hpp"

namespace backsolve {

template <class I> using SharedPattern = std::shared_ptr<const Pattern<I>>;
using AnyPattern = std::variant<std::monostate, SharedPattern<std::int32_t>, SharedPattern<std::int64_t>>;

class SharedPatterns {
 public:
  // The first living Pattern of this content, which is `pattern` itself if there was none. Programs keep what they get
  // here, so that all that have the same content keep the same one alive.
  template <class I>
  SharedPattern<I> share(const std::string& digest, const SharedPattern<I>& pattern) {
    const std::lock_guard lock(mutex_);
    std::erase_if(known_, [](const auto& entry) {
      return std::visit([](const auto& weak) { return weak.expired(); }, entry.second);
    });
    const auto& held = known_.try_emplace(digest, std::weak_ptr<const Pattern<I>>(pattern)).first->second;
    if (const auto* same = std::get_if<std::weak_ptr<const Pattern<I>>>(&held))
      if (auto living = same->lock()) return living;
    throw std::invalid_argument("share: digest belongs to a Pattern of another index type");
  }

  // What is known by this digest; nothing if it is not, or no longer, alive.
  AnyPattern find(std::string_view digest) const {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(digest);
    if (found == known_.end()) return {};
    return std::visit([](const auto& weak) -> AnyPattern {
      if (auto living = weak.lock()) return living;
      return {};
    }, found->second);
  }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  using Entry = std::variant<std::weak_ptr<const Pattern<std::int32_t>>, std::weak_ptr<const Pattern<std::int64_t>>>;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Entry, Hash, std::equal_to<>> known_;
};

// Never destroyed: programs may run until the process ends.
inline SharedPatterns& shared_patterns() {
  static auto* all = new SharedPatterns;
  return *all;
}

}  // namespace backsolve
