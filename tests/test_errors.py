"""Bad input: one sentence for each mistake, with the argument, what was expected, what was given, and a remedy."""

import pickle
import re
import sys
import types
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs

N = 3
D = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 4.0]])
S = sp.csr_array(D)
B = np.ones(N)
TB = torch.ones(N, dtype=torch.float64)
TD = torch.from_numpy(D)
PLACES = ([0, 1, 2], [0, 1, 2, 3])  # indices and indptr of a diagonal matrix
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch calls its sparse CSR layout a beta, once
    TS = TD.to_sparse_csr()
MATRICES = {"numpy dense": (D, B), "numpy sparse": (S, B), "torch dense": (TD, TB), "torch sparse": (TS, TB)}

FLOATS = "float32, float64, complex64 or complex128"
LONG = np.dtype(np.longdouble).name


def for_all(name, call, error, *words):
    """The same mistake with each kind of matrix."""
    return [(f"{name}, {kind}", lambda A=A, b=b: call(A, b), error, *words) for kind, (A, b) in MATRICES.items()]


def csr(data=None, indices=PLACES[0], indptr=PLACES[1], shape=(N, N)):
    return bs.CSR(np.ones(N) if data is None else data, indices, indptr, shape)


def batched(A):
    return bs.aslinearoperator(A).with_data(np.stack([bs.aslinearoperator(A).data] * 2))


def solve_fn(**options):
    return lambda: bs.solve(D, B, **options)


# (what, call, exception, argument, expectation, value given, remedy)
SHAPES = [
    *for_all("b is a scalar", lambda A, b: bs.solve(A, b[0]), ValueError, "b ", "(3,)", "scalar", "each of the rows"),
    *for_all("b too short", lambda A, b: bs.solve(A, b[:2]), ValueError, "b ", "length 3", "(2,)", "each of the rows"),
    *for_all(
        "b is a batch of vectors",
        lambda A, b: bs.solve(A, b.repeat(5).reshape(5, 3) if b is B else b.repeat(5, 1)),
        ValueError,
        "b ",
        "(..., 3, k)",
        "(5, 3)",
        "b[..., None]",
    ),
    *for_all(
        "b is transposed",
        lambda A, b: bs.solve(A, b.reshape(1, 3)),
        ValueError,
        "b ",
        "(..., 3, k)",
        "(1, 3)",
        "b.T",
    ),
    *for_all(
        "b has other rows",
        lambda A, b: bs.solve(A, b.reshape(3, 1)[:2]),
        ValueError,
        "b ",
        "(..., 3, k)",
        "(2, 1)",
        "rows",
    ),
    ("A is not square", lambda: bs.solve(D[:2], B[:2]), ValueError, "A ", "square", "(2, 3)", "least squares"),
    ("sparse A is not square", lambda: bs.solve(S[:2], B[:2]), ValueError, "A ", "square", "(2, 3)", "least squares"),
    ("torch A is not square", lambda: bs.solve(TD[:2], TB[:2]), ValueError, "A ", "square", "(2, 3)", "least squares"),
    ("A is 1-D", lambda: bs.solve(B, B), ValueError, "A ", "(..., n, n)", "(3,)", "numpy.diag"),
    ("torch A is 1-D", lambda: bs.solve(TB, TB), ValueError, "A ", "(..., n, n)", "(3,)", "torch.diag"),
    ("sparse A is 1-D", lambda: bs.solve(sp.coo_array(B), B), ValueError, "A ", "2-D", "shape (3,)", "reshape"),
    ("sparse A is 1-D, torch b", lambda: bs.solve(sp.coo_array(B), TB), ValueError, "A ", "2-D", "(3,)", "reshape"),
    (
        "mismatched batch",
        lambda: bs.solve(np.stack([D] * 2), np.ones((5, 3, 1))),
        ValueError,
        "A and b",
        "broadcast",
        "(2,) for A and (5,) for b",
        "make them equal",
    ),
    (
        "mismatched batch, sparse",
        lambda: bs.solve(batched(S), np.ones((5, 3, 1))),
        ValueError,
        "A and b",
        "broadcast",
        "(2,) for A and (5,) for b",
        "make them equal",
    ),
    (
        "mismatched batch, torch",
        lambda: bs.solve(torch.stack([TD] * 2), torch.ones(5, 3, 1)),
        ValueError,
        "A and b",
        "broadcast",
        "(2,) for A and (5,) for b",
        "make them equal",
    ),
    ("x of A @ x", lambda: bs.aslinearoperator(S) @ np.ones(2), ValueError, "x ", "length 3", "(2,)", "columns"),
    ("Dense of a list", lambda: bs.Dense([[1.0]]), ValueError, "data", "array", "[[1.0]]", "(..., n_rows, n_cols)"),
    ("with_data", lambda: csr().with_data(np.ones(4)), ValueError, "data", "(..., 3)", "(4,)", "with_data"),
    ("with_data of a list", lambda: csr().with_data([1.0]), ValueError, "data", "an array", "[1.0]", "with_data"),
    ("refactorize", lambda: bs.factorize(S).refactorize(B), ValueError, "data", "(..., 6)", "(3,)", "with_data"),
]

