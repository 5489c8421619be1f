// What nothing that touches these nodes can beat: read-modify-write of 16 byte records, (a) in the order of a list of
// numbers, (b) row after row out of a graph, as pushes meet them. Compiled by local_pagerank.py.
#include <time.h>

#include <cstdint>

struct Record { double r; std::int64_t rest; };

static double seconds() {  // CPU time
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

extern "C" double by_list(Record* records, const std::int32_t* list, std::int64_t count) {
  const double start = seconds();
  for (std::int64_t k = 0; k < count; ++k) records[list[k]].r += 1.0;
  return seconds() - start;
}

extern "C" double by_rows(Record* records, const std::int32_t* indptr, const std::int32_t* indices,
                          const std::int64_t* rows, std::int64_t count) {
  const double start = seconds();
  for (std::int64_t q = 0; q < count; ++q)
    for (std::int32_t k = indptr[rows[q]]; k < indptr[rows[q] + 1]; ++k) records[indices[k]].r += 1.0;
  return seconds() - start;
}
