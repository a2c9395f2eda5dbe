"""Shared fixtures."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from made_records import make_cell, make_record

from smd_research.core.cell import Cell
from smd_research.core.errors import ConfigError
from smd_research.models.bundle import Bundle
from smd_research.models.smollm2_package import smollm2_file
from smd_research.models.sources import smollm2 as load_smollm2
from smd_research.records import Record

ROOT = Path(__file__).resolve().parents[1]

# Continuous integration draws the same examples each time; elsewhere Hypothesis goes on looking for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests run side by side: one torch thread each, whatever the last one left."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks a hub or an account for anything."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the repository; tests that need it are left out where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared/data beside the repository")
    return folder


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in an empty folder and check that nothing but results was left there."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    littered = {path.name for path in tmp_path.iterdir()} - {"results"}
    assert not littered


@pytest.fixture
def cell_with() -> Callable[..., Cell]:
    """Makes a cell that differs from a common one in what is named."""
    return make_cell


@pytest.fixture
def record_with() -> Callable[..., Record]:
    """Makes a small record by hand."""
    return make_record


@pytest.fixture(scope="session")
def smollm2() -> Bundle:
    """The real language model in fp32; tests that need it are left out where its package is absent."""
    try:
        smollm2_file()
    except ConfigError as error:
        pytest.skip(str(error))
    return load_smollm2()
