"""Ray, with two workers on this host: a table is filled although one is killed, with the numbers of a local run."""

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator

import pandas as pd
import pytest
from counted_cells import CELLS, LINE, Grid
from daemons import free_ports, ray_cluster, until
from tests_support import numbers

REASON = "" if importlib.util.find_spec("ray") else "the extra ray is not installed"
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.skipif(bool(REASON), reason=REASON)]
SWEEP = ("defense=none", "attack=counted", "seed=0,1,12", "n_prompts=2", "prompt_tokens=6", "max_new_tokens=2")


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_MODE", "disabled")  # else a token that some earlier cluster left at home decides
        with ray_cluster(tmp_path_factory.mktemp("r"), workers=2) as address:
            yield "hydra/launcher=ray", f"hydra.launcher.address={address}"


def test_a_table_is_filled_although_a_worker_is_killed(
    make_grid: Callable[..., Grid], here: Grid, where: tuple[str, str]
) -> None:
    grid = make_grid(seconds=1)
    started = grid.start("table", *where)
    until(lambda: len(grid.noted("ended")) >= 3 or started.poll() is not None, "three cells end", 240)
    until(lambda: grid.unfinished() or started.poll() is not None, "a cell begins")
    assert started.poll() is None, started.communicate()[0]
    os.kill(int(grid.unfinished()[-1][0]), signal.SIGKILL)
    said, _ = started.communicate(timeout=400)
    assert started.returncode == 0, said
    assert LINE in said
    assert said.count("submitted again") == 1
    assert len(grid.noted("ended")) == CELLS, "no cell was run twice"
    assert len(grid.noted("began")) == CELLS + 1, "but the one that was broken off"
    assert {threads for _, threads, _ in grid.noted("began")} == {"1"}
    pd.testing.assert_frame_equal(numbers(grid.results), numbers(here.results))

    # A sweep over the same folder runs what is not known, and takes no job for the rest.
    started = grid.start("run", "-m", *where, *SWEEP)
    said, _ = started.communicate(timeout=240)
    assert started.returncode == 0, said
    assert "3 cells: 1 run now, 2 known before, 0 failed" in said


def test_a_cluster_that_is_not_there_is_one_line(make_grid: Callable[..., Grid]) -> None:
    nowhere = f"hydra.launcher.address=127.0.0.1:{free_ports(1)[0]}"
    line = make_grid().refused("hydra/launcher=ray", nowhere)
    assert f"no Ray cluster is reached at {nowhere}" in line
