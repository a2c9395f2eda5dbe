"""Per-prompt results: one row a prompt in ``items.parquet``.

The truth stands here in clear, so that a person can look at what leaked: use evaluation data whose secrets are
synthetic or consented to, or leave the texts out (``record_texts=false``). Nothing else in a record holds any part of a
prompt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from smd_research.data.prompts import TokenSpan

TEXTS = ("truth_ids", "guess_ids", "truth_tokens", "guess_tokens", "spans")
"""The columns that hold texts, or say where in them a secret stands."""

_INSTEAD = ("length", "secrets")
_OWN = ("prompt_id", *TEXTS, "source", *_INSTEAD)


@dataclass(frozen=True)
class SecretCount:
    """How many secrets of a type a prompt holds, and how many of them the attack found to the last token."""

    type: str
    count: int
    found: int


@dataclass(frozen=True)
class Item:
    """What one prompt gave.

    Attributes:
        prompt_id: stable name of the prompt.
        metrics: values by metric name, e.g. ``{"token_accuracy": 0.9}``; NaN where not defined.
        truth_tokens: the text of each true token; empty where nobody attacked.
        guess_tokens: the text of each guessed token, None where the attack abstained; aligned with ``truth_tokens``.
        spans: secrets in token offsets.
        truth_ids: the true token ids, so that a new metric can be computed from a record.
        guess_ids: the guessed token ids, ``-1`` where the attack abstained.
        source: what kind of text the prompt is; with its length it is the stratum that its control is taken from.
        length: tokens of the prompt; 0 where the item is no prompt.
        secrets: what is left of ``spans`` where texts were not recorded.
    """

    prompt_id: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    truth_tokens: Sequence[str] = field(default=(), repr=False)
    guess_tokens: Sequence[str | None] = field(default=(), repr=False)
    spans: Sequence[TokenSpan] = ()
    truth_ids: Sequence[int] = field(default=(), repr=False)
    guess_ids: Sequence[int] = field(default=(), repr=False)
    source: str = ""
    length: int = 0
    secrets: Sequence[SecretCount] = ()

    def __post_init__(self) -> None:
        if known := len(self.truth_ids or self.truth_tokens):
            object.__setattr__(self, "length", known)


def items_frame(items: Iterable[Item], *, texts: bool = True) -> pd.DataFrame:
    """One row a prompt: ``prompt_id``, a column a metric, token texts, token ids, ``spans``.

    Args:
        items: of one record.
        texts: whether texts are kept; else their columns are empty, with ``length`` and ``secrets`` beside them.

    Raises:
        ValueError: when a metric's name is one of the frame's own columns.
    """
    rows = []
    for item in items:
        taken = set(item.metrics) & set(_OWN)
        if taken:
            raise ValueError(f"{', '.join(sorted(taken))} cannot name a metric")
        rows.append(
            {
                "prompt_id": item.prompt_id,
                **{name: float(value) for name, value in item.metrics.items()},
                **(_texts(item) if texts else _instead(item)),
                "source": item.source,
            }
        )
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["prompt_id", *TEXTS, "source"])


def _texts(item: Item) -> dict[str, Any]:
    return {
        "truth_ids": [int(i) for i in item.truth_ids],
        "guess_ids": [int(i) for i in item.guess_ids],
        "truth_tokens": list(item.truth_tokens),
        "guess_tokens": list(item.guess_tokens),
        "spans": [{"start": s.start, "end": s.end, "type": s.type} for s in item.spans],
    }


def _instead(item: Item) -> dict[str, Any]:
    empty: dict[str, Any] = {column: [] for column in TEXTS}
    return empty | {"length": item.length, "secrets": [asdict(secret) for secret in counted_secrets(item)]}


def counted_secrets(item: Item) -> Sequence[SecretCount]:
    """The secrets of a prompt, type by type, and how many of each the attack found."""
    if item.secrets:
        return item.secrets
    told = bool(item.truth_ids and item.guess_ids)  # older records have texts alone
    truth: Sequence[Any] = item.truth_ids if told else item.truth_tokens
    guess: Sequence[Any] = item.guess_ids if told else item.guess_tokens
    hits: dict[str, list[bool]] = {}
    for span in item.spans:
        place = slice(span.start, span.end)
        hits.setdefault(span.type, []).append(list(truth[place]) == list(guess[place]))
    return [SecretCount(kind, len(found), sum(found)) for kind, found in hits.items()]


def read_items(frame: pd.DataFrame) -> list[Item]:
    """The inverse of :func:`items_frame`, from a frame as Parquet gives it back; spans end where their prompt does."""
    items = []
    for row in frame.to_dict("records"):
        truth_tokens = [str(t) for t in _listed(row.get("truth_tokens"))]
        spans = [span for s in _listed(row.get("spans")) if (span := _clamped(s, len(truth_tokens)))]
        items.append(
            Item(
                prompt_id=str(row["prompt_id"]),
                metrics={str(k): float(v) for k, v in row.items() if k not in _OWN and isinstance(v, int | float)},
                truth_tokens=truth_tokens,
                guess_tokens=[None if t is None else str(t) for t in _listed(row.get("guess_tokens"))],
                spans=spans,
                truth_ids=[int(i) for i in _listed(row.get("truth_ids"))],
                guess_ids=[int(i) for i in _listed(row.get("guess_ids"))],
                source=str(row.get("source") or ""),
                length=int(row.get("length") or 0),
                secrets=[SecretCount(str(s["type"]), s["count"], s["found"]) for s in _listed(row.get("secrets"))],
            )
        )
    return items


def _clamped(span: Mapping[str, Any] | None, tokens: int) -> TokenSpan | None:
    """A secret inside its prompt; None where nothing of it is."""
    start, end, kind = (span or {}).get("start"), (span or {}).get("end"), (span or {}).get("type")
    if start is None or end is None or max(start, 0) >= min(end, tokens):
        return None
    return TokenSpan(max(int(start), 0), min(int(end), tokens), str(kind or "secret"))


def _listed(value: object) -> list:  # type: ignore[type-arg]
    return list(value) if isinstance(value, Iterable) else []
