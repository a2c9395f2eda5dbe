"""A new family is one record: with it a model with names of its own is exact, without it the model is refused."""

from collections.abc import Iterator

import pytest
import torch
from made_up import RECORD, MadeUpConfig, MadeUpForCausalLM
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from smd_research.core.errors import UnsupportedModelError
from smd_research.models import families, sources
from smd_research.models.attention import AttentionSpec, LocalAttention
from smd_research.models.bundle import Bundle, Geometry, geometry_of
from smd_research.models.extension import ExtensionEngine
from smd_research.models.families import FAMILIES, REFUSED, UNLISTED, family_of
from smd_research.models.hooked import HookedModel
from smd_research.models.linears import linear_layers, place_of
from smd_research.models.permuted import permuted
from smd_research.models.tables import input_table

ROWS = 30


@pytest.fixture(scope="module", autouse=True)
def known_to_transformers() -> Iterator[None]:
    """What transformers must know of any family before its models can be loaded."""
    CONFIG_MAPPING.register("made_up", MadeUpConfig)
    AutoModelForCausalLM.register(MadeUpConfig, MadeUpForCausalLM)
    yield
    CONFIG_MAPPING._extra_content.pop("made_up")
    AutoModelForCausalLM._model_mapping._extra_content.pop(MadeUpConfig)


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setitem(FAMILIES, RECORD.name, RECORD)
    return sources.random("made_up")


def ids_of(bundle: Bundle) -> Tensor:
    return torch.randint(5, bundle.geometry.vocab, (1, ROWS), generator=torch.Generator().manual_seed(1))


def stock(bundle: Bundle, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = bundle.model(input_ids=ids).logits
    return logits


class Asked(LocalAttention):
    """Takes queries first, and notes the order of what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[tuple[str, int]] = []

    def enter(self) -> None:
        self.order.append(("enter", -1))

    def ask(self, layer: int, q: Tensor, spec: AttentionSpec) -> None:
        self.order.append(("ask", layer))


def test_sizes(bundle: Bundle) -> None:
    assert bundle.geometry == Geometry(4, 64, 4, 4, 16, 4096, 512)


def test_hooked_attention_is_exact(bundle: Bundle) -> None:
    ids, positions, attention = ids_of(bundle), torch.arange(ROWS), LocalAttention()
    got = HookedModel(bundle).forward(attention, positions, ids=ids)
    torch.testing.assert_close(got, stock(bundle, ids))
    assert [(layer, spec.window) for layer, spec in attention.specs.items()] == [(0, None), (1, 12), (2, None), (3, 12)]


def test_a_cut_between_blocks_is_exact(bundle: Bundle) -> None:
    ids, positions = ids_of(bundle), torch.arange(ROWS)
    hidden = HookedModel(bundle, None, 2).forward(LocalAttention(), positions, ids=ids)
    got = HookedModel(bundle, 2).forward(LocalAttention(), positions, hidden=hidden)
    torch.testing.assert_close(got, stock(bundle, ids))


def test_queries_come_first(bundle: Bundle) -> None:
    ids, asked = ids_of(bundle), Asked()
    got = HookedModel(bundle, query_first=True).forward(asked, torch.arange(ROWS), ids=ids)
    torch.testing.assert_close(got, stock(bundle, ids))
    assert asked.order == [step for layer in range(4) for step in (("enter", -1), ("ask", layer))]


def test_linear_layers_have_roles(bundle: Bundle) -> None:
    assert [place_of(name).matrix for name in linear_layers(bundle)][:6] == ["q", "k", "v", "o", "up", "down"]


def test_the_residual_stream_can_be_permuted(bundle: Bundle) -> None:
    ids, positions = ids_of(bundle), torch.arange(ROWS)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    hidden = HookedModel(bundle, None, 1).forward(LocalAttention(), positions, ids=ids)
    served = HookedModel(permuted(bundle, order, 1), 1)
    got = served.forward(LocalAttention(), positions, hidden=hidden[..., order])
    torch.testing.assert_close(got, stock(bundle, ids), atol=1e-5, rtol=1e-4)


def test_positions_are_learned(bundle: Bundle) -> None:
    assert not ExtensionEngine(bundle, 1).one_table
    config = MadeUpConfig(**{**RECORD.small, "reach": 64, "vocab_size": 64})
    square = Bundle.of("square", MadeUpForCausalLM(config), bundle.tokenizer)
    assert input_table(square).shape == (64, 64)  # as many places as words, and still one table that reads words


def test_without_its_record_it_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="'made_up' has no num_hidden_layers or n_layer or num_layers"):
        geometry_of(MadeUpConfig())


def test_a_name_means_the_same_in_every_family() -> None:
    for part in ("attention", "mlp"):
        roles = families.matrix_names(part)
        for record in (UNLISTED, *FAMILIES.values()):
            assert record.matrices.of(part).items() <= roles.items(), record.name


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_record_says_what_the_common_names_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = sources.random(name).model.config
    recorded = geometry_of(config)
    monkeypatch.setitem(FAMILIES, name, UNLISTED)
    assert geometry_of(config) == recorded


def test_refused_families_say_why() -> None:
    assert not FAMILIES.keys() & REFUSED.keys()
    assert not any(record.refused for record in FAMILIES.values())
    assert all(family_of(name).refused == why for name, why in REFUSED.items())
    assert family_of("granite").refused is None
