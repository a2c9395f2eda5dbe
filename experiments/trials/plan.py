"""A plan: the cell to run, what builds its parts, and where and how it is run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smd_research.core.cell import Cell

if TYPE_CHECKING:
    from attacks.base import Attack
    from experiments.trials.campaign import Campaign
    from smd_research.boundary import Link
    from smd_research.data.sources import DataSource
    from smd_research.data.tasks import Task
    from smd_research.defenses.base import Defense
    from smd_research.models.bundle import Bundle
    from smd_research.records.store import Rerun
    from smd_research.training.methods import Tuning


@dataclass(frozen=True)
class Parts:
    """Builds each part of a cell when it is asked for, so that a known cell builds nothing.

    Attributes:
        model: the model, on the cell's device and in its arithmetic.
        data: where prompts and public text come from.
        defense: the defense.
        attack: the attack; gives None where nobody attacks.
        link: the modelled link.
        task: the task that the model is tuned on; None without one.
        tuning: how it is tuned; None without a task.
    """

    model: Callable[[], "Bundle"]
    data: Callable[[], "DataSource"]
    defense: Callable[[], "Defense"]
    attack: Callable[[], "Attack | None"]
    link: Callable[[], "Link"]
    task: Callable[[], "Task"] | None = None
    tuning: Callable[[], "Tuning"] | None = None


@dataclass(frozen=True)
class Plan:
    """A cell, and what it takes to run it that is not part of its identity.

    Attributes:
        cell: the point of the grid.
        parts: builds what the cell names.
        results_dir: where the record goes.
        rerun: what to do when the cell is known.
        logger: where a written record is sent besides.
        threads: torch threads of each party.
        beside: the plan of the cell that differs in the given overrides, for an attack that stands beside a control.
        address: where the untrusted party listens, when it is on another host.
        trainer: where Lightning trains: its accelerator, devices and strategy.
        record_texts: whether the record holds the texts that were asked and guessed.
        campaign: the sweep or table that it belongs to; None of a single run.
    """

    cell: Cell
    parts: Parts
    results_dir: Path
    rerun: "Rerun"
    logger: Mapping[str, Any]
    threads: int
    beside: Callable[[Sequence[str]], "Plan"]
    address: str | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    record_texts: bool = True
    campaign: "Campaign | None" = None
