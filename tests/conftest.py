"""Tests of an engine whose package is not there are skipped, and the report says which and why."""

import ctypes
import gc
import importlib.util
import os
import sys

import pytest
from hypothesis import settings

from backsolve.methods.availability import ENGINES, why_missing

# XLA's optimiser would take most of the time of the tests of JAX, for programs that run once, on ten numbers. Where
# rounding is what a test is about, it compiles as users do: `jax_cases.AS_USERS`; so do the examples; and with
# XLA_FLAGS= in the environment all do.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false",
)

# The same examples in every run: a failure that one machine sees, all see.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def engines(item):
    """Engines named by the parameters of a test: by a string, first in a case, or as the method of a system."""
    params = getattr(item, "callspec", None)
    for value in params.params.values() if params else ():
        name = value[0] if isinstance(value, tuple) and value else getattr(value, "method", value)
        if isinstance(name, str) and name in ENGINES:
            yield name


def pytest_collection_modifyitems(items):
    for item in items:
        needed = {*engines(item), *(name for mark in item.iter_markers("engine") for name in mark.args)}
        for reason in filter(None, map(why_missing, sorted(needed))):
            item.add_marker(pytest.mark.skip(reason=f"left out: {reason}"))
        for package in (name for mark in item.iter_markers("package") for name in mark.args):
            if importlib.util.find_spec(package) is None:
                item.add_marker(pytest.mark.skip(reason=f"left out: {package} is not installed"))


def pytest_collection_finish():
    """What has been imported stays, and needs no look at every collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_module():
    """Compiled programs are no use to the next module, and several gigabytes in all."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what is freed, in every thread


def pytest_configure(config):
    config.addinivalue_line("markers", "engine(name): needs the package of this engine")
    config.addinivalue_line("markers", "package(name): needs this package")