DTYPES = [
    *for_all(
        "b is float16 of NumPy",
        lambda A, b: bs.solve(A, B.astype(np.float16)),
        TypeError,
        "b ",
        FLOATS,
        "float16",
        "numpy.asarray(b, 'float64')",
    ),
    *for_all("b is text", lambda A, b: bs.solve(A, ["a"] * 3), TypeError, "b ", FLOATS, "['a', 'a', 'a']", "convert"),
    *for_all("b is None", lambda A, b: bs.solve(A, None), TypeError, "b ", FLOATS, "None", "convert"),
    *for_all("b is ragged", lambda A, b: bs.solve(A, [[1], [2, 3], [4]]), TypeError, "b ", FLOATS, "[2, 3]", "equal"),
    *for_all("b is sparse", lambda A, b: bs.solve(A, S), TypeError, "b ", FLOATS, "csr_array", "b.toarray()"),
    *for_all("b is an operator", lambda A, b: bs.solve(A, csr()), TypeError, "b ", FLOATS, "CSR", "b.toarray()"),
    *for_all("b is masked", lambda A, b: bs.solve(A, np.ma.ones(3)), TypeError, "b ", FLOATS, "MaskedArray", "filled"),
    *for_all(
        "b is sparse of torch",
        lambda A, b: bs.solve(A, TB[:, None].to_sparse()),
        TypeError,
        "b ",
        "dense",
        "sparse_coo",
        "b.to_dense()",
    ),
    ("A is longdouble", lambda: bs.solve(D.astype(np.longdouble), B), TypeError, "A ", FLOATS, LONG, "convert"),
    ("A is float16", lambda: bs.solve(D.astype(np.float16), B), TypeError, "A ", FLOATS, "float16", "convert"),
    ("A is of objects", lambda: bs.solve(D.astype(object), B), TypeError, "A ", FLOATS, "object", "convert"),
    ("A is text", lambda: bs.solve("abc", B), TypeError, "A ", FLOATS, "'abc'", "convert"),
    ("A is of text", lambda: bs.solve(D.astype(str), B), TypeError, "A ", FLOATS, "<U32", "convert"),
    ("A is of dates", lambda: bs.solve(np.zeros((3, 3), "M8[s]"), B), TypeError, "A ", FLOATS, "datetime64", "convert"),
    ("A is None", lambda: bs.solve(None, B), TypeError, "A ", FLOATS, "None", "convert"),
    ("values are float16", lambda: bs.solve(csr(np.ones(3, "f2")), B), TypeError, "A ", FLOATS, "float16", "convert"),
    (
        "sparse A is longdouble",
        lambda: bs.solve(S.astype(np.longdouble), B),
        TypeError,
        "A ",
        FLOATS,
        LONG,
        "convert",
    ),
    ("torch A is half", lambda: bs.solve(TD.half(), TB), TypeError, "A ", FLOATS, "torch.float16", ".float() before"),
    ("torch b is bfloat16", lambda: bs.solve(TS, TB.bfloat16()), TypeError, "b ", FLOATS, "bfloat16", "autocast"),
    ("torch A is int", lambda: bs.solve(TD.long(), TB), TypeError, "A ", FLOATS, "torch.int64", ".double()"),
    ("torch b is int", lambda: bs.solve(TS, TB.int()), TypeError, "b ", FLOATS, "torch.int32", ".double()"),
    ("torch A is bool", lambda: bs.solve(TD.bool(), TB), TypeError, "A ", FLOATS, "torch.bool", ".double()"),
    (
        "b wider than the factors",
        lambda: bs.factorize(D.astype(np.float32)).solve(B),
        TypeError,
        "b ",
        "wider",
        "float64",
        "convert A before",
    ),
]

