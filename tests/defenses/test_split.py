"""Split inference is exact under every permutation scheme, and the orders stay at home."""

import pytest
import torch

from smd_research.boundary import Boundary
from smd_research.boundary.messages import AttentionInputs, HiddenStates
from smd_research.boundary.session import TRANSPORTS
from smd_research.core.errors import ConfigError, LabError, UnsupportedModelError
from smd_research.data.prompts import Prompt
from smd_research.defenses.none import NoDefense
from smd_research.defenses.split import PERMUTATIONS, Split
from smd_research.models import Bundle, sources
from smd_research.models.attention import LocalAttention
from smd_research.models.decoding import plain_greedy, plain_logits
from smd_research.models.hooked import HookedModel
from smd_research.models.permuted import permuted

SMALL = [family for family in sources.FAMILIES if family != "100m"]


def _ids(bundle: Bundle, seed: int, rows: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(5, bundle.geometry.vocab, (rows,), generator=generator).tolist())


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.mark.parametrize("permute", PERMUTATIONS)
@pytest.mark.parametrize("family", SMALL)
def test_every_scheme_is_exact_for_every_family(family: str, permute: str) -> None:
    bundle = sources.random(family)
    before = bundle.fingerprint()
    prompt, continuation = _ids(bundle, 1, 25), _ids(bundle, 2, 10)
    expected = plain_logits(bundle, prompt, continuation)
    with Split(1, permute).prepare(bundle).deploy(Boundary()) as deployment:
        got = deployment.score(prompt, continuation)
        ids = deployment.generate(Prompt("p", "", prompt), 6).ids
    assert (got - expected).abs().max() / expected.abs().max() < 3e-6
    assert ids == plain_greedy(bundle, prompt, 6)
    assert bundle.fingerprint() == before


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("permute", PERMUTATIONS)
@pytest.mark.parametrize("layer", [0, 4])
def test_the_first_and_the_last_cut(llama: Bundle, transport: str, permute: str, layer: int) -> None:
    prompt = _ids(llama, 1, 12)
    with Split(layer, permute).prepare(llama).deploy(Boundary(transport)) as deployment:
        assert deployment.generate(Prompt("p", "", prompt), 5).ids == plain_greedy(llama, prompt, 5)


def test_what_crosses_is_what_the_scheme_says(llama: Bundle) -> None:
    prompt = _ids(llama, 1, 12)
    true = HookedModel(llama, None, 2).forward(LocalAttention(), torch.arange(12), ids=torch.tensor([prompt]))[0]
    sent = {}
    for permute in PERMUTATIONS:
        with Split(2, permute).prepare(llama).deploy(Boundary()) as deployment:
            deployment.generate(Prompt("p", "", prompt), 2)
            sent[permute] = deployment.boundary.view(deployment.shows).of(HiddenStates)[0].hidden
    assert torch.equal(sent["none"], true)
    for permute in PERMUTATIONS[1:]:
        assert not torch.allclose(sent[permute], true)
    rows = torch.cdist(sent["sequence"], true).argmin(1)
    assert sorted(rows.tolist()) == list(range(12))
    torch.testing.assert_close(sent["hidden"].sort(1).values, true.sort(1).values)


def test_row_orders_are_fresh_and_positions_never_cross(llama: Bundle) -> None:
    # at the embedding of a rotary model a token gives the same row wherever it stands
    prompt = Prompt("p", "", (7, 9, 7, 11, 7, 13, 15, 17, 19, 21, 23, 25))
    with Split(0, "sequence").prepare(llama).deploy(Boundary()) as deployment:
        orders = []
        for _ in range(2):
            deployment.generate(prompt, 1)
            orders.append(deployment._split_client.order.tolist())
        inputs = deployment.boundary.view(deployment.shows).of(AttentionInputs)
    assert orders[0] != orders[1]
    assert len(inputs) == llama.geometry.layers
    for sent in (inputs[0].q, inputs[0].k, inputs[0].v):
        distinct = torch.unique(sent.flatten(1).round(decimals=5), dim=0)
        assert len(distinct) == len(set(prompt.ids))


def test_permuted_weights_are_needed(llama: Bundle) -> None:
    """Positive control: a plain provider computes something else from permuted features."""
    order = torch.randperm(llama.geometry.width, generator=torch.Generator().manual_seed(0))
    ids, positions = torch.tensor([_ids(llama, 1, 9)]), torch.arange(9)
    hidden = HookedModel(llama, None, 2).forward(LocalAttention(), positions, ids=ids)
    expected = HookedModel(llama, 2).forward(LocalAttention(), positions, hidden=hidden)
    right = HookedModel(permuted(llama, order, 2), 2).forward(LocalAttention(), positions, hidden=hidden[..., order])
    wrong = HookedModel(llama, 2).forward(LocalAttention(), positions, hidden=hidden[..., order])
    torch.testing.assert_close(right, expected, atol=1e-5, rtol=1e-4)
    assert (wrong - expected).abs().max() > 1e-2


def test_a_matrix_of_unknown_role_is_refused(llama: Bundle) -> None:
    order = torch.arange(llama.geometry.width)
    odd = sources.random("llama", seed=1)
    odd.model.model.layers[0].extra_mixer = torch.nn.Linear(64, 64)
    with pytest.raises(UnsupportedModelError, match="extra_mixer"):
        permuted(odd, order, 0)


def test_bad_input_is_refused(llama: Bundle) -> None:
    with pytest.raises(ConfigError, match="none, sequence, hidden, both"):
        Split(1, "rows")
    with pytest.raises(ConfigError, match="has 4 blocks"):
        Split(5).prepare(llama).deploy(Boundary())
    with pytest.raises(ConfigError, match="out of range"):
        Split(-1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_without_protection_the_outputs_are_the_models(llama: Bundle, transport: str) -> None:
    prompt, continuation = _ids(llama, 1, 20), _ids(llama, 2, 8)
    with NoDefense().prepare(llama).deploy(Boundary(transport)) as deployment:
        expected = plain_logits(llama, prompt, continuation)
        assert (deployment.score(prompt, continuation) - expected).abs().max() < 1e-5
        assert deployment.generate(Prompt("p", "", prompt), 8).ids == plain_greedy(llama, prompt, 8)
        secret = torch.tensor(prompt, dtype=torch.int32).numpy().tobytes()
        assert secret in deployment.boundary.received_by_untrusted()


@pytest.mark.parametrize(
    ("rows", "width", "position", "says"),
    [
        (2, 63, 0, "width 63 where"),
        (2, 64, 4, "position 4 where 3 is due"),
        (2, 64, -3, "position -3 where 3 is due"),
        (0, 64, 0, "empty"),
        (10_000, 64, 0, "context"),
        (10_000, 64, 3, "context"),
    ],
)
def test_states_that_do_not_follow_are_refused(llama: Bundle, rows: int, width: int, position: int, says: str) -> None:
    """A guest from another host sends what it likes; what is held of it stays within the context."""
    with Split(1).prepare(llama).deploy(Boundary()) as deployment:
        deployment._channel.request(HiddenStates(torch.ones(3, 64), 0))  # type: ignore[attr-defined]
        with pytest.raises(LabError, match=says):
            deployment._channel.request(HiddenStates(torch.ones(rows, width), position))  # type: ignore[attr-defined]
