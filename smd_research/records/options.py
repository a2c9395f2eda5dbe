"""The options of a cell's parts by name, ``defense.epsilon``: as labels of one cell, as typed columns of a frame."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

Label: TypeAlias = str | int | float | bool | None


_PLACES = {"survival": "epsilon"}
"""Options that only choose another one, by its name: where that is given they say nothing of the cell."""


def counted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with null for each that only chooses another one which is given."""
    idle = {name for name, chosen in _PLACES.items() if options.get(chosen) is not None}
    return {key: None if key in idle else value for key, value in options.items()}


def fill(options: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Replace options left open (null) by what the deployment chose."""
    return {key: chosen.get(key) if value is None else value for key, value in options.items()}


def labels_of(part: str, options: str, deployed: str = "") -> dict[str, Label]:
    """The options of a part under their names, e.g. ``{"defense.epsilon": 8}``; what holds options itself is left out.

    Args:
        part: its kind.
        options: JSON.
        deployed: JSON of what its deployment chose, which stands for options left open; empty if unknown.
    """
    values = counted(json.loads(options))
    values = fill(values, json.loads(deployed)) if deployed else values
    return {
        f"{part}.{key}": ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in values.items()
        if not isinstance(value, dict)
    }


def option_columns(frame: pd.DataFrame, parts: Sequence[str], deployed: Mapping[str, str]) -> pd.DataFrame:
    """A typed column for each option that any cell of a frame has, NA where a cell's part has no such option.

    Args:
        frame: with a column ``<part>_params`` of JSON for each part.
        parts: whose options are wanted, in order.
        deployed: the column, by part, of JSON of what a deployment chose.

    Returns:
        A frame with the same rows: whole numbers as ``Int64``, numbers as ``Float64``, ``boolean``, else ``string``,
        in which a value that is no text stands as JSON.
    """
    columns = {name: values for part in parts for name, values in _columns_of(frame, part, deployed.get(part))}
    return pd.DataFrame(columns, index=frame.index)


def _columns_of(frame: pd.DataFrame, part: str, deployed: str | None) -> Iterator[tuple[str, pd.Series]]:
    """The columns of one part; each spelling is read once, however many rows have it."""
    spelt = frame[f"{part}_params"].fillna("{}")
    spelt = spelt.str.cat(frame[deployed].fillna(""), sep="\n") if deployed else spelt  # JSON of one line each
    places, kinds = pd.factorize(spelt)
    found = [labels_of(part, *str(kind).split("\n")) for kind in kinds]
    for name in dict.fromkeys(name for labels in found for name in labels):
        yield name, _typed([labels.get(name) for labels in found]).take(places).set_axis(frame.index)


def _typed(values: Sequence[Label]) -> pd.Series:
    """Values with the narrowest type that holds them all."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds <= {int}:
        return pd.Series(values, dtype="Int64")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="Float64")
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pd.Series(texts, dtype="string")
