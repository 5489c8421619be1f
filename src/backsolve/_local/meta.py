"""What a folder says about itself: meta.json, written last and believed only as far as the files agree."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import describe
from .access import VALUE_DTYPES
from .npy import Stored

__all__ = ["KINDS", "NAME", "VERSION", "Meta", "index_dtype"]

NAME = "meta.json"
VERSION = 1
KINDS = ("matrix", "graph")
_FORMAT = "backsolve local"
_GAPS = ("row_gap", "column_gap")


def index_dtype(n: int) -> str:
    """Dtype of indices below n in files."""
    return "int32" if n < 2**31 else "int64"


@dataclass(frozen=True)
class Meta:
    """Sizes, and what each file holds."""

    kind: str
    """"matrix" or "graph"."""
    n: int
    nnz: int
    symmetric: bool
    """Whether rows are read as columns; of a graph, whether it is undirected."""
    files: dict[str, Stored]
    """By name, without the suffix."""
    row_gap: float | None = None
    """min over rows of margin / |a_ii|, -inf where a diagonal entry is zero; None of a graph."""
    column_gap: float | None = None

    @property
    def weighted(self) -> bool:
        """Whether there are values; only a graph may have none."""
        return "data" in self.files

    def expected(self, values: str = "float64") -> dict[str, tuple[str, int]]:
        """Dtype and length of each file."""
        index, long = index_dtype(self.n), ("int64", self.n + 1)
        files = {"indptr": long, "indices": (index, self.nnz)}
        if not self.symmetric:
            files |= {"t_indptr": long, "t_indices": (index, self.nnz), "t_slot": ("int64", self.nnz)}
        if self.kind == "matrix":
            files |= {"data": (values, self.nnz), "row_margins": ("float64", self.n)}
            if not self.symmetric:
                files["column_margins"] = ("float64", self.n)
        elif self.weighted:
            files |= {"data": (values, self.nnz), "strengths": ("float64", self.n)}
        return files

    def write(self, folder: Path) -> None:
        """Write meta.json, whole or not at all."""
        gaps = {name: _finite(getattr(self, name)) for name in _GAPS} if self.kind == "matrix" else {}
        files = {name: {**stored._asdict(), "size": stored.size} for name, stored in self.files.items()}
        said = {"format": _FORMAT, "version": VERSION, "kind": self.kind, "n": self.n, "nnz": self.nnz}
        said |= {"symmetric": self.symmetric, **gaps, "files": files}
        partial = folder / f".{NAME}.partial"
        partial.write_text(json.dumps(said, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(folder / NAME)

    @classmethod
    def read(cls, folder: Path) -> Meta:
        """Read meta.json; ValueError or FileNotFoundError says what is wrong with it."""
        path = folder / NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} is no folder of backsolve.local.save: it has no {NAME}; give the path that was saved to."
            )
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: it is no JSON ({error}); save the matrix again.") from None
        if not isinstance(said, dict) or said.get("format") != _FORMAT:
            raise ValueError(f"{path} is not of backsolve.local.save: its format must be {_FORMAT!r}.")
        if said.get("version") != VERSION:
            raise ValueError(
                f"{folder} has format version {describe(said.get('version'))}, and this backsolve reads {VERSION}: "
                "open it with the version of backsolve that saved it, or a newer one."
            )
        try:
            meta = cls._of(said)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {_words(error)}; save the matrix again.") from None
        return meta

    @classmethod
    def _of(cls, said: dict) -> Meta:
        files = {name: Stored(f["dtype"], f["length"], f["crc32"]) for name, f in said["files"].items()}
        gaps = {name: _gap(said[name]) for name in _GAPS} if said["kind"] == "matrix" else {}
        meta = cls(said["kind"], said["n"], said["nnz"], said["symmetric"], files, **gaps)
        for name, holds, must in [
            ("kind", meta.kind in KINDS, f"one of {KINDS}"),
            ("n", type(meta.n) is int and 0 <= meta.n < 2**63 - 1, "a size"),
            ("nnz", type(meta.nnz) is int and 0 <= meta.nnz < 2**63 - 1, "a size"),
            ("symmetric", type(meta.symmetric) is bool, "true or false"),
        ]:
            if not holds:
                raise ValueError(f"{name} must be {must}, and is {describe(said[name])}")
        expected = meta.expected(files["data"].dtype if meta.weighted else "float64")
        if missing := sorted(expected.keys() ^ files.keys()):
            raise ValueError(f"files must be {', '.join(expected)}; {', '.join(missing)} differ")
        for name, stored in files.items():
            dtype, length = expected[name]
            if name == "data" and dtype not in VALUE_DTYPES:
                raise ValueError(f"{name}.npy must be float32 or float64, and is {dtype}")
            if stored.dtype != dtype or stored.length != length:
                raise ValueError(
                    f"{name}.npy must hold {length} numbers of dtype {dtype} for n = {meta.n} and nnz = {meta.nnz}, "
                    f"and meta.json says {stored.length} of dtype {stored.dtype}"
                )
            if said["files"][name]["size"] != stored.size:
                raise ValueError(f"{name}.npy must have {stored.size} bytes, and meta.json says otherwise")
        return meta


def _gap(value: float | None) -> float:
    return -math.inf if value is None else float(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _words(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)
