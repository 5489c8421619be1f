"""What local solves are given that is wrong, empty or at an edge: one clear sentence, or the right answer."""

import numpy as np
import pytest
import scipy.sparse as sp

import backsolve as bs
from backsolve import local
from backsolve._local.access import Access
from backsolve._local.budget import Budget
from backsolve._local.functional import FunctionalQuery
from backsolve._local.system import System
from backsolve._local.vector import VectorQuery
from backsolve.status import Status

UNIT = ([3], [1.0])


def chain(n=10):
    return sp.diags_array([-np.ones(n - 1), np.full(n, 3.0), -np.ones(n - 1)], offsets=[-1, 0, 1]).tocsr()


def changed(i, j, value):
    A = chain().tolil()
    A[i, j] = value
    return A.tocsr()


ARRAYS = {
    "indptr": [0, 2, 4, 6],
    "indices": [0, 1, 1, 2, 2, 0],
    "t_indptr": [0, 2, 4, 6],
    "t_indices": [0, 2, 0, 1, 1, 2],
    "t_slot": [0, 5, 1, 2, 3, 4],
}


def ring(position="int64", index="int64", dtype="float64", **parts):
    """A ring of three unknowns, some of whose arrays are damaged."""
    arrays = {
        name: np.array(parts.pop(name, values), index if "indices" in name else position)
        for name, values in ARRAYS.items()
    }
    data = np.array(parts.pop("data", [3.0, 1, 3, 1, 3, 1]), dtype)
    assert not parts
    return System(Access(3, data=data, **arrays), promise="both")


def ask(system, both=True):
    b, t = ((np.array([i]), np.ones(1)) for i in (0, 1))
    query = FunctionalQuery(system, b, t) if both else VectorQuery(system, b)
    return query.run(1e-9, Budget(10**6))


@pytest.mark.parametrize("index", [("int32", "int32"), ("int64", "int32"), ("int64", "int64")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_dtypes_of_arrays_agree(index, dtype):
    found = ask(ring(*index, dtype))
    assert abs(found.value - 1 / 28) <= found.bound <= 1e-9


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"indices": [0, 1, 1, 7, 2, 0]}, r"row 1 has the index 7 \(position 3\); indices must lie in \[0, 3\)"),
        ({"indices": [0, 1, 1, -7, 2, 0]}, r"row 1 has the index -7 \(position 3\)"),
        (
            {"indptr": [0, 9, 4, 6]},
            r"the positions of row 0 run from 0 to 9; they must not fall, and must lie in \[0, 6\]",
        ),
        ({"t_indptr": [0, 4, 2, 6]}, r"the positions of column 1 run from 4 to 2"),
        ({"t_slot": [0, 5, 1, 99, 3, 4]}, r"column 1 points to the value 99 of 6"),
        ({"t_slot": [-1, 5, 1, 2, 3, 4]}, r"column 0 points to the value -1 of 6"),
        ({"t_indices": [0, 3, 0, 1, 1, 2]}, r"column 0 has the index 3"),
        ({"t_indices": [1, 2, 0, 1, 1, 2]}, r"column 0 has the diagonal entry 0"),
        ({"data": [0.5, 1, 3, 1, 3, 1]}, r"row 0 is not dominant.*every row that is met must be strictly dominant"),
        ({"data": [np.nan, 1, 3, 1, 3, 1]}, r"row 0 has a value that is not finite"),
        ({"data": [3, np.inf, 3, 1, 3, 1]}, r"row 0 has a value that is not finite"),
    ],
)
def test_damage_is_named_where_it_is_met(parts, sentence):
    system = ring(**parts)
    with pytest.raises(ValueError, match=sentence):
        ask(system)
    assert ask(ring()).certified


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: ring("int32", "int64"), "indptr and indices must both be int32 or both int64, or int64 and int32"),
        (lambda: ring(dtype="float16"), "data must be float32 or float64; got float16"),
        (lambda: ring(dtype="complex128"), "data must be float32 or float64; got complex128"),
        (lambda: ring(data=[1.0, 2.0]), "data must be a contiguous array of dtype float64 and shape"),
        (lambda: ring(indptr=[0, 2, 4, 5]), "indptr must run from 0 to the number of entries, 6; got 0 to 5"),
        (lambda: local.DiagonallyDominant(chain() * 1j), "A must be real"),
        (lambda: local.DiagonallyDominant(changed(2, 2, np.nan)), "A has a value that is NaN or infinite"),
        (lambda: local.DiagonallyDominant(chain()[:3]), "A must be square"),
        (lambda: local.DiagonallyDominant(chain(), promise="yes"), "promise must be one of"),
        (lambda: local.functional(chain(), UNIT, UNIT, -1.0), "atol must be a float in"),
        (lambda: local.functional(chain(), UNIT, UNIT, 1e-6, max_touched=-1), "max_touched must be a number"),
        (lambda: local.functional(chain(), UNIT, UNIT, 1e-6, max_seconds=np.nan), "max_seconds must be a number"),
        (lambda: local.functional(chain(), ([10], [1.0]), UNIT, 1e-6), r"b must have indices in \[0, 10\)"),
        (lambda: local.functional(chain(), np.full(10, np.nan), UNIT, 1e-6), "b must be finite"),
        (lambda: local.functional(chain(), UNIT, np.ones(9), 1e-6), "t must be a 1-D array of 10 numbers"),
    ],
)
def test_wrong_arguments_get_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_types_that_are_not_taken_get_a_sentence():
    with pytest.raises(TypeError, match="A must be an array of dtype float32"):
        local.DiagonallyDominant(np.eye(3, dtype=np.float16))
    with pytest.raises(TypeError, match="b must be real; got dtype complex128"):
        local.functional(chain(), np.ones(10) * 1j, UNIT, 1e-6)
    with pytest.raises(TypeError, match="b must have integer indices"):
        local.functional(chain(), ([1.5], [1.0]), UNIT, 1e-6)