INDICES = [
    ("column too large", lambda: csr(indices=[0, 1, 3]), ValueError, "indices", "[0, 3)", "indices[2] is 3", "from 0"),
    ("column negative", lambda: csr(indices=[0, -1, 2]), ValueError, "indices", "[0, 3)", "indices[1] is -1", "from 0"),
    (
        "column wraps in int32",
        lambda: csr(indices=np.array([0, 1, 2**32 + 2])),
        ValueError,
        "indices",
        "[0, 3)",
        str(2**32 + 2),
        "from 0",
    ),
    ("float columns", lambda: csr(indices=np.arange(3.0)), ValueError, "indices", "integers", "float64", "swapped"),
    ("bool columns", lambda: csr(indices=B > 0), ValueError, "indices", "integers", "bool", "astype"),
    ("2-D indptr", lambda: csr(indptr=[[0, 1, 2, 3]]), ValueError, "indptr", "1-D", "(1, 4)", "astype"),
    (
        "uint64 columns overflow",
        lambda: csr(indices=np.array([0, 1, 2**63], np.uint64)),
        ValueError,
        "indices",
        "fit into int64",
        str(2**63),
        "unsigned",
    ),
    ("short indptr", lambda: csr(indptr=[0, 1, 3]), ValueError, "indptr", "rows + 1 = 4", "got 3", "shape (3, 3)"),
    ("indptr starts late", lambda: csr(indptr=[1, 1, 2, 3]), ValueError, "indptr", "start with 0", "= 1", "indptr[0]"),
    ("indptr decreases", lambda: csr(indptr=[0, 2, 1, 3]), ValueError, "indptr", "not decrease", "= 1", "indptr[2]"),
    ("indptr ends early", lambda: csr(indptr=[0, 1, 2, 2]), ValueError, "indptr", "end with", "= 2", "indices, 3"),
    (
        "indices and indptr swapped",
        lambda: csr(np.ones(6), S.indptr, S.indices),
        ValueError,
        "indices and indptr",
        "CSR(data, indices, indptr, shape)",
        "length 4",
        "fit when swapped",
    ),
    (
        "swapped at equal length",
        lambda: csr(np.ones(4), [0, 1, 2, 4], [0, 1, 2, 0]),
        ValueError,
        "indices and indptr",
        "CSR(data, indices, indptr, shape)",
        "length 4",
        "fit when swapped",
    ),
    ("too many values", lambda: csr(np.ones(4)), ValueError, "values", "(..., 3)", "shape (4,)", "another pattern"),
    ("values are a scalar", lambda: csr(1.0), ValueError, "values", "(..., nnz)", "1.", "one per entry"),
    ("shape is a number", lambda: csr(shape=3), ValueError, "shape", "pair", "got 3", "(n, n)"),
    ("shape is fractional", lambda: csr(shape=(3.5, 3)), ValueError, "shape", "integers", "(3.5, 3)", "(n, n)"),
    ("shape is negative", lambda: csr(shape=(-3, 3)), ValueError, "shape", "[0, ", "(-3, 3)", "count"),
    ("shape is too large", lambda: csr(shape=(3, 2**70)), ValueError, "shape", "2⁶³", str(2**70), "count"),
    (
        "row too large",
        lambda: bs.coo(B[:1], ([3], [0]), (3, 3)),
        ValueError,
        "rows",
        "[0, 3)",
        "rows[0] is 3",
        "from 0",
    ),
    ("row negative", lambda: bs.coo(B[:1], ([-1], [0]), (3, 3)), ValueError, "rows", "[0, 3)", "is -1", "not wrapped"),
    (
        "lengths differ",
        lambda: bs.coo(B, ([0], [0, 1]), (3, 3)),
        ValueError,
        "rows and cols",
        "same",
        "1 and 2",
        "pair",
    ),
    ("values differ", lambda: bs.coo(B, ([0], [0]), (3, 3)), ValueError, "values", "(..., 1)", "(3,)", "rows and cols"),
    ("no pair", lambda: bs.coo(B, None, (3, 3)), ValueError, "index", "pair", "None", "(rows, cols)"),
    ("pairs in rows", lambda: bs.coo(B, np.ones((3, 2), int), (3, 3)), ValueError, "index", "pair", "(3, 2)", "rows"),
    ("float rows", lambda: bs.coo(B[:1], ([0.0], [0]), (3, 3)), ValueError, "rows", "integers", "float64", "swapped"),
    (
        "uint64 rows overflow",
        lambda: bs.coo(B[:1], (np.array([2**63], np.uint64), [0]), (3, 3)),
        ValueError,
        "rows",
        "int64",
        str(2**63),
        "unsigned",
    ),
    ("unsorted Pattern", lambda: bs.Pattern([0, 2], [1, 0], (1, 2)), ValueError, "indices", "sorted", "(0)", "CSR"),
    ("no Pattern", lambda: bs.CSR.from_pattern(B, D), TypeError, "pattern", "backsolve.Pattern", "(3, 3)", "Pattern"),
    (
        "slots out of range",
        lambda: bs.CSR.from_pattern(B, csr().pattern, [0, 1, 9]),
        ValueError,
        "slots",
        "[0, 3)",
        "0 to 9",
        "from_pattern",
    ),
    (
        "narrow indices for a wide shape",
        lambda: bs.Pattern([0, 1], [2**31], (1, 2**31 + 1), index_dtype="int32"),
        ValueError,
        "index_dtype",
        "below 2147483647",
        "'int32'",
        "leave it out",
    ),
    (
        "int64 indices in SuperLU",
        lambda: bs.solve(bs.CSR.from_pattern(B, bs.Pattern(*PLACES[::-1], (3, 3), index_dtype="int64")), B),
        ValueError,
        "'superlu'",
        "int32",
        "int64",
        "fewer than 2³¹ entries",
    ),
]

