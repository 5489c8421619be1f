"""Tests of an engine whose package is not there are skipped, and the report says which and why."""

import ctypes
import gc
import importlib.util
import os
import shutil
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


KEPT = 2**28
"""Bytes of compiled programs that are kept between runs: several times what one run makes."""


def keep_compiled_programs(config):
    """A program of JAX that a test compiled before, in this run or another, is read from `.pytest_cache`.

    The key is the program with its flags, XLA and the processor. Programs that call the host are never kept. Tracing
    is not spared, and JAX counts a program that it reads as one that it compiled. `pytest --cache-clear` forgets all.
    """
    if not hasattr(config, "cache") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = config.cache.mkdir("jax")
    if not hasattr(config, "workerinput") and sum(file.stat().st_size for file in folder.iterdir()) > KEPT:
        shutil.rmtree(folder)  # of programs that no test makes any more, as likely as not
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


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
    keep_compiled_programs(config)
    config.addinivalue_line("markers", "engine(name): needs the package of this engine")
    config.addinivalue_line("markers", "package(name): needs this package")
