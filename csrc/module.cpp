// The module: what each file binds.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_patterns(nb::module_& m);  // bind.cpp
void bind_analysis(nb::module_& m);
void bind_dense(nb::module_& m);
void bind_elimination(nb::module_& m);
void bind_extended(nb::module_& m);
void bind_ffi(nb::module_& m);
void bind_incomplete(nb::module_& m);
void bind_local(nb::module_& m);
void bind_local_margins(nb::module_& m);
void bind_local_pagerank(nb::module_& m);
void bind_local_transpose(nb::module_& m);

NB_MODULE(_kernels, m) {
  nb::set_leak_warnings(false);  // patterns that live until the interpreter exits are no leak
  bind_patterns(m);
  bind_analysis(m);
  bind_dense(m);
  bind_elimination(m);
  bind_extended(m);
  bind_ffi(m);
  bind_incomplete(m);
  bind_local(m);
  bind_local_margins(m);
  bind_local_pagerank(m);
  bind_local_transpose(m);
}
