"""A sweep is checked whole before its first cell: a word that cannot be would else be found after hours of others."""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import DictConfig

from experiments.composing.checking import check
from experiments.composing.composition import composition, hydra_of
from experiments.composing.overrides import folders, parse
from experiments.composing.smoke import bring_down
from smd_research.core.paths import conf_dir


def check_sweep(arguments: Sequence[str]) -> None:
    """Check every cell of a command that is a sweep, before Hydra makes its folder; a single run is left to its job.

    Raises:
        UsageError: a value of some cell cannot be.
        HydraException: a cell cannot be composed.
    """
    words = [word for word in arguments if not word.startswith("-") and "=" in word]
    asked = any(word in ("-m", "--multirun") for word in arguments)
    if not asked and not any(word.lstrip("+").startswith(("experiment=", "hydra.mode=")) for word in words):
        return
    searched = [f"hydra.searchpath=[{','.join(f'file://{folder.resolve()}' for folder in folders(arguments))}]"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        fixed = [word for word in words if not parse([word])[0].is_sweep_override()]
        job = hydra_of([*fixed, *searched])
        if asked or str(job.mode) == "RunMode.MULTIRUN":
            for cell in _cells(words, job):
                check(bring_down(composition([*cell, *searched])[0]))


def _cells(words: Sequence[str], job: DictConfig) -> Iterator[Sequence[str]]:
    """The words of each cell, of the command line and of an experiment that sweeps by itself."""
    swept: dict[Any, str] = {key: f"{key}={value}" for key, value in (job.sweeper.get("params") or {}).items()}
    swept |= {override.key_or_group: str(override.input_line) for override in parse(list(words))}
    for batch in BasicSweeper.split_arguments(parse(list(swept.values())), None):
        yield from batch
