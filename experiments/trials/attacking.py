"""Run an attack on every view; it sees views and public knowledge, never a prompt or a defense.

An attack that knows templates is handed, beside the view, the prompt with one secret hidden: declared side knowledge.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from attacks.base import Attack, MappingAttack, PromptAttack, Public, TemplateAttack
from attacks.cryptanalysis.ciphertext import read
from experiments.progress import track
from experiments.trials.templates import Hidden
from smd_research.boundary import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator


@dataclass(frozen=True)
class Attempt:
    """What an attack made of one view.

    Attributes:
        guess: its guess.
        seconds: how long it took.
        hidden: what was hidden from an attack that knows the template, for metrics only.
        control: such an attack's guess for the same template from another prompt's view.
        refused: whether the trusted party refused the request of an active attack; None for one that looks on.
    """

    guess: Guess
    seconds: float
    hidden: Hidden | None = None
    control: Guess | None = None
    refused: bool | None = None


def check(attack: Attack, shows: frozenset[Observable]) -> None:
    """Refuse an attack that needs what the defense does not show, before anything runs.

    Raises:
        NotApplicableError: naming what is missing.
    """
    missing = sorted(attack.needs - shows)
    if missing:
        raise NotApplicableError(f"needs {', '.join(missing)}, which the defense does not show")


def recover_all(
    attack: Attack,
    public: Public,
    views: Sequence[tuple[str, AdversaryView]],
    seed: int,
    hidden: Sequence[Hidden | None] = (),
    refused: Sequence[bool] = (),
) -> list[Attempt]:
    """Fit the attack once, then recover every prompt.

    Args:
        attack: the attack.
        public: what is public.
        views: the name of each prompt, which seeds the attack's own randomness, and its view.
        seed: the cell's seed.
        hidden: for an attack that knows templates: that of each prompt, None where there is nothing to hide.
        refused: for an active attack, which requests the trusted party refused.

    Raises:
        NotApplicableError: when the attack finds that it cannot be run here.
    """
    if isinstance(attack, TemplateAttack):
        return _fill_all(attack, public, views, hidden, seed)
    attack.fit(public)
    if isinstance(attack, MappingAttack):
        return _read_all(attack, views, seed)
    if not isinstance(attack, PromptAttack):
        raise NotApplicableError("looks for no prompt")
    attempts = []
    for position, (name, view) in enumerate(track(views, "attack")):
        began = time.perf_counter()
        guess = attack.recover(view, generator(seed, "attack", name))
        stopped = refused[position] if refused else None
        attempts.append(Attempt(guess, time.perf_counter() - began, refused=stopped))
    return attempts


def _read_all(attack: MappingAttack, views: Sequence[tuple[str, AdversaryView]], seed: int) -> list[Attempt]:
    """One substitution from all views together, and every prompt read through it; the time is shared out evenly."""
    began = time.perf_counter()
    found = attack.solve([view for _, view in views], generator(seed, "attack", "mapping"))
    guesses = [read(view, found) for _, view in views]
    seconds = (time.perf_counter() - began) / max(len(views), 1)
    return [Attempt(guess, seconds) for guess in guesses]


def _fill_all(
    attack: TemplateAttack,
    public: Public,
    views: Sequence[tuple[str, AdversaryView]],
    hidden: Sequence[Hidden | None],
    seed: int,
) -> list[Attempt]:
    """Fill every template, from its own view and, as a control, from another prompt's."""
    if not any(hidden):
        raise NotApplicableError(f"no prompt holds a whole secret of type '{attack.secret}'")
    attack.fit(public)
    attempts = []
    lengths = [view.length or 0 for _, view in views]
    for position, (name, view) in enumerate(track(views, "attack")):
        one = hidden[position]
        if one is None:
            attempts.append(Attempt(Guess((-1,) * lengths[position]), 0.0))
            continue
        began = time.perf_counter()
        guess = attack.fill(view, one.template, generator(seed, "attack", name))
        seconds = time.perf_counter() - began
        other = partner(position, lengths)
        control = None
        if other is not None:
            control = attack.fill(views[other][1], one.template, generator(seed, "control", name))
        attempts.append(Attempt(guess, seconds, one, control))
    return attempts


def partner(position: int, lengths: Sequence[int]) -> int | None:
    """The next prompt of the same length, going round; None where there is no other."""
    same = [i for i, length in enumerate(lengths) if length == lengths[position]]
    following = same[(same.index(position) + 1) % len(same)]
    return None if following == position else following
