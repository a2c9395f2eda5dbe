"""Per-prompt results: one row a prompt in ``items.parquet``.

The truth stands here in clear, so that a person can look at what leaked: use evaluation data whose secrets are
synthetic or consented to. Nothing else in a record holds any part of a prompt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from smd_research.data.prompts import TokenSpan

_OWN = ("prompt_id", "truth_ids", "guess_ids", "truth_tokens", "guess_tokens", "spans", "source")


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
    """

    prompt_id: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    truth_tokens: Sequence[str] = field(default=(), repr=False)
    guess_tokens: Sequence[str | None] = field(default=(), repr=False)
    spans: Sequence[TokenSpan] = ()
    truth_ids: Sequence[int] = field(default=(), repr=False)
    guess_ids: Sequence[int] = field(default=(), repr=False)
    source: str = ""


def items_frame(items: Iterable[Item]) -> pd.DataFrame:
    """One row a prompt: ``prompt_id``, a column a metric, token texts, token ids, ``spans``.

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
                "truth_ids": [int(i) for i in item.truth_ids],
                "guess_ids": [int(i) for i in item.guess_ids],
                "truth_tokens": list(item.truth_tokens),
                "guess_tokens": list(item.guess_tokens),
                "spans": [{"start": s.start, "end": s.end, "type": s.type} for s in item.spans],
                "source": item.source,
            }
        )
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(_OWN))


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
