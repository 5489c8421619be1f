"""The border of the compiled core: whatever does not fit raises before anything is read or written."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backsolve import _kernels
from backsolve.pattern import NORMS

CORES = {np.int32: _kernels.Pattern32, np.int64: _kernels.Pattern64}
DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
N, NNZ = 4, 7
INDPTR, INDICES = [0, 2, 3, 5, 7], [0, 2, 1, 0, 2, 1, 3]
GUARD = 64


def core(index=np.int32, rows=N, cols=N, indptr=INDPTR, indices=INDICES):
    return CORES[index](np.array(indptr, index), np.array(indices, index), rows, cols)


def fenced(shape, dtype, value=0):
    """An array of `value` in the middle of NaN: reading outside would show in results, writing in the fence."""
    size = int(np.prod(shape))
    whole = np.full(size + 2 * GUARD, np.nan, dtype)
    inner = whole[GUARD : GUARD + size].reshape(shape)
    inner[...] = value
    return inner, lambda: bool(np.isnan(whole[:GUARD]).all() and np.isnan(whole[GUARD + size :]).all())


def calls(batch, k, dtype, n=N, nnz=NNZ):
    """Arguments of each kernel: name -> [(shape, dtype, is it written)]; flags follow."""
    cube, values = ((batch, n, k), dtype, False), ((batch, nnz), dtype, False)
    out = (*cube[:2], True)
    return {
        "matmat": [values, cube, out],
        "outer": [cube, cube, (*values[:2], True)],
        "residual": [values, cube, cube, out, ((batch, k, len(NORMS)), np.float64, True)],
        "not_definite": [((nnz,), dtype, False)],
        "solve_triangular": [values, cube, out],
    }


FLAGS = {"matmat": 1, "residual": 1, "solve_triangular": 2}


def run(pattern, name, args, adjoint=False):
    return getattr(pattern, name)(*args, *[adjoint] * FLAGS.get(name, 0))


@pytest.mark.parametrize("index", CORES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "k"), [(1, 1), (2, 3), (3, 9), (0, 2), (2, 0)])
def test_kernels_stay_inside_their_arrays(index, dtype, batch, k):
    pattern = core(index)
    for (name, spec), adjoint in itertools.product(calls(batch, k, dtype).items(), (False, True)):
        made = [fenced(shape, kind, 2) for shape, kind, _ in spec]
        run(pattern, name, [array for array, _ in made], adjoint)
        for array, intact in made:
            assert intact() and not np.isnan(array).any(), name


def longer(axis):
    def spoil(a):
        return np.zeros([size + (at == axis) for at, size in enumerate(a.shape)], a.dtype)

    return spoil


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


# What is wrong: (how to make it, from an array that fits; from how many axes on it is wrong)
SPOILED = {
    "axis 0": (longer(0), 1),
    "axis 1": (longer(1), 2),
    "axis 2": (longer(2), 3),
    "short": (lambda a: np.zeros([*a.shape[:-1], a.shape[-1] - 1], a.dtype), 1),
    "flat": (lambda a: a.reshape(-1), 2),
    "deep": (lambda a: a[None], 1),
    "strided": (lambda a: np.repeat(a, 2, axis=-1)[..., ::2], 1),
    "Fortran": (np.asfortranarray, 2),
    "read-only": (read_only, 1),
    "swapped bytes": (lambda a: a.astype(a.dtype.newbyteorder()), 1),
    "int": (lambda a: a.astype(np.int64), 1),
    "half": (lambda a: a.astype(np.float16), 1),
    "object": (lambda a: a.astype(object), 1),
    "list": (lambda a: a.tolist(), 1),
    "None": (lambda a: None, 1),
    "text": (lambda a: "x", 1),
}


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("name", calls(1, 1, float))
def test_every_argument_is_checked(name, how):
    pattern, spec = core(), calls(2, 3, np.float64)[name]
    spoil, axes = SPOILED[how]
    for position, (shape, _, written) in enumerate(spec):
        if len(shape) < axes or (how == "read-only" and not written):
            continue
        args = [np.full(s, 2.0, kind) for s, kind, _ in spec]
        args[position] = spoil(args[position])
        before = [np.array(a) for a in args]
        for adjoint in (False, True):
            with pytest.raises((ValueError, TypeError)):
                run(pattern, name, args, adjoint)
        for now, then in zip(args, before, strict=True):
            np.testing.assert_array_equal(np.array(now), then)


@pytest.mark.parametrize("mixed", list(itertools.permutations(DTYPES, 2)))
def test_dtypes_are_not_mixed_or_converted(mixed):
    pattern = core()
    for name, spec in calls(1, 2, mixed[0]).items():
        for position, (shape, dtype, _) in enumerate(spec):
            # The values of `not_definite` stand alone.
            if dtype != mixed[0] or name == "not_definite":
                continue
            args = [np.ones(s, kind) for s, kind, _ in spec]
            args[position] = np.ones(shape, mixed[1])
            with pytest.raises(TypeError):
                run(pattern, name, args)


def test_residual_needs_a_square_pattern():
    pattern = core(cols=N + 1)
    for name in ("residual", "not_definite", "solve_triangular"):
        args = [np.ones(s, kind) for s, kind, _ in calls(1, 1, float)[name]]
        with pytest.raises(ValueError, match="square"):
            run(pattern, name, args)


def test_index_arrays_are_read_only_views_that_keep_their_pattern():
    pattern = core()
    views = [pattern.indptr, pattern.indices, pattern.t_indptr, pattern.t_indices, pattern.t_slot]
    copies = [v.copy() for v in views]
    del pattern
    for view, kept in zip(views, copies, strict=True):
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1
        np.testing.assert_array_equal(view, kept)
    given_indices = np.array(INDICES, np.int32)
    pattern = CORES[np.int32](np.array(INDPTR, np.int32), given_indices, N, N)
    given_indices[:] = 10**9  # what the caller does with the arrays later is no matter
    np.testing.assert_array_equal(pattern.indices, INDICES)


# -- index arrays --------------------------------------------------------------------------------------------------


def verdict(indptr, indices, rows, cols):
    """What `diagnose` should find, written down again in Python; the sign is what counts."""
    if rows < 0 or cols < 0 or len(indptr) != rows + 1:
        return -1
    if indptr[0] != 0:
        return -2
    if (np.diff(indptr.astype(object)) < 0).any():
        return -3
    if indptr[-1] != len(indices):
        return -4
    if ((indices < 0) | (indices >= cols)).any():
        return -5
    return int(any((np.diff(indices[a:b].astype(object)) <= 0).any() for a, b in itertools.pairwise(indptr)))


def integers_of(dtype, low=-2, high=6):
    info = np.iinfo(dtype)
    return st.one_of(st.integers(low, high), st.sampled_from([info.min, info.min + 1, info.max - 1, info.max]))


@st.composite
def index_arrays(draw):
    dtype = draw(st.sampled_from([np.int32, np.int64]))
    size = st.integers(0, 6)
    if draw(st.booleans()):  # nearly right
        counts = draw(st.lists(st.integers(0, 3), max_size=5))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(dtype)
        indices = np.array([j for c in counts for j in sorted(draw(st.permutations(range(4)))[:c])], dtype)
        for array in (indptr, indices):
            if array.size and draw(st.booleans()):
                array[draw(st.integers(0, array.size - 1))] = draw(integers_of(dtype))
        return indptr, indices, len(counts), 4
    indptr = draw(arrays(dtype, size, elements=integers_of(dtype)))
    indices = draw(arrays(dtype, size, elements=integers_of(dtype)))
    rows = draw(st.one_of(st.just(len(indptr) - 1), st.sampled_from([-1, 0, 3, -(2**63), 2**62])))
    return indptr, indices, rows, draw(st.sampled_from([4, 0, -1, -(2**63), 5]))


@settings(max_examples=400, deadline=None)
@given(index_arrays())
def test_diagnose_finds_what_is_wrong_and_a_pattern_is_made_of_nothing_else(case):
    indptr, indices, rows, cols = case
    code, position, value = _kernels.diagnose(indptr, indices, rows, cols)
    assert code == verdict(*case)
    if code == -3:
        assert indptr[position] == value < indptr[position - 1]
    if code in (1, -5):
        assert indices[position] == value
    make = CORES[indptr.dtype.type]
    if code:
        with pytest.raises(ValueError, match="not a canonical CSR"):
            make(indptr, indices, rows, cols)
        return
    pattern = make(indptr, indices, rows, cols)
    dense = np.zeros((rows, cols))
    dense[np.repeat(np.arange(rows), np.diff(indptr)), indices] = values = np.arange(1.0, len(indices) + 1)
    for adjoint, A in ((False, dense), (True, dense.T)):
        y = np.full((1, A.shape[0], 1), np.nan)
        pattern.matmat(values[None], np.ones((1, A.shape[1], 1)), y, adjoint)
        np.testing.assert_array_equal(y[0, :, 0], A.sum(1))
    transpose = sp.csr_array((values[pattern.t_slot], pattern.t_indices, pattern.t_indptr), shape=(cols, rows))
    np.testing.assert_array_equal(transpose.toarray(), dense.T)


@st.composite
def triplets(draw):
    dtype = draw(st.sampled_from([np.int32, np.int64]))
    count = draw(st.integers(0, 8))
    wild = draw(st.booleans())
    elements = integers_of(dtype, 0, 3) if wild else st.integers(0, 3)
    rows, cols = (draw(arrays(dtype, count, elements=elements)) for _ in range(2))
    return rows, cols, draw(st.sampled_from([4, 4, 0, 7])), draw(st.sampled_from([4, 4, 0, 5]))


@settings(max_examples=300, deadline=None)
@given(triplets())
def test_canonicalise_sums_what_it_should_and_refuses_the_rest(case):
    rows, cols, n_rows, n_cols = case
    inside = ((rows >= 0) & (rows < n_rows) & (cols >= 0) & (cols < n_cols)).all()
    if not inside:
        with pytest.raises(ValueError, match="out of range"):
            _kernels.canonicalise(*case)
        return
    indptr, indices, slots = _kernels.canonicalise(*case)
    assert _kernels.diagnose(indptr, indices, n_rows, n_cols)[0] == 0
    values = 2.0 ** np.arange(len(rows))  # sums tell which were summed
    summed, wanted = np.zeros(len(indices)), np.zeros((n_rows, n_cols))
    np.add.at(summed, slots, values)
    np.add.at(wanted, (rows, cols), values)
    got = np.zeros((n_rows, n_cols))
    got[np.repeat(np.arange(n_rows), np.diff(indptr)), indices] = summed
    np.testing.assert_array_equal(got, wanted)


BAD_INDICES = [
    np.zeros(3, np.int16),
    np.zeros(3, np.uint32),
    np.zeros(3),
    np.zeros((3, 1), np.int32),
    np.zeros(6, np.int32)[::2],
    np.zeros(3, ">i4"),
    [0, 0, 0],
    None,
]


@pytest.mark.parametrize("bad", BAD_INDICES, ids=lambda b: str(getattr(b, "dtype", type(b).__name__)))
@pytest.mark.parametrize("call", ["diagnose", "canonicalise", "Pattern32", "Pattern64"])
def test_index_arrays_are_never_converted(call, bad):
    good = np.zeros(3, np.int64 if call.endswith("64") else np.int32)
    for arrays_ in ((bad, good), (good, bad)):
        with pytest.raises(TypeError):
            getattr(_kernels, call)(*arrays_, 2, 2)
    with pytest.raises(TypeError):
        getattr(_kernels, call)(good, good, 2.5, 2)
    with pytest.raises(TypeError):
        getattr(_kernels, call)(good, good, 2, 2**63)


def test_lengths_of_triplets_must_agree():
    with pytest.raises(ValueError, match="wrong shape"):
        _kernels.canonicalise(np.zeros(3, np.int32), np.zeros(2, np.int32), 4, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_beyond(dtype):
    values = np.ones(9, dtype)
    assert _kernels.first_beyond(values, 1.0) == -1 == _kernels.first_beyond(values[:0], 1.0)
    assert _kernels.first_beyond(values, 0.9) == 0
    for bad in (np.nan, np.inf, -np.inf):
        values[[5, 7]] = bad
        assert _kernels.first_beyond(values, 1e300) == 5
    if np.iscomplexobj(values):
        values[3] = complex(0, np.inf)
        assert _kernels.first_beyond(values, 1e300) == 3
    for wrong in (values[::2], values[None], values.astype(object), list(values)):
        with pytest.raises(TypeError):
            _kernels.first_beyond(wrong, 1.0)
