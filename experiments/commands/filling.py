"""Listed cells, of a table or an experiment, run where the command line says: here, or as jobs of Hydra's launcher."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict

from experiments.commands import sweep
from experiments.composing.app import COMMON
from experiments.composing.cells import composed
from experiments.launching.launcher import Common
from experiments.trials.plan import Plan
from experiments.trials.running import Runner
from smd_research.core.errors import LabError

if TYPE_CHECKING:
    from experiments.trials.campaign import Campaign
    from smd_research.records import Record

Words = tuple[str, ...]
"""The overrides of a cell."""


class Filling:
    """Runs the cells of a command in batches.

    Args:
        cfg: of the command.
        known: the plan of every cell that may be asked for, by its overrides.
        campaign: that they belong to.
        journal: of the command.
        total: how many cells are asked for in all.

    Attributes:
        asked: the plans of the cells that were asked for, in order.
    """

    def __init__(
        self,
        cfg: DictConfig,
        known: Mapping[Words, Plan],
        campaign: "Campaign",
        journal: sweep.Journal,
        total: int,
    ) -> None:
        self.asked: list[Plan] = []
        self._cfg, self._known, self._campaign = cfg, known, campaign
        self._journal, self._total = journal, total
        self._runner = Runner()

    def run(self, batch: Sequence[Words]) -> list["Record | None"]:
        """Run some cells, or reuse their records.

        Returns:
            Their records, None where there is none.

        Raises:
            LabError: what ends the whole command: a folder that cannot be written, a launcher that takes no jobs.
        """
        first = len(self.asked) + 1
        plans = [replace(self._known[words], campaign=self._campaign) for words in batch]
        self.asked += plans
        places = [(place, self._total) for place in range(first, first + len(batch))]
        elsewhere = [place for place, plan in enumerate(plans) if is_launched() and is_waiting(plan)]
        if elsewhere:
            self._launch([(batch[place], places[place]) for place in elsewhere])
        return [
            looked_up(plan)
            if place in elsewhere
            else sweep.attempt(plan, partial(self._runner.run, plan), self._journal, places[place])
            for place, plan in enumerate(plans)
        ]

    def _launch(self, cells: Sequence[tuple[Words, tuple[int, int]]]) -> None:
        job = HydraConfig.get()
        config = self._cfg.copy()
        with open_dict(config):
            config.hydra = job
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(GlobalHydra.instance().config_loader(), Callbacks()),
            task_function=_task([place for _, place in cells], self._campaign, self._journal),
            config=config,
        )
        for returned in launcher.launch([list(words) for words, _ in cells], 0):
            if isinstance(returned.return_value, LabError):
                raise returned.return_value


def _task(places: Sequence[tuple[int, int]], campaign: "Campaign", journal: sweep.Journal) -> Any:
    """What a job does with its cell, by the cell's number."""
    runner = Runner()

    def task(cfg: DictConfig) -> LabError | None:
        job = HydraConfig.get()
        try:
            plan = replace(composed(list(job.overrides.task)), campaign=campaign)
            sweep.attempt(plan, partial(runner.run, plan), journal, places[int(job.job.num)])
        except LabError as error:
            return error  # to the launcher, on whose host nobody else looks
        return None

    vars(task)[COMMON] = Common(journal.share, journal.tell)
    return task


def is_launched() -> bool:
    """Whether cells are to be given to a launcher that runs them in other processes; in such a job they are not."""
    job = HydraConfig.get()
    return job.mode is not RunMode.MULTIRUN and "basic_launcher" not in str(job.launcher["_target_"])


def is_waiting(plan: Plan) -> bool:
    """Whether a cell has still to be run."""
    from smd_research.core.errors import RecordError
    from smd_research.records import Store, decide

    try:
        return decide(Store(plan.results_dir).lookup(plan.cell), plan.rerun) == "run"
    except RecordError:  # corrupt: whoever attempts it says so
        return False


def looked_up(plan: Plan) -> "Record | None":
    """The record of a cell, None where it has none."""
    from smd_research.records import Store

    return Store(plan.results_dir).lookup(plan.cell)
