"""The known-template threat model: the adversary knows the prompt but for one value, and a list that holds that value.

Prompts are often filled-in forms ("Patient: ..., born ...: why does the knee hurt?"), and a name, a date or a drug
comes from a register that anyone can have. The template is side knowledge, declared as such: the runner hands it over
beside the view, and the attack is asked for nothing but the hidden value.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from attacks.base import Attack
from smd_research.boundary import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess


@dataclass(frozen=True, repr=False)
class Template:
    """A prompt but for one secret value.

    Attributes:
        ids: token ids ``[n]``, ``-1`` at the tokens of the hidden value.
        start: the value's first token.
        end: the token after its last.
        candidates: token ids of every value of the public register that fits into the gap, each ``[end - start]``,
            distinct; the hidden one is among them, at a place that says nothing.
    """

    ids: tuple[int, ...]
    start: int
    end: int
    candidates: tuple[tuple[int, ...], ...]


class TemplateAttack(Attack):
    """An attack by an adversary who knows the template.

    Attributes:
        secret: type of the value that is hidden from it, for example ``name``.
        candidates: how long a register it is given.
    """

    secret: str
    candidates: int

    @abstractmethod
    def fill(self, view: AdversaryView, template: Template, rng: np.random.Generator) -> Guess:
        """Name the hidden value.

        Returns:
            A guess that abstains outside the gap, with the candidates' indices in ``choices``, best first.
        """

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        """Refuses: without a template there is no gap to fill.

        Raises:
            NotApplicableError: always.
        """
        raise NotApplicableError("knows a template: it needs prompts with marked secrets of the type it looks for")
