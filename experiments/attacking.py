"""Run an attack on every view; it sees views and public knowledge, never a prompt or a defense."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from attacks.base import Attack, Public
from experiments.progress import track
from smd_research.boundary import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator


@dataclass(frozen=True)
class Attempt:
    """A guess and the seconds it took."""

    guess: Guess
    seconds: float


def check(attack: Attack, shows: frozenset[Observable]) -> None:
    """Refuse an attack that needs what the defense does not show, before anything runs.

    Raises:
        NotApplicableError: naming what is missing.
    """
    missing = sorted(attack.needs - shows)
    if missing:
        raise NotApplicableError(f"needs {', '.join(missing)}, which the defense does not show")


def recover_all(attack: Attack, public: Public, views: Sequence[tuple[str, AdversaryView]], seed: int) -> list[Attempt]:
    """Fit the attack once, then recover every prompt.

    Args:
        attack: the attack.
        public: what is public.
        views: the name of each prompt, which seeds the attack's own randomness, and its view.
        seed: the cell's seed.

    Raises:
        NotApplicableError: when the attack finds that it cannot be run here.
    """
    attack.fit(public)
    attempts = []
    for name, view in track(views, "attack"):
        began = time.perf_counter()
        guess = attack.recover(view, generator(seed, "attack", name))
        attempts.append(Attempt(guess, time.perf_counter() - began))
    return attempts
