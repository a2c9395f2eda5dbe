"""A defense against a battery of attacks: what the best one recovers, beside chance, utility and cost.

Privacy of a defense is one minus the best attack, never a chosen one. Chance is the largest of what an attacker gets
who reads no protocol message (``random``, ``prior``) and what the best attack itself scores on another prompt's view.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from smd_research.core.cell import COMPONENTS, OPTIONAL
from smd_research.records.options import fill
from smd_research.records.record import Status
from smd_research.reports.designs import Design, tell_apart
from smd_research.reports.points import Point, Source, points
from smd_research.reports.verdicts import amount, difference

BASELINES = ("random", "prior")
"""Attacks that read no protocol message: their level is chance."""

NOBODY = "none"
_VARIED = ("attack", "device")
"""What differs within a battery: the attack, and where it ran, which moves no number but a time."""


@dataclass(frozen=True)
class Score(Point):
    """A point with the label of its cell's attack."""

    attack: str = ""


@dataclass(frozen=True)
class Battery:
    """All cells of one defense in one setting: the attacks differ, everything else is the same.

    Attributes:
        defense: label of the defense, with the options that tell it from its neighbours.
        name: of the defense, without them.
        setting: what else varies among the batteries, e.g. ``{"model": "embedded"}``.
        parameters: the options of the defense; one left open (None) is what the deployment chose.
        outcomes: how each attack ended, a score a cell, in order of attack.
        scores: all figures by metric.
    """

    defense: str
    name: str
    setting: Mapping[str, str]
    parameters: Mapping[str, object]
    outcomes: Sequence[Score]
    scores: Mapping[str, Sequence[Score]]

    @property
    def label(self) -> str:
        """Setting and defense in one line."""
        words = [value if name in COMPONENTS else f"{name}={value}" for name, value in self.setting.items()]
        return " ".join([*words, self.defense])

    @property
    def variant(self) -> str:
        """What parts one curve from another: setting and options that are words; numbers are what a curve runs over."""
        words = [value for value in self.parameters.values() if isinstance(value, str)]
        return " ".join([*self.setting.values(), *words])

    @property
    def epsilon(self) -> float | None:
        """The defense's epsilon, None where it has none."""
        value = self.parameters.get("epsilon")
        return float(value) if isinstance(value, int | float) else None

    @property
    def tested(self) -> bool:
        """Whether any attack that reads the protocol finished: only then does the battery say anything of privacy."""
        return any(o.status is Status.OK and not is_baseline(o.attack) for o in self.outcomes)

    def score(self, metric: str, attack: str) -> Score | None:
        """What one attack scores; None when it did not finish or has no such metric."""
        return next((score for score in self.scores.get(metric, ()) if score.attack == attack), None)

    def best(self, metric: str) -> Score | None:
        """The attack that recovers most; among equals one that reads the protocol, then by name. None without any."""
        order = sorted(self.scores.get(metric, ()), key=lambda s: (-s.value, is_baseline(s.attack), s.attack))
        return order[0] if order else None

    def chance(self, metric: str) -> Score | None:
        """The level of an attack that learned nothing: random, prior, or the best attack on another prompt's view."""
        levels = [score for score in self.scores.get(metric, ()) if is_baseline(score.attack)]
        best = self.best(metric)
        if best is not None:
            levels += [score for score in self.scores.get(f"control_{metric}", ()) if score.attack == best.attack]
        return max(levels, key=lambda s: s.value, default=None)

    def leak(self, metric: str) -> Score | None:
        """What the best attack recovers beyond chance.

        Its interval is paired, prompt by prompt, where chance is the attack's own control; beside a baseline, a cell of
        its own, it is that of independent figures, which is wider.
        """
        best, chance = self.best(metric), self.chance(metric)
        if best is None or chance is None:
            return None
        own = [score for score in self.scores.get(f"excess_{metric}", ()) if score.id == best.id]
        if own and chance.quantity == f"control_{metric}":
            return own[0]
        beyond = difference(amount(best), amount(chance))
        return replace(best, quantity=f"excess_{metric}", value=beyond.value, low=beyond.low, high=beyond.high)

    def control(self, metric: str) -> Score | None:
        """What the attacks that read the protocol score on another prompt's view, at most."""
        levels = [score for score in self.scores.get(f"control_{metric}", ()) if not is_baseline(score.attack)]
        return max(levels, key=lambda s: s.value, default=None)

    def common(self, metric: str) -> Score | None:
        """A utility or cost figure, which does not depend on the attack: that of the cell with the median value."""
        scores = sorted(self.scores.get(metric, ()), key=lambda s: (s.value, s.id))
        return scores[(len(scores) - 1) // 2] if scores else None


def is_baseline(attack: str) -> bool:
    """Whether an attack, by its label, reads no protocol message."""
    return attack.split(" ")[0] in BASELINES


def headings(found: Sequence[Battery]) -> list[str]:
    """What each of some batteries is called beside the others: its defense, after the fewest settings that it takes."""
    return [_heading(one, [other.setting for other in found if other.defense == one.defense]) for one in found]


def _heading(battery: Battery, settings: Sequence[Mapping[str, str]]) -> str:
    """The defense after those settings that part it from all others that it was tried in, the most telling first."""
    told: list[str] = []
    rest = [setting for setting in settings if setting != battery.setting]
    while rest:
        alike = {name: [one for one in rest if one[name] == value] for name, value in battery.setting.items()}
        telling = min(alike, key=lambda name: len(alike[name]))
        told.append(telling)
        rest = alike[telling]
    words = {name: battery.setting[name] for name in battery.setting if name in told and battery.setting[name]}
    return replace(battery, setting=words).label


def batteries(source: Source) -> list[Battery]:
    """Group the points of records by defense and setting, the weakest protection (no defense) first.

    Epsilons of two mechanisms do not mix: where there is one, the options that are words go before the numbers.
    Of a cell recorded under several versions of its defense or attack, only the latest counts.
    """
    found = _latest([point for point in points(source) if point.design.parts], "defense", _VARIED)
    found = _latest(found, "attack", _VARIED[1:])
    attacks = _labels_of("attack", [point.design for point in found])
    groups: dict[tuple[object, ...], list[Score]] = defaultdict(list)
    names = [item.name for item in fields(Point)]
    for point, key in zip(found, _apart(found, _VARIED), strict=True):
        of_point = {name: getattr(point, name) for name in names}
        groups[key].append(Score(**of_point, attack=attacks[point.design.parts["attack"].key]))
    made = _made(list(groups.values()))
    return sorted(made, key=_order)


def _order(battery: Battery) -> tuple[object, ...]:
    words = battery.variant if battery.epsilon is not None else ""
    setting = list(battery.setting.values())
    return setting, battery.name != NOBODY, battery.name, words, _natural(battery.parameters)


def _latest(found: Sequence[Point], part: str, varied: Sequence[str]) -> list[Point]:
    """The points of the latest version of a part, among those that differ in nothing but what is varied."""
    versions: dict[tuple[object, ...], int] = defaultdict(int)
    keys = _apart(found, varied)
    for point, key in zip(found, keys, strict=True):
        versions[key] = max(versions[key], point.design.parts[part].version)
    return [p for p, key in zip(found, keys, strict=True) if p.design.parts[part].version == versions[key]]


def _apart(found: Sequence[Point], varied: Sequence[str]) -> list[tuple[object, ...]]:
    """What is left of each point's cell without what is varied; asked once for the many points of a cell."""
    designs = {id(point.design): point.design for point in found}
    known = {place: design.apart_from(*varied) for place, design in designs.items()}
    return [known[id(point.design)] for point in found]


def _made(groups: Sequence[Sequence[Score]]) -> list[Battery]:
    """A battery of each group of scores."""
    designs = [group[0].design for group in groups]
    settings = _settings(designs)
    options = [_shown(group) for group in groups]
    names = [design.parts["defense"].name for design in designs]
    labels = tell_apart(zip(names, options, strict=True))
    made = []
    for group, name, shown, setting in zip(groups, names, options, settings, strict=True):
        scores: dict[str, list[Score]] = defaultdict(list)
        for score in group:
            if not math.isnan(score.value):
                scores[score.quantity].append(score)
        ended = {score.id: score for score in group if score.design.parts["attack"].name != NOBODY}
        outcomes = sorted(ended.values(), key=lambda score: (score.attack, score.id))
        made.append(Battery(labels[name, shown], name, setting, json.loads(shown), outcomes, dict(scores)))
    return made


def _shown(group: Sequence[Score]) -> str:
    """The options of a group's defense as JSON, those left open fill with what its deployment chose.

    Cells that never deployed (an attack that does not apply) take the choice of their neighbours.
    """
    chosen = json.loads(max(score.design.deployed for score in group) or "{}")
    rounded = {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in chosen.items()}
    return json.dumps(fill(json.loads(group[0].design.parts["defense"].options), rounded), sort_keys=True)


def _settings(designs: Sequence[Design]) -> list[dict[str, str]]:
    """What varies besides defense and attack; options are shown with their part, so that none appears twice."""
    values: dict[str, list[object]] = {}
    for part in COMPONENTS:
        if part not in ("defense", "attack"):
            values[part] = [design.parts[part].key for design in designs]
    for part in OPTIONAL:
        values[part] = [design.parts[part].name for design in designs]
    for name in designs[0].settings if designs else ():
        if name not in _VARIED:
            values[name] = [design.settings[name] for design in designs]
    varying = {name: _words(name, found, designs) for name, found in values.items() if len(set(found)) > 1}
    return [{name: words[place] for name, words in varying.items()} for place in range(len(designs))]


def _words(name: str, values: Sequence[object], designs: Sequence[Design]) -> list[str]:
    if name in COMPONENTS:
        labels = _labels_of(name, designs)
        return [labels[design.parts[name].key] for design in designs]
    return ["whole" if value is None else str(value) for value in values]


def _labels_of(part: str, designs: Sequence[Design]) -> dict[tuple[str, str], str]:
    return tell_apart(design.parts[part].key for design in designs)


def _natural(parameters: Mapping[str, object]) -> list[tuple[str, float, str]]:
    """Sort numbers as numbers: epsilon=2 before epsilon=16."""
    return [
        (key, float(value) if isinstance(value, int | float) else 0.0, json.dumps(value))
        for key, value in sorted(parameters.items())
    ]
