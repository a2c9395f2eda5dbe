"""What a laboratory shows as tables: messages that crossed, and metrics by name."""

import math
from collections.abc import Mapping
from dataclasses import fields

import pandas as pd
from torch import Tensor

from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import Message
from smd_research.metrics import CARDS, Estimate


def messages_frame(view: AdversaryView) -> pd.DataFrame:
    """One row a message, in order: ``direction``, ``kind``, ``shapes`` of tensors, ``address``, ``bytes`` of payload.

    ``address`` holds the integers that say what the tensors are: which layer, which position.
    """
    rows = [(str(way), type(one).__name__, _shapes(one), _address(one), one.nbytes) for way, one in view.messages]
    return pd.DataFrame(rows, columns=["direction", "kind", "shapes", "address", "bytes"])


def scores_frame(values: Mapping[str, float], chance: Mapping[str, float]) -> pd.DataFrame:
    """One row a metric that has a card and a value: ``what`` it is, its ``value``, and its level of ``chance``.

    Args:
        values: by metric.
        chance: the same of those whose level is known.
    """
    known = {name: value for name, value in values.items() if name in CARDS and not math.isnan(value)}
    rows = [(name, CARDS[name].heading, value, chance.get(name, math.nan)) for name, value in known.items()]
    return pd.DataFrame(rows, columns=["metric", "what", "value", "chance"]).set_index("metric")


def metrics_frame(estimates: Mapping[str, Estimate]) -> pd.DataFrame:
    """One row a metric that has a card: ``what`` it is, its ``value``, and its interval where it has one."""
    rows = [
        (name, CARDS[name].heading, one.mean, one.low, one.high) for name, one in estimates.items() if name in CARDS
    ]
    return pd.DataFrame(rows, columns=["metric", "what", "value", "low", "high"]).set_index("metric")


def _tensors(message: Message) -> dict[str, Tensor]:
    held = {one.name: getattr(message, one.name) for one in fields(message)}
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def _shapes(message: Message) -> str:
    tensors = _tensors(message).items()
    return ", ".join(f"{name} {list(one.shape)} {str(one.dtype).removeprefix('torch.')}" for name, one in tensors)


def _address(message: Message) -> str:
    numbers = [one.name for one in fields(message) if one.name not in _tensors(message)]
    return ", ".join(f"{name}={getattr(message, name)}" for name in numbers)
