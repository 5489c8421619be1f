"""Folders: what was saved comes back, each defect is one sentence, and streams stay within their memory."""

import json
import pickle
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import _kernels
from backsolve._local import meta as meta_module
from backsolve._local import writing
from backsolve._local.chunks import LEAST_MEMORY, row_chunks
from backsolve._local.margins import margins
from backsolve._local.meta import index_dtype
from backsolve._local.npy import HEADER

STRUCTURE = ("indptr", "indices", "t_indptr", "t_indices", "t_slot")


def matrix(n=60, seed=0, dtype="float64", density=0.1):
    """Dominant by rows, with an empty row beside the diagonal and a long column."""
    rng = np.random.default_rng(seed)
    A = sp.random_array((n, n), density=density, rng=rng, data_sampler=rng.standard_normal).tolil()
    A[:, n // 2] = 1.0
    A[n // 3] = 0.0
    A.setdiag(2 + np.asarray(abs(A).sum(axis=1)).ravel())
    return A.tocsr().astype(dtype)


def symmetric(n=60, dtype="float64"):
    A = matrix(n, dtype=dtype)
    return (A + A.T).tocsr()


def parts(A):
    return A.data, A.indices, A.indptr


def saved(place, A=None, **options):
    A = matrix() if A is None else A
    bs.local.save(place / "A", A, **options)
    return place / "A"


def same(folder, A):
    C = sp.csc_array(A)
    C.sort_indices()
    assert (folder.indptr == A.indptr).all() and (folder.indices == A.indices).all() and (folder.data == A.data).all()
    assert (folder.t_indptr == C.indptr).all() and (folder.t_indices == C.indices).all()
    assert (folder.data[folder.t_slot] == C.data).all()


# -- round trips ------------------------------------------------------------------------------------------


FORMS = {
    "scipy": lambda A: A,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "parts": parts,
    "operator": bs.aslinearoperator,
    "torch operator": lambda A: bs.CSR(torch.from_numpy(A.data).requires_grad_(), A.indices, A.indptr, A.shape),
    "int64 parts": lambda A: (A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)),
    "unsigned parts": lambda A: (A.data, A.indices.astype(np.uint16), A.indptr.astype(np.uint64)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
def test_what_was_saved_comes_back(tmp_path, form, dtype):
    A = matrix(dtype=dtype)
    folder = bs.local.open(saved(tmp_path, FORMS[form](A)))
    same(folder, A)
    assert folder.n == 60 and folder.shape == (60, 60) and folder.nnz == A.nnz and folder.kind == "matrix"
    assert folder.data.dtype == dtype and folder.indices.dtype == np.int32 and folder.indptr.dtype == np.int64
    assert (folder.row_margins == margins(folder.access)).all()
    assert (folder.column_margins == margins(folder.access, columns=True)).all()
    for found, columns in ((folder.row_gap, False), (folder.column_gap, True)):
        true = (margins(folder.access, columns=columns) / abs(A.diagonal())).min()
        assert true - 4 * np.spacing(abs(true)) <= found < true
    folder.verify()
    assert str(A.nnz) in repr(folder) and "matrix" in repr(folder)


def test_repeated_entries_are_summed(tmp_path):
    A = bs.coo(np.array([1.0, 2.0, 4.0, 8.0]), ([1, 0, 1, 0], [1, 0, 1, 1]), (2, 2))
    folder = bs.local.open(saved(tmp_path, A))
    assert folder.data.tolist() == [2.0, 8.0, 5.0] and folder.row_margins.tolist() == [-6.0, 5.0]


def test_integers_become_double_precision(tmp_path):
    folder = bs.local.open(saved(tmp_path, (np.array([3, 4]), [0, 1], [0, 1, 2])))
    assert folder.data.dtype == np.float64 and folder.row_gap == folder.column_gap == pytest.approx(1)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_nothing_stored(tmp_path, n):
    folder = bs.local.open(saved(tmp_path, (np.zeros(0), np.zeros(0, int), np.zeros(n + 1, int))))
    folder.verify()
    assert folder.n == n and folder.nnz == 0 and (folder.row_margins == 0).all()
    assert folder.row_gap == (-np.inf if n else 1.0)


def test_a_symmetric_matrix_has_no_columns_of_its_own(tmp_path):
    A = symmetric()
    folder = bs.local.open(saved(tmp_path, A, symmetric=True))
    folder.verify()
    assert folder.symmetric and folder.t_slot is None and folder.access.columns == folder.access.rows
    assert folder.column_margins is folder.row_margins and folder.column_gap == folder.row_gap
    assert not list(folder.path.glob("t_*")) and not (folder.path / "column_margins.npy").exists()


@pytest.mark.parametrize("change", ["value", "place"])
def test_what_is_not_symmetric_is_refused_as_symmetric(tmp_path, change):
    A = symmetric().tolil()
    i, j = next((i, j) for i, j in zip(*A.nonzero(), strict=True) if i != j)
    A[i, j] = A[i, j] * 2 if change == "value" else 0.0
    A = A.tocsr()
    A.eliminate_zeros()
    with pytest.raises(ValueError, match=r"symmetric=True, but the entry \(\d+, \d+\) has no mirror image of the same"):
        saved(tmp_path, A, symmetric=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("undirected", [True, False])
def test_graphs(tmp_path, weighted, undirected):
    A = abs(symmetric() if undirected else matrix())
    folder = bs.local.open(
        saved(tmp_path, parts(A) if weighted else (None, *parts(A)[1:]), kind="graph", symmetric=undirected)
    )
    folder.verify()
    assert folder.kind == "graph" and folder.symmetric == undirected and folder.row_margins is None
    assert folder.row_gap is None and (folder.data is None) == (folder.strengths is None) == (not weighted)
    assert (folder.t_indices is None) == undirected
    if weighted:
        np.testing.assert_allclose(folder.strengths, A.sum(axis=1), rtol=1e-15 * A.shape[0])
        assert folder.access.nnz == A.nnz
    else:
        with pytest.raises(ValueError, match="is a graph without weights"):
            folder.access  # noqa: B018
    with pytest.raises(ValueError, match="mode 'r'"):
        folder.refresh_margins()


def test_a_folder_can_be_saved_again(tmp_path):
    A = matrix()
    folder = bs.local.open(saved(tmp_path, A))
    bs.local.save(tmp_path / "B", folder)
    same(bs.local.open(tmp_path / "B"), A)
    bs.local.save(tmp_path / "A", folder, overwrite=True)
    same(bs.local.open(tmp_path / "A"), A)


# -- streams ----------------------------------------------------------------------------------------------


def batches(A, sizes):
    """Rows of A in batches of these sizes, in turn."""
    first, k = 0, 0
    while first < A.shape[0]:
        last = min(first + sizes[k % len(sizes)], A.shape[0])
        begin, end = A.indptr[first], A.indptr[last]
        yield np.diff(A.indptr[first : last + 1]), A.indices[begin:end], A.data[begin:end]
        first, k = last, k + 1


@pytest.mark.parametrize("sizes", [[1], [7], [3, 0, 11], [1000]])
def test_batches_are_rows(tmp_path, sizes):
    A = matrix()
    same(bs.local.open(saved(tmp_path, batches(A, sizes), n=60)), A)


@pytest.mark.parametrize("seed", range(4))
def test_the_transposition_in_little_memory_is_that_of_scipy(tmp_path, seed):
    """A row and a column longer than a piece, many blocks of columns; seed 3 has all entries near the diagonal."""
    rng = np.random.default_rng(seed)
    n = 3000
    if seed == 3:
        A = sp.diags_array([np.ones(n - 5), np.full(n, 4.0), np.ones(n - 9)], offsets=[-5, 0, 9]).tocsr()
    else:
        A = sp.random_array((n, n), density=0.003, rng=rng).tolil()
        A[17], A[:, 1234], A[n - 1] = 1.0, 2.0, 0.0
        A = A.tocsr()
    A.eliminate_zeros()
    same(bs.local.open(saved(tmp_path, parts(A), memory=LEAST_MEMORY)), A)
    bs.local.open(tmp_path / "A").verify(memory=LEAST_MEMORY)


def test_neighbours_with_close_numbers_are_read_about_twice(tmp_path, monkeypatch):
    n = 20_000
    A = sp.diags_array([np.ones(n - 1), np.full(n, 4.0), np.ones(n - 1)], offsets=[-1, 0, 1]).tocsr()
    read = {"count": 0, "scatter": 0}

    def counted(name, kernel):
        def call(*arrays):
            read[name] += len(arrays[0 if name == "count" else 1])
            return kernel(*arrays)

        return call

    monkeypatch.setattr(_kernels, "local_count_columns", counted("count", _kernels.local_count_columns))
    monkeypatch.setattr(_kernels, "local_scatter_columns", counted("scatter", _kernels.local_scatter_columns))
    saved(tmp_path, parts(A), memory=1 << 17)
    assert read["count"] <= 1.5 * A.nnz and read["scatter"] <= 2.5 * A.nnz


@pytest.mark.parametrize("form", ["matrix", "symmetric", "graph"])
def test_memory_is_bounded_by_the_parameter(tmp_path, form):
    """NumPy allocates less to save and verify 6 to 16 MB than the megabyte that it may."""
    n, memory = 100_000, 1 << 20
    offsets = (-40_000, -1, 0, 1, 40_000)
    A = sp.diags_array([np.full(n - abs(o), 9.0 if o == 0 else 1.0) for o in offsets], offsets=offsets).tocsr()
    for name, array in zip(("data", "indices", "indptr"), parts(A), strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("data", "indices", "indptr"))
    options = {"symmetric": form == "symmetric", "kind": "graph" if form == "graph" else "matrix"}
    saved(tmp_path, tuple(part[: len(part)] for part in mapped), memory=1 << 26, **options)  # imports, caches
    tracemalloc.start()
    try:
        saved(tmp_path, mapped, memory=memory, overwrite=True, **options)
        folder = bs.local.open(tmp_path / "A", "r+")
        folder.refresh_margins(memory=memory)
        folder.verify(memory=memory)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= memory
    assert sum(file.stat().st_size for file in folder.path.iterdir()) > 6 * memory


def test_indices_are_wide_from_two_to_the_31_on(tmp_path, monkeypatch):
    assert index_dtype(2**31 - 1) == "int32" and index_dtype(2**31) == "int64"
    for module in (meta_module, writing):
        monkeypatch.setattr(module, "index_dtype", lambda n: "int64")
    for form, A in (("general", matrix()), ("symmetric", symmetric())):
        bs.local.save(tmp_path / form, A, symmetric=form == "symmetric", memory=LEAST_MEMORY)
        folder = bs.local.open(tmp_path / form)
        folder.verify()
        assert folder.indices.dtype == np.int64 and (folder.data == A.data).all()
    same(bs.local.open(tmp_path / "general"), matrix())


def test_pieces_hold_rows_in_order():
    indptr = np.array([0, 0, 0, 5, 6, 7, 30, 31, 31, 31])
    for entries in (1, 2, 6, 100):
        found = list(row_chunks(indptr, entries))
        assert [first for first, _ in found] == [0, *(last for _, last in found[:-1])] and found[-1][1] == 9
        assert all(last == first + 1 or indptr[last] - indptr[first] <= entries for first, last in found)
        assert all(last - first <= entries for first, last in found)


# -- values that change -----------------------------------------------------------------------------------


def test_changes_in_place_are_seen_by_all(tmp_path):
    A = matrix()
    path = saved(tmp_path, A)
    writer, reader, private = (bs.local.open(path, mode) for mode in ("r+", "r", "c"))
    leaf = torch.from_numpy(writer.data).requires_grad_()
    (3 * leaf.sum()).backward()
    torch.optim.SGD([leaf], lr=1e-3).step()
    changed = A.data - 3e-3
    np.testing.assert_allclose(reader.data, changed, rtol=1e-14)
    np.testing.assert_allclose(bs.local.open(path).data, changed, rtol=1e-14)
    private.data[:] = 0.0
    assert (reader.data != 0).any()
    with pytest.raises(ValueError, match="read-only"):
        reader.data[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        writer.indices[0] = 1


def test_margins_are_those_of_the_time_until_refreshed(tmp_path):
    path = saved(tmp_path)
    folder = bs.local.open(path, "r+")
    before = folder.row_gap
    folder.data[folder.indices[: folder.indptr[1]].argmax()] = 1e3  # beside the diagonal
    with pytest.raises(ValueError, match=r"the margin of \w+ \d+ is not that of the values: call refresh_margins\(\)"):
        folder.verify()
    folder.refresh_margins()
    again = bs.local.open(path)
    again.verify()
    assert (again.row_margins == margins(again.access)).all() and again.row_gap == folder.row_gap != before
    with pytest.raises(ValueError, match="was opened with mode 'r': open it with 'r\\+'"):
        again.refresh_margins()


def test_a_private_map_refreshes_for_itself(tmp_path):
    folder = bs.local.open(saved(tmp_path), "c")
    folder.data[:] = 2 * np.array(folder.data)
    before = np.array(folder.row_margins)
    folder.refresh_margins()
    assert (folder.row_margins == 2 * before).all()
    assert (bs.local.open(folder.path).row_margins == before).all()
    bs.local.open(folder.path).verify()


def test_strengths_are_refreshed(tmp_path):
    folder = bs.local.open(saved(tmp_path, abs(matrix()), kind="graph"), "r+")
    folder.data[:] = 1.0
    with pytest.raises(ValueError, match="the strength of row 0 is not that of the values"):
        folder.verify()
    folder.refresh_margins()
    folder.verify()
    assert (folder.strengths == np.diff(folder.indptr)).all()


def test_other_processes_get_the_path(tmp_path):
    folder = pickle.loads(pickle.dumps(bs.local.open(saved(tmp_path), "r+")))
    assert folder.mode == "r+" and folder.data.flags.writeable
    same(folder, matrix())


# -- whole or not at all ----------------------------------------------------------------------------------


def test_a_folder_is_replaced_only_if_asked(tmp_path):
    path = saved(tmp_path)
    with pytest.raises(FileExistsError, match=r"A exists: pass overwrite=True"):
        bs.local.save(path, 2 * matrix())
    same(bs.local.open(path), matrix())
    bs.local.save(path, 2 * matrix(), overwrite=True)
    same(bs.local.open(path), 2 * matrix())
    assert [p.name for p in tmp_path.iterdir()] == ["A"]


def test_nothing_else_is_replaced(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"is no folder of backsolve\.local\.save"):
        saved(tmp_path, overwrite=True)
    assert [p.name for p in (tmp_path / "A").iterdir()] == ["thesis.tex"]
    assert (tmp_path / "A" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_fails_leaves_nothing_behind(tmp_path, overwrite):
    if overwrite:
        saved(tmp_path)

    def failing():
        yield from batches(matrix(), [7])
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        bs.local.save(tmp_path / "A", failing(), n=100, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == (["A"] if overwrite else [])
    if overwrite:
        same(bs.local.open(tmp_path / "A"), matrix())


# -- bad input --------------------------------------------------------------------------------------------


NAN = np.array([1.0, np.nan])
REFUSED = {
    "dense": (np.eye(2), {}, TypeError, "A must be sparse; got Dense"),
    "rectangular": (sp.csr_array(np.ones((2, 3))), {}, ValueError, r"A must be one square matrix; got CSR\(2x3"),
    "complex": (sp.csr_array(np.eye(2) * 1j), {}, ValueError, "data must be float32 or float64"),
    "long double": ((np.ones(1, np.longdouble), [0], [0, 1]), {}, ValueError, "data must be float32 or float64"),
    "nan": ((NAN, [0, 1], [0, 1, 2]), {}, ValueError, r"values must be finite; the one at \(1, 1\) is nan"),
    "negative weight": (
        ([1.0, -2.0], [0, 1], [0, 0, 2]),
        {"kind": "graph"},
        ValueError,
        r"not negative, as weights of a graph; the one at \(1, 1\) is -2.0",
    ),
    "no values": ((None, [0], [0, 1]), {}, ValueError, "data must be given, one value per index; got None"),
    "too few values": (([1.0], [0, 1], [0, 1, 2]), {}, ValueError, r"data must have shape \(2,\)"),
    "unsorted": (([1.0, 2.0], [1, 0], [0, 2, 2]), {}, ValueError, "row 0 has 0 after 1: make A canonical"),
    "repeated": (([1.0, 2.0], [1, 1], [0, 0, 2]), {}, ValueError, "row 1 has 1 after 1: make A canonical"),
    "index": (([1.0, 2.0], [1, 2], [0, 1, 2]), {}, ValueError, r"row 1: indices must lie in \[0, 2\)"),
    "negative index": (([1.0, 2.0], [1, -1], [0, 1, 2]), {}, ValueError, r"row 1: indices must lie in \[0, 2\)"),
    "float indices": (([1.0], [0.0], [0, 1]), {}, ValueError, "indices must be a 1-D array of integers"),
    "pointers fall": (([1.0, 2.0], [0, 1], [0, 2, 1, 2]), {}, ValueError, "must indptr not decrease"),
    "pointers end": (([1.0], [0], [0, 2]), {}, ValueError, "run from 0 to the number of indices, 1; got 0 to 2"),
    "no pointers": (([], [], []), {}, ValueError, "got no pointers"),
    "n": (([1.0], [0], [0, 1]), {"n": 2}, ValueError, "n must be the number of rows of A, 1; got 2"),
    "kind": (matrix(), {"kind": "tree"}, ValueError, "kind must be one of .* got 'tree'"),
    "memory": (matrix(), {"memory": 5}, ValueError, "memory must be a number of bytes of at least 16384; got 5"),
    "batches without n": ([([1], [0], [1.0])], {}, ValueError, "n must be the number of rows in all"),
    "batches too few": ([([1], [0], [1.0])], {"n": 2}, ValueError, "batches must have n = 2 rows in all; got 1"),
    "batches too many": ([([1, 1], [0, 0], [1.0, 1.0])], {"n": 1}, ValueError, "be 1 in all"),
    "no triple": ([[1, 2]], {"n": 1}, ValueError, r"batches must be triples .* got \[1, 2\]"),
    "dtypes": (
        [([1], [0], np.ones(1, "f4")), ([1], [0], np.ones(1))],
        {"n": 2},
        ValueError,
        "of one dtype, or none; that of row 1 differs",
    ),
    "some data": (
        [([1], [0], [1.0]), ([1], [0], None)],
        {"n": 2, "kind": "graph"},
        ValueError,
        "or none; that of row 1",
    ),
}


@pytest.mark.parametrize(("A", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_sentence(tmp_path, A, options, error, message):
    with pytest.raises(error, match=message) as raised:
        bs.local.save(tmp_path / "A", A, **options)
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


# -- corrupted folders ------------------------------------------------------------------------------------


def edit(name, place, value):
    """Change one number of a file, behind the header."""

    def change(path):
        array = np.load(path / f"{name}.npy", mmap_mode="r+")
        array[place] = value
        array.flush()

    return change


def meta(**changes):
    def change(path):
        said = json.loads((path / "meta.json").read_text())
        for key, value in changes.items():
            *outer, last = key.split("__")
            inner = said
            for step in outer:
                inner = inner[step]
            if value is None:
                del inner[last]
            else:
                inner[last] = value
        (path / "meta.json").write_text(json.dumps(said))

    return change


def written(name, text):
    return lambda path: (path / name).write_bytes(text)


def cut(name, count):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:count])


def longer(path):
    (path / "data.npy").write_bytes((path / "data.npy").read_bytes() + b"\0")


def header(name, old, new):
    def change(path):
        content = (path / name).read_bytes()
        assert content[:HEADER].count(old) == 1 and len(old) == len(new)
        (path / name).write_bytes(content.replace(old, new, 1))

    return change


SEEN_AT_ONCE = {
    "no folder": (lambda path: (path / "meta.json").unlink(), "has no meta.json"),
    "no json": (written("meta.json", b"{"), "it is no JSON"),
    "other json": (written("meta.json", b"[]"), "is not of backsolve.local.save"),
    "other format": (meta(format="pickle"), "its format must be 'backsolve local'"),
    "newer": (meta(version=2), "has format version 2, and this backsolve reads 1"),
    "lacks": (meta(nnz=None), "it lacks 'nnz'"),
    "kind": (meta(kind="tree"), "kind must be one of"),
    "size": (meta(n=-1), "n must be a size, and is -1"),
    "text": (meta(n="60"), "n must be a size, and is '60'"),
    "flag": (meta(symmetric=1), "symmetric must be true or false"),
    "lies about n": (meta(n=59), "indptr.npy must hold 60 numbers of dtype int64 for n = 59"),
    "lies about nnz": (meta(nnz=7), "indices.npy must hold 7 numbers of dtype int32"),
    "lies about size": (meta(files__data__size=7), r"data.npy must have \d+ bytes, and meta.json says otherwise"),
    "lies about dtype": (meta(files__indices__dtype="int16"), r"indices.npy must hold \d+ numbers of dtype int32"),
    "int32 overflow": (meta(n=2**31), "indptr.npy must hold 2147483649 numbers"),
    "complex": (meta(files__data__dtype="complex128"), "data.npy must be float32 or float64, and is complex128"),
    "no file": (meta(files__t_slot=None), "files must be .*; t_slot differ"),
    "missing": (lambda path: (path / "t_slot.npy").unlink(), "t_slot.npy is missing"),
    "truncated": (cut("indices.npy", 300), r"indices.npy is truncated: it has 300 bytes of \d+"),
    "empty": (cut("data.npy", 0), "data.npy is truncated: it has 0 bytes"),
    "longer": (longer, "data.npy is too long"),
    "no npy": (header("data.npy", b"\x93NUMPY", b"garbag"), "data.npy is damaged: it is no .npy file"),
    "dtype": (header("data.npy", b"<f8", b"<i8"), "data.npy is damaged: it must hold .* its header says dtype int64"),
    "objects": (header("data.npy", b"<f8", b"|O "), "data.npy is damaged"),
    "order": (header("data.npy", b"(", b"["), "data.npy is damaged"),
    "start": (edit("indptr", 0, 1), r"indptr.npy is damaged: it must run from 0 to nnz = \d+, and runs from 1"),
    "end": (edit("t_indptr", -1, 5), "t_indptr.npy is damaged: it must run from 0 .* to 5"),
}


@pytest.mark.parametrize(("damage", "message"), SEEN_AT_ONCE.values(), ids=SEEN_AT_ONCE)
def test_damage_that_open_sees(tmp_path, damage, message):
    path = saved(tmp_path)
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        bs.local.open(path)
    assert "\n" not in str(raised.value)


SEEN_INSIDE = {
    "pointers fall": (edit("indptr", 5, 1), "indptr must not decrease, and does at 5"),
    "columns fall": (edit("t_indptr", 5, 0), "t_indptr must not decrease, and does at 5"),
    "pointer far off": (edit("indptr", 5, 1 << 40), "indptr must not decrease, and does at 6"),
    "index above": (edit("indices", 9, 60), r"in row \d+, indices must lie in \[0, 60\)"),
    "index below": (edit("indices", 9, -1), r"in row \d+, indices must lie in \[0, 60\)"),
    "unsorted": (lambda p: (edit("indices", 0, 50)(p), edit("indices", 1, 4)(p)), "in row 0, indices must be sorted"),
    "columns of another": (edit("t_indices", 0, 59), "column 0 has entries in t_indices and t_slot that are not"),
    "slot": (edit("t_slot", 1, 0), r"column \d+ has entries in t_indices and t_slot"),
    "slot outside": (edit("t_slot", 1, 1 << 50), r"column \d+ has entries"),
    "nan": (edit("data", 3, np.nan), r"values must be finite, and the one at \(\d+, \d+\) is nan"),
    "margin": (edit("row_margins", 3, 1e9), "the margin of row 3 is not that of the values"),
    "column margin": (edit("column_margins", 4, np.nan), "the margin of column 4 is not that of the values"),
}


@pytest.mark.parametrize(("damage", "message"), SEEN_INSIDE.values(), ids=SEEN_INSIDE)
def test_damage_that_verify_sees(tmp_path, damage, message):
    path = saved(tmp_path)
    damage(path)
    with pytest.raises(ValueError, match=f"A does not verify: .*{message}") as raised:
        bs.local.open(path).verify(memory=LEAST_MEMORY)
    assert "\n" not in str(raised.value)


def test_a_graph_of_other_edges_has_another_checksum(tmp_path):
    path = saved(tmp_path, (None, [1, 0, 3, 2], [0, 1, 2, 3, 4]), kind="graph", symmetric=True)
    bs.local.open(path).verify()
    np.load(path / "indices.npy", mmap_mode="r+")[:] = [2, 3, 0, 1]
    with pytest.raises(ValueError, match=r"indices\.npy holds other numbers than were saved"):
        bs.local.open(path).verify()


def test_damage_of_a_symmetric_folder(tmp_path):
    path = saved(tmp_path, symmetric(), symmetric=True)
    edit("data", 1, 0.5)(path)
    with pytest.raises(ValueError, match="it must be symmetric, and the entry"):
        bs.local.open(path).verify()


def test_files_are_what_numpy_writes(tmp_path):
    """Any program reads them, and checksums are those of the numbers."""
    path = saved(tmp_path)
    said = json.loads((path / "meta.json").read_text())["files"]
    assert {p.name for p in path.iterdir()} == {"meta.json", *(f"{name}.npy" for name in said)}
    for name, stored in said.items():
        array = np.load(path / f"{name}.npy")
        np.save(tmp_path / "again.npy", array)
        assert (tmp_path / "again.npy").read_bytes() == (path / f"{name}.npy").read_bytes()
        assert (stored["crc32"] is None) == (name not in STRUCTURE)
        assert stored["crc32"] in (None, zlib.crc32(array.data))


def test_the_mode_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"mode must be one of \('r', 'r\+', 'c'\); got 'w'"):
        bs.local.open(saved(tmp_path), "w")


def test_opening_reads_no_array(tmp_path):
    """O(1): the same few bytes are allocated for a folder of a thousand times the size."""
    peaks = []
    for n in (100, 100_000):
        bs.local.save(tmp_path / str(n), sp.eye_array(n, format="csr"))
        bs.local.open(tmp_path / str(n))
        tracemalloc.start()
        folder = bs.local.open(tmp_path / str(n))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        del folder
    assert peaks[1] <= 1.2 * peaks[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda p, i: _kernels.local_count_columns(np.array([3], np.int32), 3, 0, np.zeros(3, np.int64)),
        lambda p, i: _kernels.local_scatter_columns(
            p[::-1].copy(), i, 0, 0, np.zeros(2, np.int64), i.copy(), p[:2].copy()
        ),
        lambda p, i: _kernels.local_scatter_columns(p, i, 0, 0, np.full(2, 9), i.copy(), p[:2].copy()),
        lambda p, i: _kernels.local_scatter_columns(p, i[:1], 0, 0, np.zeros(2, np.int64), i.copy(), p[:2].copy()),
        lambda p, i: _kernels.local_foreign_column(p, i, p, i, p[:2].copy(), 0, 3),
        lambda p, i: _kernels.local_foreign_column(p, i, np.array([0, 9, 2]), i, p[:2].copy(), 0, 2),
        lambda p, i: _kernels.local_without_mirror(p, i, np.zeros(1), 0, 2),
        lambda p, i: _kernels.local_without_mirror(np.array([0, 9, 2]), i, None, 0, 2),
    ],
)
def test_kernels_stay_inside_their_arrays(call):
    with pytest.raises(ValueError):
        call(np.array([0, 1, 2]), np.array([0, 1], np.int32))
