// Python face of local solves with lists that are fetched: checks sizes, releases the GIL, calls. No logic.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "bind_local_side.hpp"
#include "local_fetched.hpp"

using nb::literals::operator""_a;
using namespace backsolve::local;

namespace {

using FetchedSide = BasicSide<HashedSites<Site>>;

// A side of a matrix: N is M, or its transpose.
struct FetchedSetting {
  const Fetched* matrix;
  bool dual;
  Weights weights;

  std::int64_t n() const { return matrix->n(); }
  template <class F>
  auto visit(F&& f) const {
    const std::lock_guard lock(matrix->guard);
    return dual ? f(matrix->rows(), matrix->columns()) : f(matrix->columns(), matrix->rows());
  }
};

// In one sense only, by which it is pushed: the other would have lists fetched for the sake of a second bound.
void bind_setting(nb::module_& m) {
  nb::class_<FetchedSetting> c(m, "LocalFetchedSetting");
  c.def("__init__", [](FetchedSetting* self, const Fetched& matrix, bool dual, bool by_rows) {
    Weights weights;
    weights.sense = by_rows ? Sense::rows : Sense::columns;
    weights.rows = by_rows;
    weights.columns = !by_rows;
    new (self) FetchedSetting{&matrix, dual, weights};
  }, nb::keep_alive<1, 2>(), "matrix"_a, "dual"_a, "by_rows"_a);
  c.def_prop_ro("dual", [](const FetchedSetting& s) { return s.dual; });
  c.def_prop_ro("by_rows", [](const FetchedSetting& s) { return s.weights.rows; });
}

std::vector<std::int64_t> unknown(const Fetched& matrix, bool columns, const Index& ids) {
  std::vector<std::int64_t> out(ids.data(), ids.data() + ids.shape(0));
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  const std::lock_guard lock(matrix.guard);
  const FetchedLists& lists = columns ? matrix.columns() : matrix.rows();
  out.erase(std::remove_if(out.begin(), out.end(), [&](std::int64_t i) { return lists.known(i); }), out.end());
  return out;
}

void bind_matrix(nb::module_& m) {
  nb::class_<Fetched> c(m, "LocalFetched");
  c.def("__init__", [](Fetched* self, std::int64_t n, bool symmetric, bool both, bool rows, bool columns, double least) {
    new (self) Fetched(n, symmetric, both, Promise{rows, rows ? least : 0}, Promise{columns, columns ? least : 0});
  }, "n"_a, "symmetric"_a, "both"_a, "rows"_a, "columns"_a, "least"_a);
  c.def("append", [](Fetched& self, bool columns, Index id, Index count, Index idx, Values val, std::optional<Index> slot) {
    const auto lists = static_cast<std::int64_t>(id.shape(0)), entries = static_cast<std::int64_t>(idx.shape(0));
    expect(count, {lists}, "counts");
    expect(val, {entries}, "values");
    if (slot) expect(*slot, {entries}, "slot");
    std::int64_t sum = 0;
    for (std::int64_t k = 0; k < lists; ++k) {
      if (count.data()[k] < 0 || count.data()[k] > entries - sum) throw nb::value_error("counts must be the lengths of the lists");
      sum += count.data()[k];
    }
    if (sum != entries) throw nb::value_error("counts must be the lengths of the lists");
    nb::gil_scoped_release release;
    const std::lock_guard lock(self.guard);
    self.append(columns, lists, id.data(), count.data(), idx.data(), val.data(), slot ? slot->data() : nullptr);
  }, "columns"_a, "id"_a.noconvert(), "count"_a.noconvert(), "idx"_a.noconvert(), "val"_a.noconvert(), "slot"_a.noconvert().none());
  c.def("unknown", [](const Fetched& self, bool columns, Index ids) { return own(unknown(self, columns, ids)); },
        "columns"_a, "ids"_a.noconvert());
  c.def("expect", [](Fetched& self, Index ids, Index counts) {
    expect(counts, {static_cast<std::int64_t>(ids.shape(0))}, "counts");
    std::vector<std::int64_t> out;
    const std::lock_guard lock(self.guard);
    for (std::size_t k = 0; k < ids.shape(0); ++k)
      if (self.own_columns().expect(ids.data()[k], counts.data()[k])) out.push_back(ids.data()[k]);
    return own(std::move(out));
  }, "ids"_a.noconvert(), "counts"_a.noconvert());
  c.def("margins", [](const Fetched& self, bool columns, Index ids) {
    const std::lock_guard lock(self.guard);
    const FetchedLists& lists = columns ? self.columns() : self.rows();
    std::vector<double> out;
    for (std::size_t k = 0; k < ids.shape(0); ++k) out.push_back(lists.margin(ids.data()[k]));
    return own(std::move(out));
  }, "columns"_a, "ids"_a.noconvert());
  c.def("lists", [](const Fetched& self, bool columns, Index ids) {
    const std::lock_guard lock(self.guard);
    const FetchedLists& lists = columns ? self.columns() : self.rows();
    std::vector<std::int64_t> ptr{0}, idx, slot;
    std::vector<double> val;
    for (std::size_t k = 0; k < ids.shape(0); ++k) {
      lists.each(ids.data()[k], [&](std::int64_t j, double value, std::int64_t s) {
        idx.push_back(j);
        val.push_back(value);
        slot.push_back(s);
      });
      ptr.push_back(static_cast<std::int64_t>(idx.size()));
    }
    return nb::make_tuple(own(std::move(ptr)), own(std::move(idx)), own(std::move(val)), own(std::move(slot)));
  }, "columns"_a, "ids"_a.noconvert());
  c.def_prop_ro("gap", [](const Fetched& self) {
    const std::lock_guard lock(self.guard);
    return std::min(self.rows().gap(), self.columns().gap());
  });
  c.def_prop_ro("size", [](const Fetched& self) {
    const std::lock_guard lock(self.guard);
    const std::int64_t columns = &self.rows() == &self.columns() ? 0 : 1;
    return nb::make_tuple(self.rows().lists() + columns * self.columns().lists(),
                          self.rows().entries() + columns * self.columns().entries());
  });
}

}  // namespace

