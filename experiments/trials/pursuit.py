"""The nouns of an attack on what was seen: what it is given, and what it leaves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attacks.base import Attack, Public
from experiments.trials.plan import Plan
from experiments.trials.seen import Seen
from experiments.trials.workbench import Workbench
from smd_research.boundary import AdversaryView
from smd_research.boundary.session import Impostor
from smd_research.core.guess import Guess
from smd_research.metrics import Estimate
from smd_research.records import Item, Record


@dataclass(frozen=True, repr=False)
class Impersonated:
    """One prompt served by an impostor.

    Attributes:
        view: what it saw, up to the refusal if there was one.
        refused: whether the trusted party ended the request: it noticed, or would not send this prompt at all.
    """

    view: AdversaryView
    refused: bool


Replay = Callable[[Plan, Seen, Impostor], Sequence[Impersonated]]
"""Lives through it again with an impostor in the honest provider's place."""


@dataclass(frozen=True, repr=False)
class Shown:
    """The views that an attack gets.

    Attributes:
        views: the honest provider's, or an impostor's.
        refused: which requests the trusted party refused to the impostor; empty where nobody was impersonated.
    """

    views: tuple[AdversaryView, ...]
    refused: tuple[bool, ...] = ()


@dataclass(frozen=True, repr=False)
class Pursuit:
    """What a kind of attack has to work with.

    Attributes:
        plan: of the cell.
        workbench: what cells of one process share.
        seen: of the defense's life; its truth is for scores only.
        public: what is public.
        replay: lives through it again for an active attack; None where nobody can take the provider's place.
        record_of: the record of another cell, run when it is unknown.
        own_seed: root of the attack's randomness alone; None takes the cell's.
    """

    plan: Plan
    workbench: Workbench
    seen: Seen
    public: Public
    replay: Replay | None
    record_of: Callable[[Plan], Record | None]
    own_seed: int | None = None

    @property
    def seed(self) -> int:
        """Root of the attack's randomness."""
        return self.plan.cell.seed if self.own_seed is None else self.own_seed

    def shown(self, attack: Attack) -> Shown:
        """What an attack gets to see: what was seen, or, where it is active, what its impostor sees."""
        impostor = attack.impostor(self.public)
        if impostor is None or self.replay is None:
            return Shown(self.seen.views)
        found = self.replay(self.plan, self.seen, impostor)
        return Shown(tuple(one.view for one in found), tuple(one.refused for one in found))


@dataclass(frozen=True, repr=False)
class Found:
    """What an attack made of one prompt.

    Attributes:
        guess: its guess.
        scores: metrics of it, by name.
    """

    guess: Guess
    scores: Mapping[str, float]


@dataclass(frozen=True, repr=False)
class Findings:
    """What an attack left.

    Attributes:
        prompts: of each prompt served; none where no prompt was looked for.
        metrics: of the cell as a whole.
        items: texts besides the prompts that a record shows.
    """

    prompts: tuple[Found, ...] = ()
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of attack.

    Attributes:
        attack: its base class, which names the verb.
        pursue: runs an attack of the kind and scores it.
        elsewhere: lives in which it has nothing to look for, each with the reason.
    """

    attack: type[Attack]
    pursue: Callable[[Any, Pursuit], Findings]
    elsewhere: Mapping[str, str] = field(default_factory=dict)


READS_PROMPTS = "works on prompts that are served: private tuning shows rows, see attacks.substitutions and bayes_token"
"""Why an attack on what is served is not applicable where a model is tuned."""