@pytest.mark.parametrize("what", ["rows", "columns", "both"])
def test_a_promise_is_checked_on_what_is_met(what):
    D = local.DiagonallyDominant(changed(5, 4, -5.0), promise=what)
    named = "column 4" if what == "columns" else "row 5"
    with pytest.raises(ValueError, match=f"{named} is not dominant"):
        local.functional(D, UNIT, UNIT, 1e-9)
    far = local.DiagonallyDominant(changed(9, 8, -5.0), promise=what)
    assert local.functional(far, ([0], [1.0]), ([0], [1.0]), 1e-2).certified


def test_vectors_by_a_promise_of_columns_have_no_bound():
    D = local.DiagonallyDominant(chain(), promise="columns")
    with pytest.raises(bs.SolveError, match="leave promise out"):
        local.solve(D, UNIT, 1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_become_nan_are_named(value):
    A = changed(0, 1, -2.5)  # by columns and rows
    B = changed(2, 1, -1.5)  # row 2 is not
    B[2, 3] = -1.6
    for matrix, names in ((A, "row"), (B, "column")):
        D = local.DiagonallyDominant(matrix)
        matrix.data[10] = value
        for call in (lambda b: local.functional(D, b, UNIT, 1e-9), lambda b: local.solve(D, b, 1e-9)):  # noqa: B023
            with pytest.raises(ValueError, match=f"{names} [0-9]+ has a value that is (not finite|NaN or infinite)"):
                call(UNIT)
        with pytest.raises(ValueError, match=r"has a value that is (not finite|NaN or infinite)"):
            local.functional(D, np.ones(10), UNIT, 1e-9)


def test_dominance_lost_in_place_is_seen():
    A = chain()
    D = local.DiagonallyDominant(A)
    A.data[:] = np.where(A.data > 0, 1.5, A.data)
    with pytest.raises(ValueError, match="row 3 is not dominant"):
        local.functional(D, UNIT, UNIT, 1e-6)


def test_budgets_of_nothing_give_what_is_known():
    for budget in ({"max_touched": 0}, {"max_seconds": 0}, {"max_touched": np.int64(0)}):
        found = local.functional(chain(), UNIT, UNIT, 1e-6, **budget)
        assert found.status == Status.BUDGET and found.value == 0 and 0.4 < found.bound < np.inf
    assert local.functional(chain(), UNIT, UNIT, 1e-6, max_touched=np.inf, max_seconds=np.inf).certified


def test_nothing_in_is_nothing_out():
    none = ([], [])
    for b, t in ((none, UNIT), (UNIT, none), (none, none), (np.zeros(10), UNIT)):
        found = local.functional(chain(), b, t, 0.0)
        assert found.certified and found.value == found.bound == 0
    found = local.solve(chain(), np.zeros(10), 0.0)
    assert found.certified and found.value.nnz == 0 and found.bound == 0


def test_no_unknowns_and_one():
    empty = sp.csr_array((0, 0))
    assert local.functional(empty, np.zeros(0), np.zeros(0), 0.0).value == 0
    assert local.solve(empty, np.zeros(0), 0.0).value.shape == (0, 1)
    found = local.functional(sp.csr_array([[-4.0]]), [1.0], [2.0], 1e-12)
    assert abs(found.value + 0.5) <= found.bound <= 1e-12


@pytest.mark.parametrize("matrix", [sp.csr_array([[0.0]]), changed(4, 4, 0.0), sp.csr_array((4, 4))])
def test_rows_of_zeros_are_refused(matrix):
    n = matrix.shape[0]
    with pytest.raises(bs.SolveError, match="A is dominant neither by rows"):
        local.functional(matrix, np.ones(n), np.ones(n), 1e-6)


def test_more_than_the_largest_number_is_no_certificate():
    A = sp.csr_array(np.diag([1e-200, 1.0]))
    found = local.functional(A, ([0], [1e200]), ([0], [1.0]), 1e-6, on_failure="return")
    assert found.status == Status.NO_CERTIFICATE and np.isnan(found.value) and found.bound == np.inf


def test_tiny_numbers_come_to_an_end():
    """Pushes of numbers that round to nothing must not go round for ever."""
    for scale in (1e-300, 1e-310, 5e-324):
        A = chain() * 1e150
        found = local.functional(A, ([3], [scale]), UNIT, 0.0, max_seconds=20, fallback=None, on_failure="return")
        assert found.status == Status.INACCURATE
        assert abs(found.value) <= found.bound <= 1e-290


def test_read_only_values_keep_their_margins():
    A = chain(1000)
    A.data.flags.writeable = False
    kept, made = local.DiagonallyDominant(A), local.DiagonallyDominant(chain(1000))
    first, second = (local.functional(D, UNIT, UNIT, 1e-9) for D in (kept, made))
    assert abs(first.value - second.value) <= first.bound + second.bound
    assert first.touched < second.touched


def test_symmetric_folders_stay_symmetric(tmp_path):
    local.save(tmp_path / "A", chain(), symmetric=True)
    folder = local.open(tmp_path / "A", "c")
    D = local.DiagonallyDominant(folder)
    (place,) = np.flatnonzero((chain().nonzero()[0] == 3) & (chain().nonzero()[1] == 4))
    folder.data[place] = -0.2
    with pytest.raises(ValueError, match=r"the entry \(3, 4\) is not that of \(4, 3\) any more"):
        local.functional(D, UNIT, UNIT, 1e-9)
    (mirror,) = np.flatnonzero((chain().nonzero()[0] == 4) & (chain().nonzero()[1] == 3))
    folder.data[mirror] = -0.2
    A = changed(3, 4, -0.2).tolil()
    A[4, 3] = -0.2
    found = local.functional(D, UNIT, UNIT, 1e-9)
    assert abs(found.value - np.linalg.inv(A.toarray())[3, 3]) <= found.bound
