"""The launchers ``hydra/launcher=slurm`` and ``hydra/launcher=ray``, as Hydra makes them; no engine is loaded here."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.plugins import Plugins

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


def register() -> None:
    """Let Hydra know both, by the names that ``conf/hydra/launcher`` has for them.

    It takes no launcher whose name does not lie in ``hydra_plugins``, a package that all plugins share.
    """
    for launcher in (SlurmLauncher, RayLauncher):
        Plugins.instance().class_name_to_class[f"hydra_plugins.smd.{launcher.__name__}"] = launcher
