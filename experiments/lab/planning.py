"""The options of a laboratory, and the plans that they make: of names as on the command line, or of objects."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from attacks.base import Attack
from experiments.composing.calling import planned, word
from experiments.composing.overrides import UsageError
from experiments.composing.products import key_of
from experiments.lab.words import words_of
from experiments.trials.plan import Plan
from smd_research.defenses.base import Defense
from smd_research.models.bundle import Bundle

_STAND_IN = {"model": ("model=hub", "model.name=given"), "defense": ("defense=none",)}
"""Composed in the place of an object: they say nothing of it that would be checked, and load nothing."""

_OWN = {"model": ("model", "dtype", "device"), "defense": ("defense",)}
"""Options that an object has already."""


class Options:
    """What a laboratory was asked for.

    Args:
        words: options as on the command line.
        model: name of the model, a loaded one, or None for the default.
        defense: the same of the defense.
        options: others by name.

    Raises:
        UsageError: for an option that there is not, is given twice, or stands beside an object that has its own.

    Attributes:
        keys: what was given, by key.
    """

    def __init__(self, words: Sequence[str], model: object, defense: object, options: Mapping[str, Any]) -> None:
        given = {"model": model, "defense": defense}
        names = {kind: one for kind, one in given.items() if isinstance(one, str)}
        self._words = words_of(words, {**names, **options})
        self.keys = frozenset(map(key_of, self._words))
        self._bundle = model if isinstance(model, Bundle) else None
        self._defense = defense if isinstance(defense, Defense) else None
        for kind, made in (("model", self._bundle), ("defense", self._defense)):
            if made is not None:
                self._refuse_beside(kind)
                self._words += _STAND_IN[kind]
            elif not isinstance(given[kind], str | None):
                raise UsageError(f"{kind}: a {type(given[kind]).__name__} is none: give its name, or one that is made")
        if not {"task", "prompt_tokens"} & self.keys:
            self._words.append("prompt_tokens=null")

    def _refuse_beside(self, kind: str) -> None:
        for key in sorted(self.keys):
            if key.partition(".")[0] in _OWN[kind]:
                raise UsageError(f"{key} has no effect on a {kind} that is made: leave it out")

    @property
    def named(self) -> bool:
        """Whether all of it has a name on the command line."""
        return self._bundle is None and self._defense is None

    def plan(self, attack: str = "none", options: Mapping[str, Any] | None = None) -> Plan:
        """The plan of the cell that these options make with an attack.

        Args:
            attack: its name.
            options: of the attack, by name.

        Raises:
            UsageError: for what there is not, or a value that cannot be.
        """
        own = [word(f"attack.{name}", value) for name, value in (options or {}).items()]
        return self._with_objects(planned([*self._words, word("attack", attack), *own]), defended=True)

    def _with_objects(self, plan: Plan, defended: bool) -> Plan:
        """A plan with the objects that were given in the place of what stands for them.

        Args:
            plan: as it was composed.
            defended: whether its defense is the laboratory's; the cell of a control has its own.
        """
        cell, parts = plan.cell, plan.parts
        if bundle := self._bundle:
            cell = replace(cell, model={"name": bundle.name})
            parts = replace(parts, model=lambda: bundle)
        if (defense := self._defense) and defended:
            cell = replace(cell, defense={"name": called(defense)})
            parts = replace(parts, defense=lambda: defense)

        def beside(changed: Sequence[str]) -> Plan:
            same = not any(key_of(one) == "defense" for one in changed)
            return self._with_objects(plan.beside(changed), defended and same)

        return replace(plan, cell=cell, parts=parts, beside=beside)


def attack_of(options: Options, attack: str | Attack, own: Mapping[str, Any]) -> tuple[Plan, Attack]:
    """An attack, and the plan of the cell that it would make.

    Args:
        options: of the laboratory.
        attack: its name, or one that is made.
        own: options of the attack, by name.

    Raises:
        UsageError: for an attack or option that there is not.
    """
    if isinstance(attack, Attack):
        if own:
            raise UsageError(f"{', '.join(own)}: an attack that is made has its options already")
        plan = options.plan()
        return replace(plan, cell=replace(plan.cell, attack={"name": called(attack)})), attack
    if not isinstance(attack, str):
        raise UsageError(f"a {type(attack).__name__} is no attack: give its name, or one that is made")
    plan = options.plan(attack, own)
    made = plan.parts.attack()
    if made is None:
        raise UsageError(f"attack={attack} attacks nothing: name another")
    return plan, made


def called(made: object) -> str:
    """The name of an object in the place of a part: its class, spelled as options are."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(made).__name__).lower()
