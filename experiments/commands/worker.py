"""``smd worker table=NAME``: run one cell of a table after another, whichever nobody has, until none is left.

Any number of workers fill a table together, on any hosts that share ``results_dir``, whatever started them: an array of
a scheduler, a shell on each of some machines. A cell is claimed before it is run (:mod:`smd_research.records.lease`),
and that of a worker who died is taken over by another. ``smd table table=NAME rerun=never`` then shows the table.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.commands import sweep, table
from experiments.commands.filling import Words, is_launched, is_waiting, looked_up
from experiments.composing import campaigns
from experiments.composing.app import launch
from experiments.composing.overrides import UsageError
from experiments.composing.products import expand
from experiments.launching.ending import ends_properly
from experiments.trials.plan import Plan
from experiments.trials.running import Runner
from smd_research.core.progress import say

if TYPE_CHECKING:
    from smd_research.records import Record
    from smd_research.records.lease import Lease

_ASKED_AGAIN_AFTER_S = 1.0


class BusyError(Exception):
    """Another worker has the cell."""


class Worker:
    """Takes cells of batches that nobody has.

    Args:
        plans: of every cell that may be asked for, by its overrides.
        journal: where the cells are entered that ran here.
        total: how many cells the table has.
    """

    def __init__(self, plans: dict[Words, Plan], journal: sweep.Journal, total: int) -> None:
        self._plans, self._journal, self._total = plans, journal, total
        self._runner = Runner()
        self._places = {words: place for place, words in enumerate(plans, start=1)}

    def run(self, batch: Sequence[Words]) -> list["Record | None"]:
        """Stay until every cell of a batch has a record, and run those that nobody else does.

        Returns:
            Their records.

        Raises:
            RecordError: the results folder cannot be written.
        """
        waiting = list(batch)
        while waiting:
            left = [words for words in waiting if not self._is_over(words)]
            if left == waiting:
                time.sleep(_ASKED_AGAIN_AFTER_S)
            waiting = left
        return [looked_up(self._plans[words]) for words in batch]

    def _is_over(self, words: Words) -> bool:
        """Whether a cell is done, by now or by now here; False where another worker has it."""
        from smd_research.records.lease import Leases

        plan = self._plans[words]
        if not is_waiting(plan):
            return True
        if Leases(plan.results_dir).holder(plan.cell):
            return False
        place = (self._places[words], self._total)
        try:
            sweep.attempt(plan, partial(self._runner.run, plan, _leave), self._journal, place)
        except BusyError:
            return False
        return True


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd worker`` command.

    Returns:
        0; 1 when a cell failed here; 2 for a command line that cannot be composed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    journal = sweep.Journal.new(alone=False)
    counted: list[int] = []

    def one(cfg: DictConfig) -> None:
        if cfg.rerun not in ("missing", "failed"):
            raise UsageError(f"rerun={cfg.rerun}: a worker runs what is missing, or with rerun=failed what failed too")
        if is_launched():
            raise UsageError("a worker runs cells itself: give hydra/launcher= to smd table")
        counted.append(work(cfg, words, journal))

    with ends_properly():
        code = launch(one, "worker", "smd worker", words)
    entries = journal.close()
    if code:
        return code
    failed = sum(entry.status == "failed" for entry in entries)
    ran = sum(not entry.reused for entry in entries)
    lacking = sum(not entry.folder for entry in entries)  # of something that they need, here
    left = f"{lacking} left without a record" if lacking else "none is left"
    print(f"\n{sum(counted)} cells: {left}; {ran} run here, {failed} failed")
    shown = [word for word in words if not word.startswith(("rerun=", *table.LAUNCHING))]
    print(f"Show the table: {shlex.join(['smd', 'table', *shown, 'rerun=never'])}")
    return 1 if failed else 0


def work(cfg: DictConfig, words: Sequence[str], journal: sweep.Journal) -> int:
    """Fill a table, with whoever else does.

    Returns:
        How many cells it has.

    Raises:
        UsageError: no table is named.
        ConfigError: the table shows benches, which ``smd bench`` measures.
        RecordError: the results folder cannot be written.
    """
    declared, common, known = table.chosen(cfg), table.common_of(words), table.plans(cfg, words)
    name = str(HydraConfig.get().runtime.choices["table"])
    if not known:
        raise UsageError(f"table={name} shows benches: measure them with smd bench")
    campaign = campaigns.of_cells(f"table {name} {declared.size}", common, known)
    cells = expand(declared.sweep, common)
    plans = {overrides: replace(plan, campaign=campaign, rerun=cfg.rerun) for overrides, plan in known.items()}
    say(f"{len(known)} cells, {sum(map(is_waiting, plans.values()))} without a record")
    worker = Worker(plans, journal, len(known))
    table.fill(declared, cells, common, known, worker.run)
    return len(known)


def _leave(lease: "Lease | None") -> None:
    raise BusyError


if __name__ == "__main__":
    sys.exit(main())
