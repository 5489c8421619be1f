"""Operators and factorizations for other libraries' solvers, and our solvers for their operators."""
