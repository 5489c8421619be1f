// Margins, and columns made of rows and compared with them, on damaged matrices.
#include "../local_margins.hpp"
#include "../local_transpose.hpp"
#include "damaged.hpp"

namespace {

using namespace backsolve;
using fuzz::Random;

template <class P, class I, class T>
void trial(Random& g, bool broken) {
  fuzz::Damaged<P, I, T> m(g, false);
  if (broken) m.break_something(g);
  const auto rows = m.rows(), columns = m.columns();
  std::vector<double> out(static_cast<std::size_t>(m.n));
  const double* weight = g() % 2 && m.n ? m.weight.data() : nullptr;
  local::margins(rows, weight, 0, m.n, out.data());
  local::margins(columns, weight, 0, m.n, out.data());
  std::vector<std::int64_t> node;
  for (std::int64_t k = 0; k < m.n; ++k)
    node.push_back(broken && g() % 40 == 0 ? fuzz::any_integer<std::int64_t>(g) : static_cast<std::int64_t>(g() % static_cast<std::uint64_t>(m.n)));
  local::margins_at(rows, weight, node.data(), m.n, out.data());
  local::foreign_column(rows, columns, 0, m.n);
  local::without_mirror(rows, 0, m.n);

  const std::int64_t low = m.n ? static_cast<std::int64_t>(g() % static_cast<std::uint64_t>(m.n)) : 0, high = m.n;
  const std::int64_t count = static_cast<std::int64_t>(m.idx.size());
  std::vector<std::int64_t> next(static_cast<std::size_t>(high - low));
  local::count_columns(m.idx.data(), count, m.n, low, high, next.data());
  std::int64_t room = 0;
  for (std::int64_t& c : next) room += std::exchange(c, room);
  std::vector<I> t_idx(static_cast<std::size_t>(room));
  std::vector<P> slot(static_cast<std::size_t>(room));
  if (broken && !m.idx.empty()) m.idx[g() % m.idx.size()] = fuzz::any_integer<I>(g);  // as another process may
  local::scatter_columns(local::Piece<P, I>{0, m.n, count, m.ptr.data(), m.idx.data()}, low, high, next.data(),
                         t_idx.data(), slot.data(), room);
}

}  // namespace

int main(int argc, char** argv) {
  return fuzz::run(argc, argv, "columns", [](Random& g, bool broken) {
    if (g() % 2) return trial<std::int32_t, std::int32_t, float>(g, broken);
    return trial<std::int64_t, std::int64_t, double>(g, broken);
  });
}
