// What nothing that touches these unknowns can beat: read-modify-write of 32 byte records, (a) in the order of a list of
// numbers, (b) list after list of a matrix, as pushes meet them. Compiled by local_flat.py.
#include <cstdint>
#include <ctime>

struct Record { double r, x, weight; std::uint32_t place, queued; };

static double seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

extern "C" double by_list(Record* records, const std::int64_t* list, std::int64_t count) {
  const double start = seconds();
  for (std::int64_t k = 0; k < count; ++k) records[list[k]].r -= 1e-3;
  return seconds() - start;
}

extern "C" double by_rows(Record* records, const std::int64_t* indptr, const std::int32_t* indices, const double* data,
                          const std::int64_t* rows, std::int64_t count) {
  const double start = seconds();
  for (std::int64_t q = 0; q < count; ++q)
    for (std::int64_t k = indptr[rows[q]]; k < indptr[rows[q] + 1]; ++k) records[indices[k]].r -= 1e-3 * data[k];
  return seconds() - start;
}
