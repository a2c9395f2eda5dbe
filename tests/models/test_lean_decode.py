"""The lean form computes what the stock model does, for the families that have one; else the hooked form is used."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from smd_research.core.errors import UnsupportedModelError
from smd_research.models import Bundle, families, self_check, sources
from smd_research.models.attention import AttentionSpec, LocalAttention, QueryFirstRuntime
from smd_research.models.hooked import HookedModel, decoder_of
from smd_research.models.lean_decode import LeanDecode

ROWS, KNOWN = 24, 16
LEAN = [name for name, family in families.FAMILIES.items() if family.lean]


class Streams(QueryFirstRuntime):
    """Attention of streams of different lengths, and the order in which the runtime was called."""

    def __init__(self, streams: int) -> None:
        self.own = [LocalAttention() for _ in range(streams)]
        self.called: list[str] = []

    def enter(self) -> None:
        self.called.append("enter")

    def ask(self, layer: int, q: Tensor, spec: AttentionSpec) -> None:
        self.called.append("ask")

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.called.append("attend")
        where = positions.expand(len(self.own)) if positions.dim() == 1 else positions[:, 0]
        rows = [slice(i, i + 1) for i in range(len(self.own))]
        parts = zip(self.own, rows, where.unsqueeze(1), strict=True)
        return torch.cat([own.attend(layer, q[i], k[i], v[i], place, spec) for own, i, place in parts])


def prefilled(bundle: Bundle, ids: Tensor, lengths: list[int]) -> Streams:
    streams = Streams(len(lengths))
    for own, row, length in zip(streams.own, ids, lengths, strict=True):
        HookedModel(bundle).forward(own, torch.arange(length), ids=row[None, :length])
    return streams


def random_ids(streams: int) -> Tensor:
    return torch.randint(5, 90, (streams, ROWS), generator=torch.Generator().manual_seed(3))


def stock(bundle: Bundle, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = bundle.model(input_ids=ids).logits
    return logits


@pytest.mark.parametrize("first", [None, 2])
@pytest.mark.parametrize("streams", [1, 2, 6])
@pytest.mark.parametrize("family", LEAN)
def test_every_step_is_the_stock_models(family: str, streams: int, first: int | None) -> None:
    bundle, ids = sources.random(family), random_ids(streams)
    lengths = [KNOWN - number for number in range(streams)]
    attention, expected = prefilled(bundle, ids, lengths), stock(bundle, ids)
    lean = decoder_of(bundle, first, query_first=True)
    assert isinstance(lean, LeanDecode)
    below = HookedModel(bundle, None, first) if first else None
    for step in range(ROWS - KNOWN):
        places = torch.tensor([length + step for length in lengths])
        feed = ids.gather(1, places[:, None])
        positions = places if streams == 1 else places[:, None]
        hidden = below.forward(attention, positions, ids=feed) if below else None
        got = lean.forward(attention, positions, ids=None if below else feed, hidden=hidden)[:, 0]
        error = (got - expected[torch.arange(streams), places]).abs().max() / expected.abs().max()
        assert float(error) < 3e-6


def test_queries_come_before_keys_and_values() -> None:
    bundle, asked = sources.random("llama"), []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(attention.called.count("ask"))
            return super().forward(x)

    watched = replace(bundle, model=copy.deepcopy(bundle.model))
    for block in watched.model.model.layers:
        block.self_attn.k_proj.__class__ = block.self_attn.v_proj.__class__ = Watched
    attention = prefilled(bundle, random_ids(1), [KNOWN])
    lean = LeanDecode(watched)
    asked.clear()
    lean.forward(attention, torch.tensor([KNOWN]), ids=torch.tensor([[7]]))
    assert attention.called == ["enter", "ask", "attend"] * bundle.geometry.layers
    assert asked == [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("family", sorted(families.FAMILIES.keys() - set(LEAN)))
def test_other_families_are_hooked(family: str) -> None:
    bundle = sources.random(family)
    assert isinstance(decoder_of(bundle), HookedModel)
    with pytest.raises(UnsupportedModelError, match=f"'{family}' has no lean form"):
        LeanDecode(bundle)


WRONG: dict[str, Callable[[LeanDecode, Tensor, Tensor, Tensor], Tensor]] = {
    "no rotation": lambda lean, heads, cos, sin: heads,
    "the other way round": lambda lean, heads, cos, sin: torch.addcmul(heads * cos, heads.roll(8, -1), -sin),
}


@pytest.mark.parametrize("change", list(WRONG))
def test_a_form_that_is_not_exact_is_not_used(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "_known", {})
    monkeypatch.setattr(self_check, "_seen", type(self_check._seen)())
    monkeypatch.setattr(LeanDecode, "_rotated", WRONG[change])
    assert isinstance(decoder_of(sources.random("llama")), HookedModel)
