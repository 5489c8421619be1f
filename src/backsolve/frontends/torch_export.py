"""torch.export: a solve as a custom operation that takes its structure as tensors.

So an exported program holds all that it needs. Whoever loads one imports `backsolve.nn` first, which registers the
operation. The Pattern is found again by a digest of the index arrays, among those used last.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np
import torch

from ..operators import AbstractLinearOperator, Dense
from ..operators.csr import Template
from ..pattern import Pattern
from . import torch_opaque

__all__ = ["exported_solve"]

_KEPT = 32

_templates: OrderedDict[bytes, Template] = OrderedDict()
_lock = threading.Lock()


def _template(indptr: np.ndarray, indices: np.ndarray, slots: np.ndarray | None, columns: int) -> Template:
    """The structure with these index arrays, made and checked where it is not among the latest."""
    shape = (len(indptr) - 1, columns)
    digest = hashlib.sha256(f"{shape} {indices.dtype} {None if slots is None else slots.dtype}".encode())
    for a in (indptr, indices, *(() if slots is None else (slots,))):
        digest.update(np.ascontiguousarray(a).data)
    key = digest.digest()
    with _lock:
        if key not in _templates:
            own = None if slots is None else np.array(slots)
            _templates[key] = Template(Pattern(np.array(indptr), np.array(indices), shape, str(indices.dtype)), own)
        _templates.move_to_end(key)
        while len(_templates) > _KEPT:
            _templates.popitem(last=False)
        return _templates[key]


def _operator(data, indptr, indices, slots, columns) -> AbstractLinearOperator:
    if indptr is None:
        return Dense(data)
    template = _template(_host(indptr), _host(indices), None if slots is None else _host(slots), columns)
    return template.operator(data)


def _host(index: torch.Tensor) -> np.ndarray:
    return index.detach().cpu().numpy()


exported_solve = torch_opaque.register(
    "exported_solve",
    "Tensor? indptr, Tensor? indices, Tensor? slots, int columns",
    _operator,
    lambda indptr, *_: indptr is None,
)
