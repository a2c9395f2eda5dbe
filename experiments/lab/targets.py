"""What is attacked: answers, views without one, or what tuning left; and the truth that a guess is held against."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from attacks.base import Attack, GuaranteeAttack, WeightAttack
from experiments.composing.overrides import UsageError
from experiments.lab.answers import LabAnswer
from experiments.lab.tuned import LabTuning
from experiments.trials.plan import Plan
from experiments.trials.seen import Cost, Seen, Truth, Utility
from experiments.trials.workbench import Workbench
from smd_research.boundary import AdversaryView
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Prepared

Attacked = LabAnswer | AdversaryView


def targets_of(name: str, attack: Attack, what: object, lab: object, tunes: bool) -> Sequence[Attacked]:
    """What is attacked, one by one; nothing of what tuning left, which is one whole.

    Args:
        name: of the attack.
        attack: the attack.
        what: that was given.
        lab: stands for the laboratory that attacks.
        tunes: whether the laboratory tunes a model rather than serves prompts.

    Raises:
        UsageError: for what cannot be attacked, or is another laboratory's.
    """
    if tunes and not isinstance(what, LabTuning):
        raise UsageError(f'a lab with a task is attacked where it tunes: lab.attack("{name}", lab.tune())')
    if what is None and not isinstance(attack, WeightAttack | GuaranteeAttack):
        raise UsageError(f'{name} reads what was asked: lab.attack("{name}", answer)')
    several = isinstance(what, Sequence) and not isinstance(what, str)
    given: Sequence[Any] = what if several else [] if what is None else [what]  # type: ignore[assignment]
    for one in given:
        if not isinstance(one, LabAnswer | AdversaryView | LabTuning):
            raise UsageError(f"a {type(one).__name__} cannot be attacked: give an answer, a view, or several")
        if isinstance(one, LabAnswer | LabTuning) and one.lab is not lab:
            raise UsageError("another lab gave this answer: attack it there, or ask its prompt here")
    return [one for one in given if not isinstance(one, LabTuning)]


def seen_of(prepared: Prepared, targets: Sequence[Attacked]) -> Seen:
    """Some targets as a life would have left them; what they were worth and cost is no matter for an attack."""
    views = tuple(one.view if isinstance(one, LabAnswer) else one for one in targets)
    truth = Truth(prepared.bundle, tuple(map(_truth, targets)))
    return Seen(prepared, prepared.public, None, views, truth, Utility(), Cost())


def _truth(one: Attacked) -> Prompt:
    """What was asked; of a view alone nothing is known but its length, and what a guess at it scores is not kept."""
    if isinstance(one, LabAnswer):
        return one.prompt
    unknown = [-1] * ((one.length or 0) - len(one.wrapper))
    return Prompt("view", "", one.wrapper.around(unknown), wrapper=one.wrapper)


def others_of(workbench: Workbench, plan: Plan, prompt: Prompt) -> Sequence[Prompt]:
    """The evaluation prompts of a plan's data, cut to the length of another prompt: those that are as long."""
    length = len(prompt.ids)
    cut = replace(plan, cell=replace(plan.cell, prompt_tokens=length))
    found = [one.unwrapped for one in workbench.prompts(cut)]
    return [one for one in found if len(one.ids) == length and one.ids != prompt.ids]
