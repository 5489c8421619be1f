// Python face of the columns of matrices on disk, whose positions are int64. No logic.
#include <nanobind/stl/optional.h>

#include <optional>

#include "arrays.hpp"
#include "local_transpose.hpp"

using nb::literals::operator""_a;
using backsolve::local::View;
using Position = std::int64_t;

namespace {

template <class I, class T>
View<Position, I, T> rows_of(const In<Position, 1>& indptr, const In<I, 1>& indices) {
  if (indptr.shape(0) < 1) throw nb::value_error("indptr is empty; it must hold one number more than there are rows");
  View<Position, I, T> view;
  view.n = static_cast<std::int64_t>(indptr.shape(0)) - 1;
  view.stored = view.values = static_cast<std::int64_t>(indices.shape(0));
  view.ptr = indptr.data();
  view.idx = indices.data();
  return view;
}

void expect_lists(std::int64_t first, std::int64_t last, std::int64_t n) {
  if (first < 0 || last > n) throw nb::value_error("first and last must lie in [0, n]");
}

template <class I>
void bind_columns(nb::module_& m) {
  m.def("local_count_columns", [](In<I, 1> indices, std::int64_t n, std::int64_t first, Out<Position, 1> counts) {
    const std::int64_t last = first + static_cast<std::int64_t>(counts.shape(0));
    nb::gil_scoped_release release;
    backsolve::local::count_columns(indices.data(), static_cast<std::int64_t>(indices.shape(0)), n, first, last,
                                    counts.data());
  }, "indices"_a.noconvert(), "n"_a, "first"_a, "counts"_a.noconvert());
  m.def("local_scatter_columns", [](In<Position, 1> indptr, In<I, 1> indices, std::int64_t first_row,
                                    std::int64_t first, Out<Position, 1> next, Out<I, 1> t_indices,
                                    Out<Position, 1> slot) {
    if (indptr.shape(0) < 1) throw nb::value_error("indptr is empty");
    const std::int64_t room = t_indices.shape(0), last = first + static_cast<std::int64_t>(next.shape(0));
    expect(slot, {room}, "slot");
    const backsolve::local::Piece<Position, I> piece{first_row, static_cast<std::int64_t>(indptr.shape(0)) - 1,
                                                     static_cast<std::int64_t>(indices.shape(0)), indptr.data(),
                                                     indices.data()};
    nb::gil_scoped_release release;
    backsolve::local::scatter_columns(piece, first, last, next.data(), t_indices.data(), slot.data(), room);
  }, "indptr"_a.noconvert(), "indices"_a.noconvert(), "first_row"_a, "first"_a, "next"_a.noconvert(),
     "t_indices"_a.noconvert(), "slot"_a.noconvert());
  m.def("local_foreign_column", [](In<Position, 1> indptr, In<I, 1> indices, In<Position, 1> t_indptr, In<I, 1> t_indices,
                                   In<Position, 1> t_slot, std::int64_t first, std::int64_t last) {
    const auto rows = rows_of<I, float>(indptr, indices);
    auto columns = rows_of<I, float>(t_indptr, t_indices);
    if (columns.n != rows.n) throw nb::value_error("t_indptr must be as long as indptr");
    expect(t_slot, {columns.stored}, "t_slot");
    expect_lists(first, last, rows.n);
    columns.slot = t_slot.data();
    columns.name = "column";
    nb::gil_scoped_release release;
    return backsolve::local::foreign_column(rows, columns, first, last);
  }, "indptr"_a.noconvert(), "indices"_a.noconvert(), "t_indptr"_a.noconvert(), "t_indices"_a.noconvert(),
     "t_slot"_a.noconvert(), "first"_a, "last"_a);
}

template <class I, class T>
void bind_mirror(nb::module_& m) {
  m.def("local_without_mirror", [](In<Position, 1> indptr, In<I, 1> indices, std::optional<In<T, 1>> data,
                                   std::int64_t first, std::int64_t last) {
    auto rows = rows_of<I, T>(indptr, indices);
    expect_lists(first, last, rows.n);
    if (data) {
      expect(*data, {rows.stored}, "data");
      rows.val = data->data();
    }
    std::pair<std::int64_t, std::int64_t> found;
    {
      nb::gil_scoped_release release;
      found = backsolve::local::without_mirror(rows, first, last);
    }
    return nb::make_tuple(found.first, found.second);
  }, "indptr"_a.noconvert(), "indices"_a.noconvert(), "data"_a.noconvert().none(), "first"_a, "last"_a);
  m.def("local_without_mirror_at", [](In<Position, 1> indptr, In<I, 1> indices, In<T, 1> data, In<std::int64_t, 1> nodes) {
    auto rows = rows_of<I, T>(indptr, indices);
    expect(data, {rows.stored}, "data");
    rows.val = data.data();
    const std::int64_t count = static_cast<std::int64_t>(nodes.shape(0));
    std::pair<std::int64_t, std::int64_t> found{-1, -1};
    for (std::int64_t k = 0; k < count && found.first < 0; ++k) {
      expect_lists(nodes.data()[k], nodes.data()[k] + 1, rows.n);
      found = backsolve::local::without_mirror(rows, nodes.data()[k], nodes.data()[k] + 1);
    }
    return nb::make_tuple(found.first, found.second);
  }, "indptr"_a.noconvert(), "indices"_a.noconvert(), "data"_a.noconvert(), "nodes"_a.noconvert());
}

template <class I>
void bind_index(nb::module_& m) {
  bind_columns<I>(m);
  bind_mirror<I, float>(m);
  bind_mirror<I, double>(m);
}

}  // namespace

void bind_local_transpose(nb::module_& m) {
  bind_index<std::int32_t>(m);
  bind_index<std::int64_t>(m);
}
