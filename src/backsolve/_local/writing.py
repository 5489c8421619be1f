"""Matrices and graphs to folders: batch of rows after batch, in bounded memory, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import numpy as np

from .. import _kernels
from ..errors import describe
from ..indices import defect_sentence, integers
from .access import VALUE_DTYPES
from .chunks import entries_for, row_chunks
from .meta import NAME, Meta, index_dtype
from .npy import Stored, Writer
from .sums import margins_and_gaps, strengths, symmetric_defect
from .transpose import write_transpose

__all__ = ["Plan", "batches_of", "write"]


class Plan(NamedTuple):
    """What is written, and how."""

    n: int
    kind: str
    symmetric: bool
    memory: int
    overwrite: bool


def write(path: Path, batches: Iterable[tuple], plan: Plan) -> None:
    """Write a folder of batches (lengths of rows, indices, data or None), which come in the order of the rows."""
    with _replaced(path, plan.overwrite) as folder:
        files = _write_rows(folder, batches, plan)
        if plan.symmetric:
            defect = symmetric_defect(folder, "data" in files, entries_for(plan.memory))
            if defect:
                raise ValueError(f"save: symmetric=True, but {defect}: leave it out, or make A equal to its transpose.")
        else:
            files |= write_transpose(folder, plan.memory)
        gaps: dict[str, Any] = {}
        if plan.kind == "matrix":
            sums, gaps = margins_and_gaps(folder, plan.symmetric, entries_for(plan.memory))
            files |= sums
        elif "data" in files:
            files["strengths"] = strengths(folder, entries_for(plan.memory))
        Meta(plan.kind, plan.n, files["indices"].length, plan.symmetric, files, **gaps).write(folder)


def batches_of(data: Any, indices: Any, indptr: Any, memory: int) -> Iterator[tuple]:
    """CSR arrays, also those of files, in batches of rows."""
    indices, indptr = integers("indices", indices), integers("indptr", indptr)
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(indices):
        said = f"{indptr[0]} to {indptr[-1]}" if len(indptr) else "no pointers"
        raise ValueError(f"save: indptr must run from 0 to the number of indices, {len(indices)}; got {said}.")
    if data is not None and np.shape(data) != indices.shape:
        raise ValueError(f"save: data must have shape {indices.shape}, one value per index; got {describe(data)}.")
    for first, last in row_chunks(indptr, entries_for(memory)):
        begin, end = int(indptr[first]), int(indptr[last])
        lengths = np.diff(indptr[first : last + 1])
        yield lengths, indices[begin:end], None if data is None else data[begin:end]


def _write_rows(folder: Path, batches: Iterable[tuple], plan: Plan) -> dict[str, Stored]:
    rows, values = 0, None
    with (
        Writer(folder / "indptr.npy", "int64") as indptr,
        Writer(folder / "indices.npy", index_dtype(plan.n)) as indices,
    ):
        indptr.append(np.zeros(1))
        try:
            for batch in batches:
                lengths, index, data = _checked(batch, rows, plan, indices.dtype)
                if values is None and data is not None and indptr.length == 1:
                    values = Writer(folder / "data.npy", data.dtype.name, changes=True)
                if (data is None) != (values is None) or (data is not None and values and data.dtype != values.dtype):
                    raise ValueError(
                        f"save: batches must all have data of one dtype, or none; that of row {rows} differs."
                    )
                indptr.append(indices.length + np.cumsum(lengths))
                indices.append(index)
                if values is not None and data is not None:
                    values.append(data)
                rows += len(lengths)
            if rows != plan.n:
                raise ValueError(f"save: batches must have n = {plan.n} rows in all; got {rows}.")
            if values is None and plan.kind == "matrix":
                values = Writer(folder / "data.npy", "float64", changes=True)  # no rows, no values
            files = {"indptr": indptr.close(), "indices": indices.close()}
            return files | ({"data": values.close()} if values is not None else {})
        finally:
            if values is not None:
                values.__exit__()


def _checked(batch: Any, first: int, plan: Plan, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    try:
        lengths, indices, data = batch
    except (TypeError, ValueError):
        raise ValueError(
            f"save: batches must be triples (lengths of rows, indices, data or None); got {describe(batch)}."
        ) from None
    lengths, indices = integers("lengths", lengths).astype(np.int64, copy=False), integers("indices", indices)
    wrong = lengths.size and (lengths.min() < 0 or first + len(lengths) > plan.n)
    if wrong or lengths.sum() != len(indices):
        raise ValueError(
            f"save: lengths of rows must not be negative, sum to the number of indices, and be {plan.n} in all; those "
            f"from row {first} on sum to {lengths.sum()} for {len(indices)} indices: must indptr not decrease?"
        )
    _check_places(np.concatenate(([0], np.cumsum(lengths))), indices, first, plan.n)
    indices = indices.astype(dtype, copy=False)
    return lengths, indices, _values(data, lengths, indices, first, plan.kind)


def _check_places(indptr: np.ndarray, indices: np.ndarray, first: int, n: int) -> None:
    """Each row sorted, without repeats, and within [0, n)."""
    wide = indices.astype(np.int64, copy=False)
    code, position, value = _kernels.diagnose(indptr, np.ascontiguousarray(wide), len(indptr) - 1, n)
    if code:
        row = first + int(np.searchsorted(indptr, position, "right")) - 1
        if code == 1:
            raise ValueError(
                f"save: indices must rise within each row; row {row} has {value} after {wide[position - 1]}: make A "
                "canonical, as scipy.sparse does by sum_duplicates."
            )
        raise ValueError(
            f"save: row {row}: " + defect_sentence(code, position, value, (n, n), len(indices), len(indptr))
        )


def _values(data: Any, lengths: np.ndarray, indices: np.ndarray, first: int, kind: str) -> np.ndarray | None:
    if data is None:
        if kind == "matrix":
            raise ValueError("save: data must be given, one value per index; got None, which is for kind='graph'.")
        return None
    data = np.asarray(data)
    if data.dtype.kind in "iub":
        data = data.astype(np.float64)
    if data.dtype.name not in VALUE_DTYPES or data.shape != indices.shape:
        raise ValueError(
            f"save: data must be float32 or float64, of shape {indices.shape}, one per index; got {describe(data)}."
        )
    wrong = ~np.isfinite(data) if kind == "matrix" else ~(np.isfinite(data) & (data >= 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        row = first + int(np.searchsorted(np.cumsum(lengths), at, "right"))
        must = "finite" if kind == "matrix" else "finite and not negative, as weights of a graph"
        raise ValueError(f"save: values must be {must}; the one at ({row}, {indices[at]}) is {data[at]}.")
    return data


@contextmanager
def _replaced(path: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `path` that takes its place once all is written, and is gone if that fails."""
    if path.exists():
        if not (path / NAME).is_file() and not (path.is_dir() and not any(path.iterdir())):
            raise FileExistsError(
                f"save: {path} exists, and is no folder of backsolve.local.save: choose another path."
            )
        if not overwrite:
            raise FileExistsError(f"save: {path} exists: pass overwrite=True to replace it, or choose another path.")
    partial, old = (path.with_name(f".{path.name}.{token_hex(4)}.{state}") for state in ("partial", "old"))
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if old.exists():
        shutil.rmtree(old)