KINDS = [
    (
        "A is a function without a size",
        lambda: bs.aslinearoperator(lambda v: v),
        TypeError,
        "A ",
        "sparse matrix",
        "<lambda>",
        "MatrixFree(fn, params, shape)",
    ),
    (
        "A is SciPy's LinearOperator beside tensors",
        lambda: bs.solve(sp.linalg.aslinearoperator(S), TB),
        TypeError,
        "A ",
        "map tensors",
        "LinearOperator",
        "MatrixFree(fn, params, shape)",
    ),
    (
        "A is not linear",
        lambda: bs.solve(lambda v: v + 1, B),
        ValueError,
        "A ",
        "linear function",
        "by 1",
        "right-hand side",
    ),
    (
        "MatrixFree of no function",
        lambda: bs.MatrixFree((3, 3), B, B),
        TypeError,
        "fn",
        "function",
        "(3, 3)",
        "the order is",
    ),
    ("MatrixFree of a bad shape", lambda: bs.MatrixFree(abs, B, 3), ValueError, "shape", "pair", "3", "(n, n)"),
    (
        "A is in torch's BSR",
        lambda: bs.solve(_beta(lambda: torch.eye(4).double().to_sparse_bsr((2, 2))), torch.ones(4).double()),
        TypeError,
        "A ",
        "COO, CSR or CSC",
        "sparse_bsr",
        "to_sparse_csr()",
    ),
    (
        "A is a batched torch CSR",
        lambda: bs.solve(_beta(lambda: torch.stack([TD, TD]).to_sparse_csr()), TB),
        ValueError,
        "A ",
        "2-D",
        "(2, 3, 3)",
        "backsolve.CSR(values",
    ),
    (
        "A is a hybrid torch COO",
        lambda: bs.solve(torch.stack([TD] * 3).to_sparse(2), TB),
        ValueError,
        "A ",
        "scalar entries",
        "(3, 3, 3)",
        "backsolve.CSR(values",
    ),
    ("A on meta", lambda: bs.solve(TD.to("meta"), TB), ValueError, "A ", "numbers", "meta", "another device"),
    ("b on meta", lambda: bs.solve(TS, TB.to("meta")), ValueError, "b ", "numbers", "meta", "another device"),
    ("both on meta", lambda: bs.factorize(TD.to("meta")), ValueError, "A ", "numbers", "meta", "another device"),
    (
        "indices on meta",
        lambda: csr(indices=torch.arange(3, device="meta")),
        ValueError,
        "indices",
        "numbers",
        "meta",
        "another device",
    ),
    (
        "dense method, sparse A",
        lambda: bs.solve(S, B, method="lu"),
        ValueError,
        "'lu'",
        "dense",
        "CSR(3x3",
        "method='superlu'",
    ),
    (
        "Cholesky, sparse A",
        lambda: bs.solve(TS, TB, method=bs.Cholesky()),
        ValueError,
        "'cholesky'",
        "dense",
        "CSR(3x3",
        "method='superlu'",
    ),
    (
        "sparse method, dense A",
        lambda: bs.explain(TD, method="superlu"),
        ValueError,
        "'superlu'",
        "sparse",
        "Dense(3x3",
        "method='lu'",
    ),
    (
        "pickled Factorization",
        lambda: pickle.dumps(bs.factorize(S)),
        TypeError,
        "Factorization",
        "memory",
        "pickled",
        "pickle F.A and factorize again",
    ),
]

