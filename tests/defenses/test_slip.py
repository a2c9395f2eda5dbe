"""Weight decomposition is exact against its own unmasked pipeline, close to the float model, and ends when lied to."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from slip_support import FAMILIES, SHAPES, deployed, random_bundle, random_ids
from torch import Tensor
from torch.nn import functional

from smd_research.boundary import Boundary, Channel, Untrusted
from smd_research.boundary.messages import (
    ExposedLayer,
    LowRankInput,
    LowRankOutput,
    MaskedInput,
    Message,
    Tokens,
)
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.slip import Slip, SlipDeployment, SlipPrepared
from smd_research.mechanisms.decomposition.splits import split
from smd_research.mechanisms.integers.field import WIDE
from smd_research.mechanisms.integers.fixed_point import FixedPointOverflowError, quantise_rows
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy, plain_logits
from smd_research.models.linears import weight_of


def _tuple(ids: Tensor) -> tuple[int, ...]:
    return tuple(ids[0].tolist())


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return random_bundle("llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_generates_as_the_plain_model(family: str) -> None:
    bundle = random_bundle(family)
    before = bundle.fingerprint()
    prompt, continuation = _tuple(random_ids(bundle, 1, 14)), _tuple(random_ids(bundle, 2, 6))
    expected = plain_logits(bundle, prompt, continuation)
    with deployed(bundle) as deployment:
        assert deployment.generate(Prompt("p", "", prompt), 4).ids == plain_greedy(bundle, prompt, 4)
        got = deployment.score(prompt, continuation)
    assert (got - expected).abs().max() / expected.abs().max() < 3e-4
    assert bundle.fingerprint() == before


def _decoded(deployment: SlipDeployment, prompts: Tensor, new: int) -> tuple[Tensor, list[Tensor]]:
    """Greedy tokens ``[B, new]`` of a batch and the logits of every step."""
    deployment.reserve(len(prompts) * (prompts.shape[1] + new - 1), len(prompts) * new)
    deployment.keeper.start(new)
    feed, ids, logits = prompts, [], []
    for _ in range(new):
        logits.append(deployment.keeper.forward(feed)[:, -1])
        feed = logits[-1].argmax(-1, keepdim=True)
        ids.append(feed)
    return torch.cat(ids, 1), logits


def _equal_runs(bundle: Bundle, prompts: Tensor, new: int, **options: object) -> int:
    """Decode masked and unmasked, compare every logit; returns how many tokens were compared."""
    with deployed(bundle, **options) as masked, deployed(bundle, masking="none", **options) as plain:
        (one, first), (two, second) = _decoded(masked, prompts, new), _decoded(plain, prompts, new)
    assert torch.equal(one, two)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    return one.numel()


@pytest.mark.parametrize("options", [{}, {"bits": 8, "field": "narrow"}], ids=["int16", "int8-narrow"])
@pytest.mark.parametrize("family", SHAPES)
def test_masked_and_unmasked_pipelines_agree_bit_for_bit(family: str, options: dict[str, object]) -> None:
    bundle = random_bundle(family)
    assert _equal_runs(bundle, random_ids(bundle, 3, 9, batch=2), 3, **options) == 6


@pytest.mark.slow
@pytest.mark.parametrize("family", SHAPES)
def test_ten_thousand_generated_tokens_agree_bit_for_bit(family: str) -> None:
    bundle = random_bundle(family)
    assert _equal_runs(bundle, random_ids(bundle, 4, 4, batch=100), 100) == 10_000


def _heavy(rows: int, width: int, seed: int) -> Tensor:
    """Student-t rows with two degrees of freedom, of very different lengths; the last is all outlier."""
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_t(2, (rows, width))).float()
    drawn[-1, seed % width] = 1e6
    return drawn * torch.logspace(-6, 6, rows)[:, None]


@pytest.mark.parametrize("family", SHAPES)
def test_heavy_tailed_inputs_are_exact_at_every_product(family: str) -> None:
    """Against exact integers: the bound keeps every output inside the field, whatever the input."""
    bundle = random_bundle(family)
    with deployed(bundle) as masked, deployed(bundle, masking="none") as plain:
        for product in masked.parts.products:
            point = masked.rounds._points[product.number]
            a = _heavy(5, product.width, product.number)
            one, two = (d.rounds.run(product.number, a) for d in (masked, plain))
            assert torch.equal(one, two)
            x, step = point.encode(a)
            y = x.numpy().astype(object) @ masked.parts.exposed[product.number].weights.numpy().astype(object).T
            assert abs(y).max() < WIDE.prime // 2
            exact = point.decode(torch.from_numpy(y.astype(np.int64)), step)
            assert torch.equal(masked.parts.secrets[product.number].complete(exact, a), one)


def test_what_is_not_finite_is_refused_and_the_next_request_served(llama: Bundle) -> None:
    with deployed(llama) as deployment:
        a = torch.ones(2, 64)
        a[1, 3] = float("nan")
        with pytest.raises(FixedPointOverflowError, match=r"product 0 .*not finite") as caught:
            deployment.rounds.run(0, a)
        assert "\n" not in str(caught.value)
        assert deployment.generate(Prompt("p", "", (7, 8, 9)), 2).ids == plain_greedy(llama, (7, 8, 9), 2)


def test_an_outlier_beyond_all_that_was_seen_costs_no_other_row_a_bit(llama: Bundle) -> None:
    """As large against the rest as the inputs of ``down_proj`` that real models have."""
    with deployed(llama) as deployment:
        down = next(p for p in deployment.parts.products if p.layers == ("model.layers.0.mlp.down_proj",))
        a = torch.randn(3, down.width, generator=torch.Generator().manual_seed(0))
        loud = a.clone()
        loud[1, 7] = 3375.0
        quiet, beside = (deployment.rounds.run(down.number, one) for one in (a, loud))
        weight = llama.model.get_submodule(down.layers[0]).weight
        exact = loud.double() @ weight.double().T
    assert torch.equal(quiet[[0, 2]], beside[[0, 2]])
    assert ((beside - exact).norm(dim=1) / exact.norm(dim=1)).max() < 1e-4, "what 16 bits of a weight leave"


@pytest.mark.slow
def test_the_embedded_model_keeps_its_loss_and_its_choices() -> None:
    """At int16: loss within 1e-3 nats, teacher-forced argmax equal on 99.9 % of tokens."""
    bundle = sources.embedded()
    documents = tokenised(generate("mixed", "validation", 60, 0), bundle.tokenizer, 96, 0)
    prepared = Slip().prepare(bundle)
    same = tokens = 0
    losses = torch.zeros(2, dtype=torch.float64)
    with prepared.deploy(Boundary(record=False)) as deployment:
        for document in documents:
            first, rest = document.ids[:1], document.ids[1:]
            plain, got = plain_logits(bundle, first, rest), deployment.score(first, rest)
            same += int((plain.argmax(-1) == got.argmax(-1)).sum())
            tokens += len(rest)
            target = torch.tensor(rest)
            losses += torch.stack([functional.cross_entropy(x.double(), target, reduction="sum") for x in (plain, got)])
    assert tokens > 2000
    assert abs(float(losses[0] - losses[1])) / tokens < 1e-3
    assert same / tokens >= 0.999


def test_one_round_a_fused_product_and_constant_shapes(llama: Bundle) -> None:
    boundary = Boundary()
    with deployed(llama, boundary) as deployment:
        sizes = []
        for prompt in ((7, 8, 9), (100, 2000, 3000)):
            deployment.generate(Prompt("p", "", prompt), 2)
            view = boundary.view(deployment.shows)
            sizes.append([(type(m).__name__, m.nbytes) for _, m in view.messages])
            asked = view.of(MaskedInput)
            products = deployment.parts.products
            assert [m.product for m in asked] == [*range(len(products))] * 2
            assert boundary.ledger.rounds == len(asked) + 2  # a look-up of embeddings for each step
            assert len(view.of(Tokens)) == 2
            assert not view.of(ExposedLayer)
        assert sizes[0] == sizes[1]
        assert len(products) == 4 * 4 + 1
        facts = deployment.facts
    assert facts["offline_gflop"] == pytest.approx(
        sum(2 * p.height * p.width * (2 if p.layers == ("lm_head",) else 4) for p in deployment.parts.products) / 1e9
    )
    assert facts["offline_s"] > 0


def test_the_exposed_weights_arrive_before_any_request_and_the_secret_part_never(llama: Bundle) -> None:
    arrived: list[Message] = []

    class Listening(Untrusted):
        def __init__(self, honest: Untrusted) -> None:
            super().__init__()
            self._honest = honest

        def handle(self, message: Message) -> Message | None:
            arrived.append(message)
            return self._honest.handle(message)

    def impostor(factory: Callable[[Channel], Untrusted]) -> Callable[[Channel], Untrusted]:
        return lambda channel: Listening(factory(channel))

    with deployed(llama, Boundary(record=False, impostor=impostor)) as deployment:
        assert all(isinstance(message, ExposedLayer) for message in arrived)
        exposed = deployment.parts.held(llama).model.get_submodule("model.layers.0.mlp.down_proj").weight
        (layer,) = [m for m in arrived if isinstance(m, ExposedLayer) and m.product == 3]
        assert torch.equal(layer.weights.float() * layer.scale[:, None], exposed)
        original = llama.model.get_submodule("model.layers.0.mlp.down_proj").weight
        left, right = deployment.parts.secrets[3].left, deployment.parts.secrets[3].right
        assert left is not None
        assert right is not None
        assert (left.T @ right + exposed - original).abs().max() < 1e-4
        assert (exposed - original).norm() / original.norm() > 0.1


def test_exposed_weights_stay_integers_and_the_devices_model_is_made_on_demand(llama: Bundle) -> None:
    """Two bytes a weight at either party, and no model of floats beside them."""
    made = Slip().prepare(llama)
    boundary = Boundary(record=False)
    with made.deploy(boundary) as deployment:
        deployment.generate(Prompt("p", "", (7, 8, 9)), 1)
        exposed = sum(2 * product.height * product.width for product in made.parts.products)
        assert boundary.tap("memory")["weights"] == exposed + llama.embedding.nbytes
        assert sum(one.weights.nbytes for one in made.parts.exposed.values()) == exposed
    assert "public" not in vars(made)
    assert made.public is made.public
    stored = quantise_rows(split_of(made), 16)
    assert torch.equal(weight_of(made.public.model.get_submodule("model.layers.2.mlp.up_proj")), stored.dequantised())


def split_of(made: SlipPrepared) -> Tensor:
    """The exposed part of one layer, in floats."""
    whole = weight_of(made.bundle.model.get_submodule("model.layers.2.mlp.up_proj"))
    return split(whole, 8, "svd", np.random.default_rng(0)).exposed


def test_no_seed_repeats_the_masks(llama: Bundle) -> None:
    received = []
    for seed in (0, 0, 1):
        boundary = Boundary()
        with Slip().prepare(llama, seed=seed).deploy(boundary) as deployment:
            deployment.generate(Prompt("p", "", (7, 8, 9)), 1)
            received.append(boundary.received_by_untrusted())
    assert len(set(received)) == 3, "nor does the same seed again"


@pytest.mark.parametrize("bits", [16, None])
def test_boundary_visibility_is_as_exact_and_shows_every_pair(llama: Bundle, bits: int | None) -> None:
    boundary, prompt = Boundary(), (7, 8, 9, 10)
    with Slip(visibility="boundary", bits=bits, blocks=[1]).prepare(llama).deploy(boundary) as deployment:
        generation = deployment.generate(Prompt("p", "", prompt), 3)
        view, facts = boundary.view(deployment.shows), deployment.facts
        got = deployment.score(prompt, (4, 5, 6))
    assert generation.ids == plain_greedy(llama, prompt, 3)
    expected = plain_logits(llama, prompt, (4, 5, 6))
    assert (got - expected).abs().max() / expected.abs().max() < (1e-5 if bits is None else 1e-3)
    pairs = list(zip(view.of(LowRankInput), view.of(LowRankOutput), strict=True))
    assert {m.product for m, _ in pairs} == {4, 5, 6, 7}
    assert facts["plain_pairs"] == 4 + 2
    down = [m for m in pairs if m[0].product == 7]
    original = llama.model.get_submodule("model.layers.1.mlp.down_proj").weight
    secret = original - deployment.parts.held(llama).model.get_submodule("model.layers.1.mlp.down_proj").weight
    assert torch.allclose(down[0][0].x @ secret.T, down[0][1].y, atol=1e-4)
