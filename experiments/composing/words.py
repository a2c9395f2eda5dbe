"""The words in which ``conf/table/NAME.yaml`` says what is shown and claimed, and what each stands for.

``view: summary``, or with options ``view: {layout: {rows: ..., columns: ...}}``; ``figure: {lines: {...}}``;
``rule: {within: {of: ..., low: 0.95}}``. ``pooled`` holds another view or figure, which then sees one cell where there
were several that differ in their seed alone. A new view, figure or rule is one line here.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from experiments.composing.overrides import nearest
from smd_research.core.errors import ConfigError
from smd_research.reports import claims, pooling
from smd_research.reports.claims import Rule
from smd_research.reports.figures.breakdown import breakdown
from smd_research.reports.figures.curves import curves
from smd_research.reports.figures.decoys import judges
from smd_research.reports.figures.epsilon import epsilon_sweep
from smd_research.reports.figures.frontier import frontier
from smd_research.reports.figures.heat_map import heat_map
from smd_research.reports.figures.lines import lines
from smd_research.reports.figures.overview import overview
from smd_research.reports.figures.pareto import pareto
from smd_research.reports.figures.trade import trade
from smd_research.reports.tables.benches import bench_table
from smd_research.reports.tables.by_secret import by_secret
from smd_research.reports.tables.differences import differences
from smd_research.reports.tables.exactness import exactness
from smd_research.reports.tables.layout import layout
from smd_research.reports.tables.leak_matrix import leak_matrix
from smd_research.reports.tables.matched import matched
from smd_research.reports.tables.secret_types import secrets_by_type
from smd_research.reports.tables.summary import summary
from smd_research.reports.tables.table import Table

View = Callable[..., Table]
"""Makes a table of a frame of records, or of the cases of benches: ``view(source, title=...)``."""

Figure = Callable[..., Path]
"""Draws the same and writes it: ``figure(source, path)``."""

Said = str | Mapping[str, Any]
"""A word alone, or ``{word: options}``."""

POOLED = "pooled"

VIEWS: Mapping[str, View] = {
    "bench_table": bench_table,
    "by_secret": by_secret,
    "differences": differences,
    "exactness": exactness,
    "layout": layout,
    "leak_matrix": leak_matrix,
    "matched": matched,
    "secrets_by_type": secrets_by_type,
    "summary": summary,
}

FIGURES: Mapping[str, Figure] = {
    "breakdown": breakdown,
    "curves": curves,
    "epsilon_sweep": epsilon_sweep,
    "frontier": frontier,
    "heat_map": heat_map,
    "judges": judges,
    "lines": lines,
    "overview": overview,
    "pareto": pareto,
    "trade": trade,
}

RULES: Mapping[str, Callable[..., claims.Finding]] = {
    "better": claims.better,
    "between": claims.between,
    "differs_by": claims.differs_by,
    "exceeds": claims.exceeds,
    "exceeds_by": claims.exceeds_by,
    "flat": claims.flat,
    "grows_slower": claims.grows_slower,
    "largest": claims.largest,
    "not_above": claims.not_above,
    "same_order": claims.same_order,
    "some_within": claims.some_within,
    "times": claims.times,
    "within": claims.within,
}


def resolve_view(said: Said) -> View:
    """The view that a table's ``view`` names.

    Raises:
        ConfigError: there is no such word, or it does not take these options; the near miss is named.
    """
    word, options = _split("view", said, {*VIEWS, POOLED})
    if word == POOLED:
        return partial(pooling.table, view=resolve_view(options))
    return _bind("view", word, VIEWS[word], options, given=("source", "title"))


def resolve_figure(said: Said) -> Figure:
    """The figure that a table's ``figure`` names.

    Raises:
        ConfigError: as :func:`resolve_view`.
    """
    word, options = _split("figure", said, {*FIGURES, POOLED})
    if word == POOLED:
        return partial(pooling.figure, draw=resolve_figure(options))
    return _bind("figure", word, FIGURES[word], options, given=("source", "path"))


def resolve_rule(said: Said) -> Rule:
    """The rule that a claim's ``rule`` names.

    Raises:
        ConfigError: as :func:`resolve_view`.
    """
    word, options = _split("rule", said, set(RULES))
    return _bind("rule", word, RULES[word], options, given=("points",))


def _split(kind: str, said: Said, known: set[str]) -> tuple[str, Any]:
    """A word and what stands under it."""
    if isinstance(said, Mapping) and len(said) != 1:
        raise ConfigError(f"{kind}: give one word with its options, not {', '.join(map(str, said)) or 'nothing'}")
    word, options = next(iter(said.items())) if isinstance(said, Mapping) else (said, {})
    if word not in known:
        raise ConfigError(f"unknown {kind} '{word}': {nearest(str(word), known)}")
    return str(word), options or {}


def _bind(
    kind: str, word: str, function: Callable[..., Any], options: Mapping[str, Any], given: tuple[str, ...]
) -> Callable[..., Any]:
    """A function with its options, that lacks only what it is given when it is called, in the order of ``given``.

    A function may call its first argument otherwise (``frame``, ``cases``); ``title`` comes by its name.
    """
    signature, hints = inspect.signature(function), get_type_hints(function)
    positional = [name for name in given if name != "title"]
    settable = [name for name in list(signature.parameters)[len(positional) :] if name not in given]
    for name in options:
        if name not in settable:
            raise ConfigError(f"{kind} {word}: unknown option '{name}': {nearest(str(name), settable)}")
    options = {name: _fitted(f"{kind} {word}", name, value, hints[name]) for name, value in options.items()}
    try:
        signature.bind(*positional, **options, **dict.fromkeys(set(given) - set(positional)))
    except TypeError as error:
        raise ConfigError(f"{kind} {word}: {error}") from None
    return partial(function, **options)


def _fitted(where: str, name: str, value: Any, kind: Any) -> Any:
    """A declared value as its annotation asks for it: one of its words, or a mapping or several made dataclasses.

    Raises:
        ConfigError: it is none of those words, or no such mapping.
    """
    choices = [choice for one in (kind, *get_args(kind)) if get_origin(one) is Literal for choice in get_args(one)]
    if choices and value is not None and value not in choices:
        raise ConfigError(f"{where}: unknown {name} '{value}': {nearest(str(value), choices)}")
    if is_dataclass(kind):
        return _made(f"{where}: {name}", value, kind)
    if get_origin(kind) is Sequence and is_dataclass(get_args(kind)[0]):
        if not isinstance(value, list):
            raise ConfigError(f"{where}: {name} is a list, not {value}")
        return [_made(f"{where}: {name}", one, get_args(kind)[0]) for one in value]
    return value


def _made(where: str, said: Any, kind: Any) -> Any:
    """A dataclass from its options."""
    hints = get_type_hints(kind)
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where}: give {', '.join(hints)}, not {said}")
    for option, value in said.items():
        if option not in hints:
            raise ConfigError(f"{where}: unknown option '{option}': {nearest(str(option), hints)}")
        _fitted(where, str(option), value, hints[option])
    asked = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}
    if lacking := sorted(asked - set(said)):
        raise ConfigError(f"{where}: {', '.join(lacking)} is missing beside {dict(said)}")
    return kind(**said)
