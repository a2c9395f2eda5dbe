"""A defense against a battery of attacks: what the best one recovers, beside chance, utility and cost.

Privacy of a defense is one minus the best attack, never a chosen one. Chance is the largest of what an attacker gets
who reads no protocol message (``random``, ``prior``) and what the best attack itself scores on another prompt's view.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from smd_research.core.cell import COMPONENTS
from smd_research.records.frame import DEPLOYED, DESIGN
from smd_research.records.record import Status

BASELINES = ("random", "prior")
"""Attacks that read no protocol message: their level is chance."""

NOBODY = "none"
_ALWAYS_SHOWN = frozenset({"epsilon"})
_SETTING = tuple(
    name for name in DESIGN if name not in ("defense", "defense_params", "attack", "attack_params", "device")
)


@dataclass(frozen=True)
class Score:
    """One estimate of one cell.

    Attributes:
        attack: label of the attack of the cell.
        mean: the estimate, with ``low`` and ``high`` its 95 % interval and ``n`` its prompts.
        id: the cell.
    """

    attack: str
    mean: float
    low: float
    high: float
    n: int
    id: str


@dataclass(frozen=True)
class Outcome:
    """How an attack on a defense ended.

    Attributes:
        attack: label of the attack.
        status: ok, failed or not applicable.
        reason: why not ok.
        id: the cell.
    """

    attack: str
    status: Status
    reason: str
    id: str


class Battery:
    """All cells of one defense in one setting: the attacks differ, everything else is the same.

    Attributes:
        defense: label of the defense, with the options that tell it from its neighbours.
        setting: the other design columns that vary in the frame, e.g. ``{"model": "embedded"}``.
        parameters: the options of the defense; one left open (None) is what the deployment chose.
    """

    def __init__(self, rows: pd.DataFrame, defense: str, setting: dict[str, str]) -> None:
        self.defense = defense
        self.setting = setting
        self.name = str(rows["defense"].iloc[0])
        self.parameters: dict[str, object] = json.loads(rows["defense_shown"].iloc[0])
        self._outcomes, self._scores = _read(rows)

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

    def outcomes(self) -> list[Outcome]:
        """How each attack ended, in order of name."""
        return list(self._outcomes)

    @property
    def tested(self) -> bool:
        """Whether any attack that reads the protocol finished: only then does the battery say anything of privacy."""
        return any(o.status is Status.OK and not is_baseline(o.attack) for o in self.outcomes())

    def score(self, metric: str, attack: str) -> Score | None:
        """What one attack scores; None when it did not finish or has no such metric."""
        return next((score for score in self._scores[metric] if score.attack == attack), None)

    def best(self, metric: str) -> Score | None:
        """The attack that recovers most; among equals one that reads the protocol, then by name. None without any."""
        order = sorted(self._scores[metric], key=lambda s: (-s.mean, is_baseline(s.attack), s.attack))
        return order[0] if order else None

    def chance(self, metric: str) -> Score | None:
        """The level of an attack that learned nothing: random, prior, or the best attack on another prompt's view."""
        levels = [score for score in self._scores[metric] if is_baseline(score.attack)]
        best = self.best(metric)
        if best is not None:
            levels += [score for score in self._scores[f"control_{metric}"] if score.attack == best.attack]
        return max(levels, key=lambda s: s.mean, default=None)

    def control(self, metric: str) -> Score | None:
        """What the attacks that read the protocol score on another prompt's view, at most."""
        levels = [score for score in self._scores[f"control_{metric}"] if not is_baseline(score.attack)]
        return max(levels, key=lambda s: s.mean, default=None)

    def common(self, metric: str) -> Score | None:
        """A utility or cost figure, which does not depend on the attack: that of the cell with the median value."""
        scores = sorted(self._scores[metric], key=lambda s: (s.mean, s.id))
        return scores[(len(scores) - 1) // 2] if scores else None


def _read(rows: pd.DataFrame) -> tuple[list[Outcome], dict[str, list[Score]]]:
    """The outcomes of the cells in order of attack, and their scores by metric."""
    outcomes: dict[str, Outcome] = {}
    scores: dict[str, list[Score]] = defaultdict(list)
    columns = ("id", "attack", "attack_label", "status", "reason", "metric", "mean", "low", "high", "n")
    for id_, attack, label, status, reason, metric, mean, low, high, n in zip(*(rows[c] for c in columns), strict=True):
        if attack != NOBODY:
            outcomes[id_] = Outcome(label, Status(status), reason, id_)
        if not math.isnan(mean):
            scores[metric].append(Score(label, mean, low, high, int(n), id_))
    return sorted(outcomes.values(), key=lambda o: (o.attack, o.id)), scores


def is_baseline(attack: str) -> bool:
    """Whether an attack, by its label, reads no protocol message."""
    return attack.split(" ")[0] in BASELINES


def batteries(frame: pd.DataFrame) -> list[Battery]:
    """Group the cells of a frame by defense and setting, the weakest protection (no defense) first.

    Of a cell recorded under several versions of its defense or attack, only the latest counts.
    """
    if frame.empty:
        return []
    defended = [*_SETTING, "defense", "defense_params"]
    frame = _latest(frame, "defense_version", defended)
    frame = _latest(frame, "attack_version", [*defended, "attack", "attack_params"])
    frame = frame.assign(defense_shown=_chosen(frame, defended))
    frame = frame.assign(
        defense_label=labels(frame["defense"], frame["defense_shown"]),
        attack_label=labels(frame["attack"], frame["attack_params"]),
    )
    varying = _varying(frame)
    found = []
    for _, rows in frame.groupby(defended, dropna=False, sort=False):
        setting = {column: _shown(column, rows, frame) for column in varying}
        found.append(Battery(rows, str(rows["defense_label"].iloc[0]), setting))
    return sorted(found, key=lambda b: (list(b.setting.values()), b.name != NOBODY, b.name, _natural(b.parameters)))


def _latest(frame: pd.DataFrame, version: str, cell: list[str]) -> pd.DataFrame:
    return frame[frame[version] == frame.groupby(cell, dropna=False)[version].transform("max")]


def _chosen(frame: pd.DataFrame, defended: list[str]) -> list[str]:
    """The options of each row's defense, those left open filled with what its deployment chose.

    Cells that never deployed (an attack that does not apply) take the choice of their neighbours.
    """
    deployed = frame.groupby(defended, dropna=False)[DEPLOYED].transform(lambda column: max(column))
    shown = []
    for options, chosen in zip(map(json.loads, frame["defense_params"]), deployed, strict=True):
        values = json.loads(chosen) if chosen else {}
        filled = {key: _rounded(values[key]) for key in options if options[key] is None and key in values}
        shown.append(json.dumps(options | filled, sort_keys=True))
    return shown


def _rounded(value: object) -> object:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def labels(names: "pd.Series[str]", params: "pd.Series[str]") -> list[str]:
    """A name for each row: the component's, with the options in which it differs from others of the same name."""
    options = {(name, text): json.loads(text) for name, text in zip(names, params, strict=True)}
    told_apart: dict[str, set[str]] = {}
    for name, _ in options:
        kinds = [values for (other, _), values in options.items() if other == name]
        keys = {key for values in kinds for key in values}
        told_apart[name] = {key for key in keys if key in _ALWAYS_SHOWN or _differ(v.get(key) for v in kinds)}
    return [_label(name, options[name, text], told_apart[name]) for name, text in zip(names, params, strict=True)]


def _label(name: str, options: dict[str, object], keys: set[str]) -> str:
    shown = [f"{key}={_text(options[key])}" for key in sorted(keys) if options.get(key) is not None]
    return " ".join([name, *shown])


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _differ(values: Iterable[object]) -> bool:
    return len({json.dumps(value, sort_keys=True) for value in values}) > 1


def _varying(frame: pd.DataFrame) -> list[str]:
    """Setting columns with more than one value; options are shown with their part, so that none appears twice."""
    columns: Sequence[str] = [column for column in _SETTING if frame[column].nunique(dropna=False) > 1]
    parts = [part for part in COMPONENTS if part in columns or f"{part}_params" in columns]
    parts = [part for part in parts if part not in ("defense", "attack")]
    return parts + [column for column in columns if column not in parts and not column.endswith("_params")]


def _shown(column: str, rows: pd.DataFrame, frame: pd.DataFrame) -> str:
    if column not in COMPONENTS:
        value = rows[column].iloc[0]
        return "whole" if pd.isna(value) else str(value)
    named = pd.Series(labels(frame[column], frame[f"{column}_params"]), index=frame.index)
    return str(named[rows.index[0]])


def _natural(parameters: dict[str, object]) -> list[tuple[str, float, str]]:
    """Sort numbers as numbers: epsilon=2 before epsilon=16."""
    return [
        (key, float(value) if isinstance(value, int | float) else 0.0, json.dumps(value))
        for key, value in sorted(parameters.items())
    ]
