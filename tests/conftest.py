"""Settings of every test: one thread per process (pytest-xdist fills the cores), reproducible random examples."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before numpy is imported: a BLAS reads these once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

from hypothesis import settings  # noqa: E402

settings.register_profile("dnnc", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("dnnc")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of search results that all workers of a run share: equal layers are solved once."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "results"