OPTIONS = [
    *for_all(
        "no method", lambda A, b: bs.solve(A, b, method="ilu"), ValueError, "method", "'superlu'", "'ilu'", "'auto'"
    ),
    ("a local method", solve_fn(method="sublinear"), ValueError, "method", "'lu'", "'sublinear'", "local"),
    (
        "a method class",
        solve_fn(method=bs.LU),
        ValueError,
        "method",
        "method object",
        "class LU",
        "backsolve.SuperLU()",
    ),
    ("method an array", solve_fn(method=B), ValueError, "method", "name", "(3,)", "backsolve.SuperLU()"),
    (
        "rtol twice",
        solve_fn(method=bs.LU(rtol=0.1), rtol=0.2),
        TypeError,
        "rtol",
        "twice",
        "0.1 in LU and 0.2",
        "give one",
    ),
    ("atol twice", solve_fn(method=bs.LU(atol=1), atol=2), TypeError, "atol", "twice", "1 in LU and 2", "give one"),
    *[
        (f"rtol {value!r}", solve_fn(rtol=value), ValueError, "solve: rtol", "float", str(value), "in [0, 1)")
        for value in (-1, 1, 2.5, float("nan"), float("inf"), "1e-3", True, 1j)
    ],
    ("rtol a tensor", solve_fn(rtol=torch.tensor(0.5)), ValueError, "rtol", "float", "tensor(0.5", "in [0, 1)"),
    ("atol negative", solve_fn(atol=-1e-3), ValueError, "solve: atol", "float", "-0.001", "in [0, inf)"),
    ("rtol of SuperLU", lambda: bs.SuperLU(rtol=-1), ValueError, "SuperLU: rtol", "float", "-1", "in [0, 1)"),
    ("atol of LU", lambda: bs.LU(atol="x"), ValueError, "LU: atol", "float", "'x'", "in [0, inf)"),
    ("rtol of Adjoint", lambda: bs.Adjoint(rtol=2), ValueError, "Adjoint: rtol", "float", "got 2", "in [0, 1)"),
    ("on_failure of Adjoint", lambda: bs.Adjoint(on_failure="x"), ValueError, "on_failure", "one of", "'x'", "'warn'"),
    ("ordering", lambda: bs.SuperLU(ordering="amd"), ValueError, "ordering", "one of", "'amd'", "'colamd'"),
    ("ordering a list", lambda: bs.SuperLU(ordering=["x"]), ValueError, "ordering", "one of", "['x']", "'colamd'"),
    ("pivoting", lambda: bs.SuperLU(pivot_threshold=2), ValueError, "pivot_threshold", "float", "got 2", "in [0, 1]"),
    (
        "pivoting a bool",
        lambda: bs.SuperLU(pivot_threshold=True),
        ValueError,
        "pivot_threshold",
        "float",
        "True",
        "[0, 1]",
    ),
    ("on_failure", solve_fn(on_failure="ignore"), ValueError, "on_failure", "one of", "'ignore'", "'return'"),
    ("on_failure an array", solve_fn(on_failure=B), ValueError, "on_failure", "one of", "(3,)", "'return'"),
    ("assume", solve_fn(assume="pos"), ValueError, "assume", "one of", "'pos'", "'spd'"),
    ("assume an array", solve_fn(assume=B), ValueError, "assume", "one of", "(3,)", "'spd'"),
    ("A.assume", lambda: csr().assume("symmetric"), ValueError, "assume", "one of", "'symmetric'", "'sym'"),
    (
        "adjoint a dict",
        solve_fn(adjoint={"rtol": 0.1}),
        TypeError,
        "adjoint",
        "must be",
        "{'rtol': 0.1}",
        "backsolve.Adjoint",
    ),
    ("unknown option", lambda: bs.vjp(D, B, tol=1), TypeError, "vjp", "options", "'tol'", "rtol"),
    ("vjp of tensors", lambda: bs.vjp(TD, TB), TypeError, "vjp", "arrays of", "torch", "differentiate backsolve.solve"),
    ("shape of g", lambda: bs.vjp(S, B)[1](D), ValueError, "g ", "shape of x, (3,)", "(3, 3)", "must have"),
    ("g a tensor", lambda: bs.vjp(S, B)[1](TB), TypeError, "g ", FLOATS, "torch Tensor", ".numpy()"),
    ("shape of data_dot", lambda: bs.jvp(S, B, B), ValueError, "data_dot", "A.data, (6,)", "(3,)", "must have"),
    ("shape of b_dot", lambda: bs.jvp(S, B, None, D), ValueError, "b_dot", "b, (3,)", "(3, 3)", "must have"),
    ("no tangent", lambda: bs.jvp(S, B), ValueError, "jvp", "a tangent", "needs", "data_dot, b_dot or both"),
]

