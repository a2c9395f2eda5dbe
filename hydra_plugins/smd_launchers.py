"""Where Hydra looks for launchers, ``hydra/launcher=slurm`` and ``hydra/launcher=ray``; it loads neither engine."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.launching.following import Engine
from experiments.launching.launcher import Elsewhere


class SlurmLauncher(Elsewhere):
    """Each job of a sweep is one of Slurm."""

    @contextmanager
    def engine(self, folder: Path) -> Iterator[Engine]:
        from experiments.launching.slurm import Slurm

        slurm = Slurm(self.wants, folder / f"slurm-{secrets.token_hex(4)}", **self.options)
        yield slurm
        slurm.clear()


class RayLauncher(Elsewhere):
    """Each job of a sweep is a task of Ray."""

    @contextmanager
    def engine(self, folder: Path) -> Iterator[Engine]:
        from experiments.launching.ray_cluster import RayCluster

        cluster = RayCluster(self.wants, **self.options)
        try:
            yield cluster
        finally:
            cluster.leave()
