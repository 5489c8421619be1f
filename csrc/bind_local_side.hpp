// The Python face of a side, the same for matrices in arrays and for those whose lists are fetched.
//
// `At` says how a side is pushed: visit(f) calls f(columns of N, rows of N), n() is the size, `weights` the weights.
#pragma once

#include <nanobind/stl/pair.h>

#include "arrays.hpp"
#include "local_pairs.hpp"

void bind_local_fetched(nb::module_& m);

namespace backsolve::local {

using Index = In<std::int64_t, 1>;
using Values = In<double, 1>;

template <class Side, class At>
std::int64_t length(const Side& side, const At& at, const Index& index, const Values& value) {
  if (side.n() != at.n()) throw nb::value_error("the side belongs to a matrix of another size");
  expect(value, {static_cast<std::int64_t>(index.shape(0))}, "value");
  return static_cast<std::int64_t>(index.shape(0));
}

template <class Side, class At>
void expect_same(const Side& side, const At& at) {
  if (side.n() != at.n()) throw nb::value_error("the side belongs to a matrix of another size");
}

inline void expect_within(std::int64_t n, const Index& index, const char* name) {
  for (std::size_t k = 0; k < index.shape(0); ++k)
    if (index.data()[k] < 0 || index.data()[k] >= n)
      throw nb::value_error(("an index of " + std::string(name) + " is out of range").c_str());
}

template <class Side>
nb::tuple support(const Side& side, bool touched) {
  std::vector<std::int64_t> node;
  std::vector<double> x, r, tau;
  for (const std::int64_t i : side.touched()) {
    const Site& s = *side.find(i);
    if (!touched && s.x == 0) continue;
    node.push_back(i);
    x.push_back(s.x);
    r.push_back(s.r);
    tau.push_back(side.tau(s));
  }
  return nb::make_tuple(own(std::move(node)), own(std::move(x)), own(std::move(r)), own(std::move(tau)));
}

template <class Side, class At>
nb::class_<Side> bind_side(nb::module_& m, const char* name) {
  nb::class_<Side> c(m, name);
  c.def(nb::init<std::int64_t>(), nb::arg("n"));
  c.def_prop_ro("work", &Side::work);
  c.def_prop_ro("pushes", &Side::pushes);
  c.def_prop_ro("volume", &Side::volume);
  c.def_prop_ro("touched", [](const Side& s) { return s.touched().size(); });
  c.def("clear", &Side::clear);
  c.def("load", [](Side& side, const At& at, Index index, Values value) {
    const std::int64_t count = length(side, at, index, value);
    nb::gil_scoped_release release;
    at.visit([&](const auto& columns, const auto& rows) { side.load(columns, rows, at.weights, index.data(), value.data(), count); });
  }, nb::arg("setting"), nb::arg("index").noconvert(), nb::arg("value").noconvert());
  c.def("push", [](Side& side, const At& at, double eps, double omega, std::int64_t budget) {
    expect_same(side, at);
    nb::gil_scoped_release release;
    return at.visit([&](const auto& columns, const auto& rows) { return side.push(columns, rows, at.weights, eps, omega, budget); });
  }, nb::arg("setting"), nb::arg("eps"), nb::arg("omega"), nb::arg("budget"));
  c.def("add", [](Side& side, const At& at, Index index, Values step) {
    const std::int64_t count = length(side, at, index, step);
    nb::gil_scoped_release release;
    at.visit([&](const auto& columns, const auto& rows) { side.add(columns, rows, at.weights, index.data(), step.data(), count); });
  }, nb::arg("setting"), nb::arg("index").noconvert(), nb::arg("step").noconvert());
  c.def("recompute", [](Side& side, const At& at, Index index, Values value) {
    const std::int64_t count = length(side, at, index, value);
    expect_within(side.n(), index, "the right-hand side");
    nb::gil_scoped_release release;
    at.visit([&](const auto& columns, const auto& rows) { side.recompute(columns, rows, at.weights, index.data(), value.data(), count); });
  }, nb::arg("setting"), nb::arg("index").noconvert(), nb::arg("value").noconvert());
  c.def("bounds", [](const Side& side, const At& at) {
    expect_same(side, at);
    Bounds found;
    {
      nb::gil_scoped_release release;
      found = at.visit([&](const auto&, const auto& rows) { return side.bounds(rows, at.weights); });
    }
    return nb::make_tuple(found.rows, found.columns, found.weakest);
  }, nb::arg("setting"));
  c.def("standing", [](const Side& side, const At& at) { return side.standing(at.weights); }, nb::arg("setting"));
  c.def("support", &support<Side>, nb::arg("touched") = false);
  c.def("block", [](const Side& side, const At& at, double eps) {
    expect_same(side, at);
    Block found;
    {
      nb::gil_scoped_release release;
      found = at.visit([&](const auto& columns, const auto&) { return block(side, columns, eps); });
    }
    return nb::make_tuple(own(std::move(found.node)), own(std::move(found.ptr)), own(std::move(found.idx)), own(std::move(found.value)));
  }, nb::arg("setting"), nb::arg("eps"));
  return c;
}

template <class Side>
nb::tuple bound_functional(const Side& primal, const Side& dual, Index index, Values t) {
  if (primal.n() != dual.n()) throw nb::value_error("the sides belong to matrices of different sizes");
  const std::int64_t count = static_cast<std::int64_t>(index.shape(0));
  expect(t, {count}, "t");
  expect_within(primal.n(), index, "t");
  const Functional found = functional(primal, dual, index.data(), t.data(), count);
  return nb::make_tuple(found.value, found.rounding);
}

inline nb::tuple arrays(Outer&& found) {
  return nb::make_tuple(own(std::move(found.slot)), own(std::move(found.row)), own(std::move(found.column)), own(std::move(found.value)));
}

}  // namespace backsolve::local
