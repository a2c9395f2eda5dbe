"""Attacks by an adversary who knows a prompt but for one value, handed over beside the view as declared knowledge."""

import math
import time
from collections.abc import Hashable, Sequence

from attacks.base import TemplateAttack
from experiments.trials.guesses import Attempt, scored
from experiments.trials.hiding import Hidden
from experiments.trials.pursuit import READS_PROMPTS, Findings, Kind, Pursuit
from experiments.trials.seen import TUNE
from smd_research import metrics
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess
from smd_research.core.progress import track
from smd_research.core.seeds import generator


def pursue(attack: TemplateAttack, pursuit: Pursuit) -> Findings:
    """Fit the attack once, then fill every template, from its own view and, as a control, from another prompt's.

    Raises:
        NotApplicableError: when no prompt holds a value of the type that the attack looks for.
    """
    truth, seed = pursuit.seen.truth, pursuit.seed
    hidden = pursuit.workbench.hidden(pursuit.plan, attack.secret, attack.candidates, truth.prompts)
    if not any(hidden):
        raise NotApplicableError(f"no prompt holds a whole secret of type '{attack.secret}'")
    views = pursuit.shown(attack).views
    attack.fit(pursuit.public)
    strata = [(prompt.source, len(prompt.unwrapped.ids)) for prompt in truth.prompts]
    attempts = []
    for position, (prompt, view) in enumerate(zip(truth.prompts, track(views, "attack"), strict=True)):
        one, other = hidden[position], partner(position, strata)
        if one is None:
            attempts.append(Attempt(Guess((-1,) * (view.length or 0)), 0.0))
            continue
        began = time.perf_counter()
        guess = attack.fill(view, one.template, generator(seed, "attack", prompt.id))
        seconds, control = time.perf_counter() - began, None
        if other is not None:
            control = attack.fill(views[other], one.template, generator(seed, "control", prompt.id))
        attempts.append(Attempt(guess, seconds, choice(one, guess, control)))
    return Findings(scored(attempts, truth.prompts, truth.bundle))


def choice(hidden: Hidden, guess: Guess, control: Guess | None) -> dict[str, float]:
    """Where the hidden value stands among the candidates, and in the control's guess for the same template."""
    among = len(hidden.template.candidates)
    return {
        "choice_top1": metrics.choice_found(guess, hidden.truth, 1),
        "choice_top5": metrics.choice_found(guess, hidden.truth, 5),
        "choice_chance": 1 / among,
        "choices": float(among),
        "control_choice_top1": metrics.choice_found(control, hidden.truth, 1) if control else math.nan,
    }


def partner(position: int, strata: Sequence[Hashable]) -> int | None:
    """The next prompt of the same stratum, going round; None where there is no other. One is all that time allows."""
    same = [i for i, stratum in enumerate(strata) if stratum == strata[position]]
    following = same[(same.index(position) + 1) % len(same)]
    return None if following == position else following


KIND = Kind(TemplateAttack, pursue, {TUNE: READS_PROMPTS})