void bind_local_fetched(nb::module_& m) {
  bind_matrix(m);
  bind_setting(m);
  auto c = bind_side<FetchedSide, FetchedSetting>(m, "LocalFetchedSide");
  // Whether pushes at all of these need no list that is not there.
  c.def("ready", [](FetchedSide& side, const FetchedSetting& at, Index index) {
    expect_same(side, at);
    expect_within(side.n(), index, "the step");
    return at.visit([&](const auto& columns, const auto& rows) {
      bool all = true;
      for (std::size_t k = 0; k < index.shape(0); ++k) all &= side.ready(columns, rows, at.weights, index.data()[k]);
      return all;
    });
  }, "setting"_a, "index"_a.noconvert());
  // (columns of N, rows of N) that were missing, each perhaps more than once; they are forgotten.
  c.def("wanted", [](FetchedSide& side) {
    auto columns = std::exchange(side.wanted_columns, {}), rows = std::exchange(side.wanted_rows, {});
    return nb::make_tuple(own(std::move(columns)), own(std::move(rows)));
  });
  m.def("local_functional", &bound_functional<FetchedSide>, "primal"_a, "dual"_a, "index"_a.noconvert(), "t"_a.noconvert());
  m.def("local_outer", [](const FetchedSide& primal, const FetchedSide& dual, const Fetched& matrix) {
    if (primal.n() != matrix.n() || dual.n() != matrix.n()) throw nb::value_error("the sides belong to matrices of different sizes");
    const std::lock_guard lock(matrix.guard);
    return arrays(outer(primal, dual, matrix.rows(), matrix.columns()));
  }, "primal"_a, "dual"_a, "matrix"_a);
}
