"""A sweep is checked whole before its first cell: a word that cannot be would else be found after hours of others.

Hydra composes each cell of a sweep twice, copies it twice, and calls the command with it. Where the cells run one after
another in this process anyway, the checked ones are run as they are: it is the same, and a known cell costs a tenth.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.composing.checking import check
from experiments.composing.composition import composition, hydra_of
from experiments.composing.overrides import folders, parse
from experiments.composing.smoke import bring_down
from smd_research.core.paths import conf_dir

_FLAGS = {"-m", "--multirun", "-cd", "--config-dir"}
"""Flags of a sweep that this module knows what to do with."""

_HERE = {"hydra/launcher": "basic", "hydra/sweeper": "basic"}
"""Hydra's own choices where cells run one after another in this process."""


@dataclass(frozen=True)
class SweptCell:
    """A cell of a sweep, composed and checked.

    Attributes:
        values: all that is configured.
        choices: which option each group chose.
        words: the overrides that make it.
    """

    values: Mapping[str, Any]
    choices: Mapping[str, Any]
    words: Sequence[str]


@dataclass(frozen=True)
class Sweep:
    """The cells of a command, in order, and Hydra's own part of its configuration."""

    job: DictConfig
    cells: Sequence[SweptCell]


def check_sweep(arguments: Sequence[str], run: Callable[[Sweep], None] | None = None) -> bool:
    """Check every cell of a command that is a sweep, before Hydra makes its folder; a single run is left to its job.

    Args:
        arguments: the command line, flags first.
        run: runs the cells where they stay in this process and nothing is asked of Hydra besides, while Hydra is
            started for it as for the command; without, that is left to Hydra.

    Returns:
        Whether the cells were run.

    Raises:
        UsageError: a value of some cell cannot be.
        HydraException: a cell cannot be composed.
    """
    words = [word for word in arguments if not word.startswith("-") and "=" in word]
    asked = any(word in ("-m", "--multirun") for word in arguments)
    if not asked and not any(word.lstrip("+").startswith(("experiment=", "hydra.mode=")) for word in words):
        return False
    with _started(folders(arguments)):
        fixed = [word for word in words if not parse([word])[0].is_sweep_override()]
        job = hydra_of(fixed)
        if not asked and job.mode is not RunMode.MULTIRUN:
            return False
        job.mode = RunMode.MULTIRUN
        found = Sweep(job, [_checked(cell) for cell in _cells(words, job)])
        if run is None or not _stays_here(arguments, found):
            return False
        run(found)
        return True


@contextmanager
def _started(more: Sequence[Path]) -> Iterator[None]:
    """Hydra started, with folders of configurations besides, where it looks for them itself."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        for folder in more:
            loader.config_search_path.prepend("command-line", f"file://{folder.resolve()}", anchor="schema")
        loader.repository.initialize_sources(loader.config_search_path)
        yield


def _checked(words: Sequence[str]) -> SweptCell:
    cfg, choices = composition(words)
    return SweptCell(check(bring_down(cfg)), choices, words)


def _stays_here(arguments: Sequence[str], found: Sweep) -> bool:
    """Whether nothing but the cells is asked of Hydra, and none of them lists cells of its own."""
    flags = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    own = any(word.lstrip("+~").startswith("hydra") for word in arguments)
    plain = all(found.job.runtime.choices.get(group) == option for group, option in _HERE.items())
    lists = any(cell.values.get("cells") is not None for cell in found.cells)
    return flags <= _FLAGS and plain and not (own or lists or found.job.callbacks)


def _cells(words: Sequence[str], job: DictConfig) -> Iterator[Sequence[str]]:
    """The words of each cell, of the command line and of an experiment that sweeps by itself."""
    swept: dict[Any, str] = {key: f"{key}={value}" for key, value in (job.sweeper.get("params") or {}).items()}
    swept |= {override.key_or_group: str(override.input_line) for override in parse(list(words))}
    for batch in BasicSweeper.split_arguments(parse(list(swept.values())), None):
        yield from batch
