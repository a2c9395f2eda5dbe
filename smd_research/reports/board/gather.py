"""Records as one document of plain values, column by column: what every page of a board filters and shows."""

import json
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from importlib.metadata import version
from typing import Any, TypedDict

from smd_research.core.cell import COMPONENTS, OPTIONAL
from smd_research.metrics import CARDS, SCORES, Card, restoration
from smd_research.records import frame_of
from smd_research.records.items import read_items
from smd_research.reports.batteries import is_baseline
from smd_research.reports.board.prompts import Counts, Guesses, PromptSet, counts, guesses, prompt_set, prompts_of
from smd_research.reports.board.secrets import secrets_of
from smd_research.reports.board.sources import Sourced
from smd_research.reports.board.tables import TableHead
from smd_research.reports.designs import Design, Part, read_design, tell_apart

SCHEMA = 1
"""Raised when a page of before could not read the documents of now."""

PARTS = (*COMPONENTS, *OPTIONAL)
SETTINGS = (
    "seed",
    "n_prompts",
    "max_new_tokens",
    "prompt_tokens",
    "held_out",
    "dtype",
    "wire_dtype",
    "transport",
    "device",
)

INTERVALS = {
    "rate": "Gaffke's",
    "excess": "Gaffke's, of the differences prompt by prompt",
    "positive": "Student's t, cut at 0",
    "log": "Student's t of the logarithms, about a geometric mean",
    "linear": "Student's t",
    "known": "none, known without measuring",
}
"""How the 95 % interval of a metric is made, by the scale of its card; there is none of a single measurement."""

_OF_SUMS = "Gaffke's of the ratio of two sums, text by text"
_LINEARISED = "Student's t of the ratio of two sums, linearised"
_ON_LOGS = f"{_LINEARISED}, on the log scale"
INTERVALS_OF = {
    **dict.fromkeys(("token_recovery", "control_token_recovery"), _OF_SUMS),
    **dict.fromkeys(("perplexity", "restored_perplexity", *(card.name for card in restoration.LOSSES)), _ON_LOGS),
    **dict.fromkeys(("rec_exposed", "rec_scratch", "private_gain"), _LINEARISED),
    "f1_macro": "Dirichlet's weights over texts",
}
"""The same of metrics that are no means of values of single prompts."""


class BoardDocument(TypedDict):
    """What all pages of a board share.

    ``parts`` holds the distinct parts of cells by kind; ``cells`` a column a property, whose parts are places in
    ``parts`` (-1: none) and whose ``setting`` is equal for cells that differ in the attack and device alone;
    ``figures`` a row an estimate, with the places of its cell and metric.
    """

    schema: int
    made_by: str
    scores: int
    metrics: list[dict[str, Any]]
    parts: dict[str, list[dict[str, Any]]]
    cells: dict[str, list[Any]]
    figures: dict[str, list[Any]]
    tables: list[TableHead]


class CellDocument(TypedDict):
    """Where the numbers of a cell come from, and its prompts."""

    command: str
    status_reason: str
    sources: list[str]
    versions: dict[str, int]
    scored: int
    guarantee: str
    environment: dict[str, Any]
    wall_s: dict[str, float]
    chosen: dict[str, Any]
    prompts: Guesses | Counts | None


def board_document(found: Sequence[Sourced], tables: Sequence[TableHead]) -> BoardDocument:
    """The document that all pages share.

    Args:
        found: the records, in the order in which they are shown.
        tables: what the list of tables says.
    """
    records = [one.record for one in found]
    frame = frame_of(records).drop_duplicates("id")
    designs = [read_design(row) for row in frame.to_dict("records")]
    parts = {kind: list(dict.fromkeys(_key(design.parts[kind]) for design in designs)) for kind in PARTS}
    measured = {name for record in records for name in record.metrics}
    names = [*(name for name in CARDS if name in measured), *sorted(measured - CARDS.keys())]
    cells: dict[str, list[Any]] = {
        "id": [record.cell.id for record in records],
        "name": [record.cell.readable for record in records],
        "status": [str(record.status) for record in records],
        "reason": [record.reason for record in records],
        "secret": secrets_of(records),
        "setting": _places(design.apart_from("attack", "device") for design in designs),
        "superseded": _superseded(designs),
        "texts": [int(record.texts) for record in records],
        **{name: [getattr(record.cell, name) for record in records] for name in SETTINGS},
    }
    for kind in PARTS:
        places = {key: place for place, key in enumerate(parts[kind])}
        cells[kind] = [places[_key(design.parts[kind])] if design.parts[kind].name else -1 for design in designs]
    return BoardDocument(
        schema=SCHEMA,
        made_by=f"smd-research {version('smd-research')}",
        scores=SCORES,
        metrics=[_metric(name) for name in names],
        parts={kind: _parts(kind, keys) for kind, keys in parts.items()},
        cells=cells,
        figures=_figures(found, names),
        tables=list(tables),
    )