CASES = [*SHAPES, *DTYPES, *INDICES, *KINDS, *OPTIONS]
if LONG == "float64":  # on platforms without a longer one
    CASES = [case for case in CASES if "longdouble" not in case[0]]


def _beta(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


@pytest.mark.parametrize("case", [pytest.param(case, id=case[0]) for case in CASES])
def test_a_mistake_is_told_in_one_sentence(case):
    _, call, error, *words = case
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    message = str(caught.value)
    assert len(words) == 4
    assert [w for w in words if w not in message] == [], message
    assert "\n" not in message and len(message) < 400
    assert message[-1] in ".?" and not re.search(r"[a-z)]\. [A-Z]", message), message


def test_names_of_cases_are_distinct():
    assert len({case[0] for case in CASES}) == len(CASES) >= 40


# -- frameworks that are not loaded here ------------------------------------------------------------------------


def pretend(monkeypatch, framework, kind):
    """A module of that name with an array type, as the dispatcher sees it."""
    module = types.ModuleType(framework)
    array = type(kind, (), {"shape": (N,), "dtype": "float32", "__module__": framework})
    setattr(module, kind, array)
    monkeypatch.setitem(sys.modules, framework, module)
    return array()


@pytest.mark.parametrize(("framework", "kind"), [("jax", "Array"), ("tensorflow", "Tensor")])
def test_two_frameworks_at_once(monkeypatch, framework, kind):
    foreign = pretend(monkeypatch, framework, kind)
    for A, b in ((TD, foreign), (foreign, TB), (TS, foreign), (bs.Dense(TD), foreign)):
        with pytest.raises(TypeError, match=f"one framework; got {framework} and torch|torch and {framework}"):
            bs.solve(A, b)
    with pytest.raises(TypeError, match="g must be an array"):
        bs.vjp(D, B)[1](foreign)


# -- what changes under a factorization -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MATRICES)
def test_values_changed_in_place_after_factorize(kind):
    A, b = MATRICES[kind]
    A = bs.aslinearoperator(A.clone() if kind.startswith("torch") else A.copy())
    F = bs.factorize(A)
    F.solve(b)
    adjoint = F.adjoint
    A.data[0] = 7.0
    for stale in (F, F.adjoint, adjoint):
        with pytest.raises(RuntimeError, match=r"values of A were changed in place.* call F\.refactorize\(A\.data\)"):
            stale.solve(b)
    fresh = F.refactorize(A.data).solve(b)
    truth = np.linalg.solve(np.asarray(A.toarray()), np.asarray(b))
    kappa = np.linalg.cond(np.asarray(A.toarray()))
    assert np.abs(np.asarray(fresh) - truth).max() <= 10 * kappa * np.finfo(float).eps * np.abs(truth).max()


# -- odd input that is no mistake -------------------------------------------------------------------------------


@pytest.mark.parametrize("assume", [None, "spd", "lower"])
@pytest.mark.parametrize("columns", [(), (0,), (2,)])
@pytest.mark.parametrize("kind", MATRICES)
def test_no_unknowns(kind, columns, assume):
    A = bs.coo(B[:0], ([], []), (0, 0)) if "sparse" in kind else np.zeros((0, 0))
    b = np.zeros((0, *columns))
    if kind.startswith("torch"):
        A, b = (
            (A.with_data(torch.zeros(0).double()) if "sparse" in kind else torch.zeros(0, 0).double()),
            TB.new_zeros(b.shape),
        )
    sol = bs.solve_with_info(A, b, assume=assume)
    assert sol.x.shape == b.shape and type(sol.x) is type(b) and sol.converged


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_no_entries_is_singular(kind):
    b = B if kind == "numpy" else TB
    with pytest.raises(bs.SolveError, match=r"SINGULAR.*structurally singular: row 0 stores no entry.*null space"):
        bs.solve(bs.coo(b[:0], ([], []), (N, N)), b)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
@pytest.mark.parametrize("b", [B, TB], ids=["numpy", "torch"])
def test_every_scipy_format(form, b):
    x = bs.solve(S.asformat(form), b)
    assert type(x) is type(b)
    assert np.abs(D @ np.asarray(x) - 1).max() <= 10 * np.linalg.cond(D) * np.finfo(float).eps


def test_byte_order_of_another_machine():
    for A, b in ((D.astype(">f8"), B), (D, B.astype(">f8")), (TD, B.astype(">f8")), (csr(B.astype(">f8")), B)):
        np.testing.assert_array_equal(np.asarray(bs.solve(A, b)), np.asarray(bs.solve(_native(A), B)))
    assert bs.factorize(csr(B.astype(">f8"))).solve(B).dtype == np.float64


def _native(A):
    return A if isinstance(A, torch.Tensor | bs.CSR) else A.astype(float)


def test_indices_beyond_int32_need_no_memory_of_that_size():
    far = 2**31 + 5
    A = bs.CSR(np.array([3.0, 2.0]), [1, far], [0, 1, 2], (2, far + 1))
    assert A.pattern.indices.dtype == np.int64 and A.pattern.indices.tolist() == [1, far]
    assert A.slots is None and A.pattern.entry(1) == (1, far)
    with pytest.raises(ValueError, match=rf"indices must lie in \[0, {far}\)"):
        bs.CSR(np.ones(1), [far], [0, 1], (1, far))


def test_int64_indices_on_request():
    narrow, wide = csr().pattern, bs.Pattern(*PLACES[::-1], (N, N), index_dtype="int64")
    assert narrow.indices.dtype == np.int32 and wide.indices.dtype == np.int64 and narrow != wide
    again = pickle.loads(pickle.dumps(wide))
    assert again == wide and again.indices.dtype == np.int64
    for dtype in (np.float32, np.complex128):
        values, x = np.array([[1, 2, 3]], dtype), np.ones((1, N, 2), dtype)
        for adjoint in (False, True):
            np.testing.assert_array_equal(wide.matvec(values, x, adjoint), narrow.matvec(values, x, adjoint))
