"""What the device receives is uniform and the same for every prompt; with one guard disabled the same tests fail."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from slip_support import deployed, random_bundle
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.boundary.messages import HiddenStates, MaskedInput, PromptIds, Tokens
from smd_research.data.prompts import Prompt
from smd_research.defenses.slip import SlipDeployment
from smd_research.defenses.slip.bank import Masks
from smd_research.defenses.slip.masking import FieldMasking
from smd_research.mechanisms.integers.field import WIDE

ROWS = 64
LIMBS = {"low": 0, "middle": 16, "high": 33}
"""Eight bits of a residue from each of these on."""
UNGUARDED: dict[str, dict[str, object]] = {
    "none": {"masking": "none"},
    "reused": {"masking": "reused"},
    "float": {"masking": "float", "verify": 0},
}


def _constant(width: int) -> Tensor:
    return torch.full((ROWS, width), 0.5)


def _heavy(width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_t(2, (ROWS, width))).float()


def _of_all_lengths(width: int) -> Tensor:
    """Rows from a millionth to a million long, whose steps differ as much."""
    return _heavy(width) * torch.logspace(-6, 6, ROWS)[:, None]


INPUTS = {"constant": _constant, "heavy-tailed": _heavy, "of all lengths": _of_all_lengths}


def _received(boundary: Boundary, deployment: SlipDeployment) -> list[Tensor]:
    return [message.x for message in boundary.view(deployment.shows).of(MaskedInput)]


def _p_value(x: Tensor, shift: int) -> float:
    """Chi-square of one limb against the uniform law of residues."""
    limb = (x.flatten().long() >> shift) & 255
    seen = np.bincount(limb.numpy(), minlength=256)
    top = WIDE.prime >> shift
    if top < 256:  # the highest limb: 2^41 - 21 falls short of a power of two by next to nothing
        seen, cells = seen[: top + 1], top + 1
    else:
        cells = 256
    return float(stats.chisquare(seen, np.full(cells, seen.sum() / cells)).pvalue)


def _smallest_p(kind: str, repeats: int = 1, **options: object) -> list[float]:
    """The smallest p-value of each product over limbs, with Bonferroni's factor for the limbs.

    With ``repeats`` messages of the same input, what the device can form of them is tested: their differences.
    """
    boundary = Boundary()
    found = []
    with deployed(random_bundle("llama"), boundary, **options) as deployment:
        for product in deployment.parts.products:
            a = INPUTS[kind](product.width)
            boundary.begin()
            for _ in range(repeats):
                deployment.rounds.run(product.number, a)
            sent = _received(boundary, deployment)
            tested = sent[0] if repeats == 1 else (sent[1].long() - sent[0].long()) % WIDE.prime
            found.append(min(1.0, len(LIMBS) * min(_p_value(tested, shift) for shift in LIMBS.values())))
    return found


@pytest.mark.parametrize("kind", INPUTS)
def test_residues_are_uniform_at_every_layer(kind: str) -> None:
    """Masks differ from run to run: the level is one that chance does not reach, nor do broken masks miss it."""
    for repeats in (1, 2):
        found = _smallest_p(kind, repeats)
        assert len(found) == 17
        assert min(found) * len(found) > 1e-9


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("guard", UNGUARDED)
def test_without_a_guard_they_are_not(guard: str, kind: str) -> None:
    """Positive control: every layer shows it, in one message or, for reused masks, in the difference of two."""
    assert max(_smallest_p(kind, 2 if guard == "reused" else 1, **UNGUARDED[guard])) < 1e-12


def _views(deployment: SlipDeployment, boundary: Boundary, prompts: list[tuple[int, ...]]) -> NDArray[np.float64]:
    """What the device received besides token ids and embeddings, a row of features for each prompt."""
    rows = []
    for prompt in prompts:
        boundary.begin()
        deployment.keeper.start(1)
        deployment.keeper.forward(torch.tensor([prompt]))
        sent = _received(boundary, deployment)
        # a share of every message, so that every layer counts
        rows.append(np.concatenate([x[-1, :16].double().numpy() for x in sent]) / WIDE.prime)
    return np.stack(rows)


def _classifier_hits(one: NDArray[np.float64], two: NDArray[np.float64]) -> tuple[int, int]:
    """Held-out views that the nearer class mean names rightly, and how many there are."""
    half = len(one) // 2
    means = np.stack([one[:half].mean(0), two[:half].mean(0)])
    hits = 0
    for label, views in enumerate((one[half:], two[half:])):
        distance = ((views[:, None] - means[None]) ** 2).sum(-1)
        hits += int((distance.argmin(1) == label).sum())
    return hits, 2 * (len(one) - half)


def _two_prompts(n: int, **options: object) -> tuple[int, int]:
    boundary = Boundary()
    with deployed(random_bundle("llama"), boundary, **options) as deployment:
        one = _views(deployment, boundary, [(7, 8, 9, 10)] * n)
        two = _views(deployment, boundary, [(900, 1200, 33, 2)] * n)
    return _classifier_hits(one, two)


def test_two_prompts_cannot_be_told_apart() -> None:
    hits, n = _two_prompts(50)
    low, high = stats.binom.interval(1 - 1e-9, n, 0.5)
    assert low <= hits <= high


@pytest.mark.parametrize("guard", UNGUARDED)
def test_without_a_guard_they_can(guard: str) -> None:
    """Positive control: the very same classifier; what a float mask lets through is faint but there."""
    hits, n = _two_prompts(50, **UNGUARDED[guard])
    assert hits > stats.binom.ppf(1 - 1e-9, n, 0.5)


class _Chosen(FieldMasking):
    """Masks that are given: what the trusted side would have drawn with the same chance as any other."""

    def __init__(self, r: Tensor, weights: Tensor) -> None:
        super().__init__(WIDE)
        self._chosen = Masks(0, r, WIDE.product(r, weights))

    def take(self, product: int, rows: int) -> Masks:
        return self._chosen


def test_the_same_messages_fit_any_activations_of_any_length() -> None:
    """The proof, carried out: for whatever is sent there are masks, as likely as others, under which it means ``a``.

    So that nothing that crosses, bit for bit, tells of a row or of its step.
    """
    boundary = Boundary()
    generator = torch.Generator().manual_seed(0)
    with deployed(random_bundle("llama"), boundary) as deployment:
        rounds, number = deployment.rounds, 3
        point, weights = rounds._points[number], deployment.parts.exposed[number].weights
        sent = torch.randint(0, WIDE.prime, (4, point.width), generator=generator)
        seen, found = set(), []
        for length in (0.0, 1e-6, 1.0, 3375.0, 1e6):
            a = length * torch.randn(4, point.width, generator=generator)
            rounds.masking = _Chosen(WIDE.sub(sent, point.encode(a).x), weights)
            boundary.begin()
            y = rounds.run(number, a)
            seen.add(boundary.received_by_untrusted())
            found.append(float(y.norm()))
            whole = random_bundle("llama").model.get_submodule("model.layers.0.mlp.down_proj").weight
            assert torch.allclose(y, a @ whole.T, rtol=1e-3, atol=1e-5 * length)
    assert len(seen) == 1
    assert found == sorted(found)


def test_in_strict_no_float_crosses_to_the_device_and_none_comes_back_but_embeddings() -> None:
    boundary = Boundary()
    bundle = random_bundle("llama")
    with deployed(bundle, boundary) as deployment:
        deployment.generate(Prompt("p", "", (7, 8, 9)), 3)
        messages = boundary.view(deployment.shows).messages
    floats = [m for _, m in messages if any(isinstance(v, Tensor) and v.is_floating_point() for v in vars(m).values())]
    assert {type(m) for m in floats} == {HiddenStates}
    shown = [m.ids.tolist() for _, m in messages if isinstance(m, PromptIds | Tokens)]
    embeddings = [m.hidden for m in floats if isinstance(m, HiddenStates)]
    for ids, hidden in zip(shown, embeddings, strict=False):
        assert torch.equal(hidden, bundle.embedding[torch.tensor(ids)])


def test_a_mask_is_never_used_twice() -> None:
    boundary = Boundary()
    with deployed(random_bundle("llama"), boundary) as deployment:
        seen: set[tuple[int, int]] = set()
        for _ in range(3):
            deployment.generate(Prompt("p", "", (7, 8, 9)), 3)
            for message in boundary.view(deployment.shows).of(MaskedInput):
                used = {(message.product, message.use + row) for row in range(len(message.x))}
                assert not used & seen
                seen |= used
    assert len(seen) == 3 * (16 * 5 + 3)
