"""A table in a new folder, and what a local run of it finds."""

from collections.abc import Callable

import pytest
from counted_cells import LINE, Grid


@pytest.fixture
def make_grid(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Grid]:
    """The table, in a new folder."""
    return lambda seconds=0.0: Grid(tmp_path_factory.mktemp("grid"), seconds)


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """The table, filled by a local run."""
    grid = Grid(tmp_path_factory.mktemp("here"))
    started = grid.start("table")
    said, _ = started.communicate(timeout=400)
    assert started.returncode == 0, said
    assert LINE in said
    return grid
