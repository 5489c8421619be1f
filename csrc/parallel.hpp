// Threads for row-parallel kernels.
//
// Work is cut into chunks that depend on the matrix alone, never on the number of threads, and each chunk
// is computed by one thread in a fixed order: results are bit-equal for every thread count. Threads live
// for one call only, so that a process may fork at any time, and small jobs never start one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace backsolve {

// Multiply-adds below which starting a thread costs more than it saves.
inline constexpr std::int64_t kParallelWork = std::int64_t{1} << 20;

inline int available_cores() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores ? static_cast<int>(cores) : 1;
}

// BACKSOLVE_NUM_THREADS, else the cores this process may use.
inline int thread_count() {
  if (const char* text = std::getenv("BACKSOLVE_NUM_THREADS")) {
    const long wanted = std::strtol(text, nullptr, 10);
    if (wanted >= 1 && wanted <= 1024) return static_cast<int>(wanted);
  }
  return available_cores();
}

// Calls body(chunk) once for every chunk in [0, chunks); body must not throw.
template <class Body>
void for_chunks(std::int64_t chunks, std::int64_t work, const Body& body) {
  const std::int64_t wanted =
      work < kParallelWork ? 1 : std::min<std::int64_t>(thread_count(), chunks);
  std::atomic<std::int64_t> next{0};
  const auto drain = [&] {
    for (std::int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) body(chunk);
  };
  std::vector<std::thread> helpers;
  if (wanted > 1) {
    helpers.reserve(static_cast<std::size_t>(wanted - 1));
    try {
      for (std::int64_t t = 1; t < wanted; ++t) helpers.emplace_back(drain);
    } catch (const std::system_error&) {
      // No more threads to be had: the ones that run, and this one, do all the work.
    }
  }
  drain();
  for (auto& helper : helpers) helper.join();
}

}  // namespace backsolve
