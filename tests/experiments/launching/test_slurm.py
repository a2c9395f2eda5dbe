"""Slurm, on one host: a table is filled although jobs are killed, with the numbers of a local run."""

import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from counted_cells import CELLS, LINE, Grid
from daemons import free_ports, lacking_for_slurm, slurm, until
from tests_support import numbers

REASON = lacking_for_slurm() or ("" if importlib.util.find_spec("submitit") else "the extra slurm is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.skipif(bool(REASON), reason=REASON)]
WORDS = ("hydra/launcher=slurm", "hydra.launcher.poll_s=1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm(tmp_path_factory.mktemp("slurm"), cpus=2) as env:
        yield env


def test_a_table_is_filled_although_jobs_are_killed(
    make_grid: Callable[..., Grid], here: Grid, cluster: dict[str, str]
) -> None:
    grid = make_grid(seconds=2)
    started = grid.start("table", *WORDS, "hydra.launcher.cells_per_job=4", env=cluster)
    for end in (["kill", "-KILL"], ["scancel"]):
        seen = len(grid.noted("began"))
        until(lambda seen=seen: len(grid.noted("began")) > seen or started.poll() is not None, "a cell begins", 240)
        assert started.poll() is None, started.communicate()[0]
        process, _, job = grid.unfinished()[-1]
        subprocess.run([*end, job if end == ["scancel"] else process], env={**os.environ, **cluster}, check=True)
    said, _ = started.communicate(timeout=500)
    assert started.returncode == 0, said
    assert LINE in said
    assert said.count("submitted again") == 2
    assert len(grid.noted("ended")) == CELLS, "no cell was run twice"
    assert len(grid.noted("began")) == CELLS + 2, "but those that were broken off"
    assert {threads for _, threads, _ in grid.noted("began")} == {"1"}
    pd.testing.assert_frame_equal(numbers(grid.results), numbers(here.results))
    assert not list((grid.results / "claims").glob("*.json"))
    assert not (grid.results / "journals").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hydra.launcher.partition=mani", "partition=mani: there is no such partition; did you mean 'main'?"),
        ("hydra.launcher.gpus=4", "Slurm refuses the jobs: "),
        ("hydra.launcher.cpus=0", "hydra.launcher.cpus=0 is no whole number from 1 on"),
    ],
)
def test_what_the_cluster_has_not_is_one_line(
    word: str, said: str, make_grid: Callable[..., Grid], cluster: dict[str, str]
) -> None:
    assert said in make_grid().refused(*WORDS, word, env=cluster)


def test_a_controller_that_is_down_is_one_line(
    make_grid: Callable[..., Grid], cluster: dict[str, str], tmp_path: Path
) -> None:
    lines = Path(cluster["SLURM_CONF"]).read_text().splitlines()
    kept = [line for line in lines if not line.startswith("SlurmctldPort")]
    conf = tmp_path / "slurm.conf"
    conf.write_text("\n".join([*kept, f"SlurmctldPort={free_ports(1)[0]}", "SlurmctldTimeout=2", "MessageTimeout=2"]))
    assert "Slurm's controller does not answer" in make_grid().refused(*WORDS, env={"SLURM_CONF": str(conf)})