def cell_document(one: Sourced) -> tuple[CellDocument, tuple[str, PromptSet] | None]:
    """What the page of a cell shows beside its figures, and the set of its prompts, where texts were recorded."""
    record, items = one.record, prompts_of(read_items(one.record.items))
    environment = dict(one.record.environment)
    prompts: Guesses | Counts | None = None
    texts: tuple[str, PromptSet] | None = None
    if items and record.texts:
        texts = prompt_set(items)
        prompts = guesses(items, texts[0])
    elif items:
        prompts = counts(items)
    document = CellDocument(
        command=_again(record.cell.command),
        status_reason=record.reason,
        sources=list(one.sources),
        versions=dict(record.cell.versions),
        scored=record.scored,
        guarantee=str(environment.pop("guarantee", "none")),
        wall_s=environment.pop("wall_s", {}),
        chosen=environment.pop("parameters", {}),
        environment={key: value for key, value in environment.items() if key not in ("campaign", "special_ids")},
        prompts=prompts,
    )
    return document, texts


def _again(command: str) -> str:
    """The command of a cell without the folder that its record once went to."""
    return re.sub(r"\s*\bresults_dir=\S+", "", command)


def _key(part: Part) -> tuple[str, str]:
    return part.key


def _parts(kind: str, keys: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Each part with its options and the label that tells it from the others."""
    labels = tell_apart(keys)
    made = []
    for key in keys:
        name, options = key
        said: dict[str, Any] = {"name": name, "label": labels[key], "options": json.loads(options)}
        made.append(said | ({"baseline": 1} if kind == "attack" and is_baseline(name) else {}))
    return made


def _places(keys: Iterable[Hashable]) -> list[int]:
    """A number for each key, the same for equal ones."""
    known: dict[Hashable, int] = {}
    return [known.setdefault(key, len(known)) for key in keys]


def _superseded(designs: Sequence[Design]) -> list[int]:
    """1 for a cell that is there under a later version of its defense or attack as well, else 0."""
    versions = [tuple(design.parts[part].version for part in ("defense", "attack")) for design in designs]
    latest: dict[Hashable, tuple[int, ...]] = {}
    for design, own in zip(designs, versions, strict=True):
        key = design.apart_from("device")
        latest[key] = max(latest.get(key, own), own)
    return [int(own < latest[design.apart_from("device")]) for design, own in zip(designs, versions, strict=True)]


def _metric(name: str) -> dict[str, Any]:
    card = CARDS.get(name) or Card.cost(name, name, "", "not known to this version", scale="linear")
    said = {key: getattr(card, key) for key in ("name", "label", "kind", "unit", "better", "chance", "ceiling")}
    return {**said, "description": card.description, "interval": INTERVALS_OF.get(name, INTERVALS[card.scale])}


def _figures(found: Sequence[Sourced], names: Sequence[str]) -> dict[str, list[Any]]:
    places = {name: place for place, name in enumerate(names)}
    columns: dict[str, list[Any]] = {key: [] for key in ("cell", "metric", "mean", "low", "high", "n")}
    for cell, one in enumerate(found):
        for name, estimate in one.record.metrics.items():
            ends = (_rounded(value) for value in (estimate.mean, estimate.low, estimate.high))
            for key, value in zip(columns, (cell, places[name], *ends, estimate.n), strict=True):
                columns[key].append(value)
    return columns


def _rounded(value: float) -> float | int | None:
    """Seven digits: more than any page shows."""
    if math.isnan(value):
        return None
    short = float(f"{value:.7g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short
