"""Which campaign a command line is: a sweep or a declared table, whatever folder, device or logger it names."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from experiments.composing.overrides import parse
from experiments.trials.campaign import Campaign

_RUNTIME = frozenset(
    {"results_dir", "rerun", "record_texts", "threads", "device", "address", "logger", "trainer", "hydra"}
)
"""Keys that say how and where cells are run, not which."""


def swept(job: Any, words: Sequence[str]) -> list[Override]:
    """What a sweep varies, those of an experiment's own sweep before those of the command line.

    Args:
        job: Hydra's own configuration of the job.
        words: the command line.
    """
    found = {str(key): f"{key}={value}" for key, value in (job.sweeper.params or {}).items()}
    found |= {override.key_or_group: str(override.input_line) for override in parse(words)}
    return [override for override in parse(list(found.values())) if override.is_sweep_override()]


def of_run(job: Any, words: Sequence[str]) -> Campaign | None:
    """The campaign of ``smd run``: that of a sweep; None of a single run, which is one by itself.

    Args:
        job: Hydra's own configuration of the job.
        words: the command line.
    """
    if str(job.mode.name) != "MULTIRUN":
        return None
    keys = [key for override in swept(job, words) if not _is_runtime(key := str(override.key_or_group))]
    return Campaign(f"sweep of {', '.join(keys)} ({_digest(words)})"[:128], tuple(keys))


def of_cells(title: str, common: Sequence[str], cells: Iterable[Sequence[str]]) -> Campaign:
    """The campaign of cells that are listed, by a table or an experiment.

    Args:
        title: what a person calls it: kind, name and size.
        common: overrides of the command line, which make another campaign where they change its cells.
        cells: the overrides of each of its cells.
    """
    given = [{word.partition("=")[0]: word for word in cell} for cell in cells]
    keys = dict.fromkeys(key for cell in given for key in cell if not _is_runtime(key))
    varied = tuple(key for key in keys if len({cell.get(key) for cell in given}) > 1)
    changed = [word for word in common if not _is_runtime(word.partition("=")[0])]
    return Campaign(title + (f" ({_digest(changed)})" if changed else ""), varied)


def _is_runtime(key: str) -> bool:
    return key.lstrip("+~").partition(".")[0].partition("/")[0] in _RUNTIME


def _digest(words: Sequence[str]) -> str:
    """Of what a command line says of its cells, in whatever order."""
    told = sorted(str(one.input_line) for one in parse(words) if not _is_runtime(str(one.key_or_group)))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]
