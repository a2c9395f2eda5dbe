"""The two lives of a defense, with one shape: prompts are served; or a model is tuned on private texts, then used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.trials import impersonating, phase_folders, serving
from experiments.trials.plan import Plan
from experiments.trials.pursuit import Replay
from experiments.trials.seen import SERVE, TUNE, Seen
from experiments.trials.workbench import Workbench
from smd_research.core.observable import Observable
from smd_research.defenses.base import Defense, Prepared


@dataclass(frozen=True)
class Life:
    """A life.

    Attributes:
        name: ``serve`` or ``tune``.
        shows: what the untrusted party sees of it; refuses a defense that cannot live so.
        prepare: has the defense prepare the cell's model.
        live: lives through it.
        makes: the part of a cell's identity that makes what is seen, whoever attacks.
        replay: the same with an impostor in the honest provider's place; None where nobody can take it.
    """

    name: str
    shows: Callable[[Defense, Plan], frozenset[Observable]]
    prepare: Callable[[Plan, Workbench, Defense], Prepared]
    live: Callable[[Plan, Workbench, Prepared], Seen]
    makes: Callable[[Plan], Mapping[str, Any]]
    replay: Replay | None = None


SERVED = Life(SERVE, serving.shows, serving.prepare, serving.live, serving.makes, impersonating.replay)


def life_of(plan: Plan) -> Life:
    """The life of a cell: with a task it is tuned."""
    return SERVED if plan.cell.task is None else _tuned()


def _tuned() -> Life:
    from experiments.trials import tuning  # Lightning takes seconds to import, and a served cell trains nothing

    return Life(TUNE, tuning.shows, tuning.prepare, tuning.live, phase_folders.makes_tuned)
