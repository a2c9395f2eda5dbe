"""The tables that a cloud holds of a shaken model, each beside the public one that it was made from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attacks.base import Public
from attacks.cryptanalysis.ciphertext import origin
from smd_research.models.bundle import Bundle


@dataclass(frozen=True, repr=False, eq=False)
class TablePair:
    """A public table ``[V, d]`` and the shaken one ``[V', d]`` that was made from it."""

    name: str
    public: NDArray[np.float64]
    shaken: NDArray[np.float64]


def table_pairs(public: Public) -> list[TablePair]:
    """The input table, and the head where it is a table of its own; as they were before tuning, where that is known.

    Raises:
        NotApplicableError: when no public model is known from which the served one was made.
    """
    base = origin(public)
    held = public.before or public.bundle
    found = [TablePair("input", _array(base.embedding), _array(held.embedding))]
    head, base_head = _head(held), _head(base)
    if head is not None and base_head is not None and head.data_ptr() != held.embedding.data_ptr():
        found.append(TablePair("head", _array(base_head), _array(head)))
    return [pair for pair in found if pair.public.shape[1] == pair.shaken.shape[1] and pair.shaken.std() > 0]


def _head(bundle: Bundle) -> Tensor | None:
    module = bundle.model.get_output_embeddings()
    weight: Tensor | None = getattr(module, "weight", None)
    return weight


def _array(table: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = table.detach().cpu().double().numpy()
    return found
