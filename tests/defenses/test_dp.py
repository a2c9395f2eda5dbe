"""Noised text and noised states: what crosses, what is promised, and what does not move."""

import math

import numpy as np
import pytest
import torch

from smd_research.boundary import Boundary
from smd_research.boundary.messages import HiddenStates, PromptIds
from smd_research.boundary.session import TRANSPORTS
from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Defense
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.dp_text import DpText
from smd_research.mechanisms.privacy.channels import TOKEN_MECHANISMS, TokenMechanism
from smd_research.mechanisms.privacy.gaussian import CALIBRATIONS, clip_rows, gaussian_delta
from smd_research.models import Bundle, sources
from smd_research.models.attention import LocalAttention
from smd_research.models.decoding import plain_greedy, plain_logits
from smd_research.models.extension import ExtensionEngine
from smd_research.models.hooked import HookedModel


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


def _ids(bundle: Bundle, seed: int, rows: int) -> tuple[int, ...]:
    drawn = torch.randint(5, bundle.geometry.vocab, (rows,), generator=torch.Generator().manual_seed(seed)).tolist()
    return (0, *drawn[1:])


def _sent_ids(defense: Defense, bundle: Bundle, ids: tuple[int, ...], seed: int = 0) -> list[list[int]]:
    """Ids the provider received in two requests for the same prompt."""
    boundary, received = Boundary(), []
    with defense.prepare(bundle, seed=seed).deploy(boundary) as deployment:
        for _ in range(2):
            deployment.generate(Prompt("p", "", ids), 2)
            received.append(boundary.view(deployment.shows).of(PromptIds)[0].ids.tolist())
    return received


@pytest.mark.parametrize("mechanism", ["santext", "dchi"])
def test_text_is_sanitised_afresh_by_seed_and_special_tokens_stay(llama: Bundle, mechanism: str) -> None:
    ids = _ids(llama, 1, 60)
    first, second = _sent_ids(DpText(mechanism, survival=0.3), llama, ids)
    assert first[0] == second[0] == 0
    assert first != second
    assert len(first) == len(ids)
    assert 0.05 < np.mean([a == b for a, b in zip(first[1:], ids[1:], strict=True)]) < 0.6
    assert not set(first[1:]) & llama.special_ids
    assert _sent_ids(DpText(mechanism, survival=0.3), llama, ids) == [first, second]
    assert _sent_ids(DpText(mechanism, survival=0.3), llama, ids, seed=1)[0] != first


@pytest.mark.parametrize("mechanism", TOKEN_MECHANISMS)
def test_every_mechanism_serves_what_it_made_of_the_text(llama: Bundle, mechanism: TokenMechanism) -> None:
    """None is switched off where it is served, and what is not promised is not said to be."""
    ids, defense = _ids(llama, 5, 60), DpText(mechanism, epsilon=2.5)
    first, second = _sent_ids(defense, llama, ids)
    assert first[0] == second[0] == 0
    assert first != second
    assert list(ids) not in (first, second)
    promise = defense.prepare(llama).guarantee
    assert promise is not None
    assert (promise.notion == "heuristic") == (mechanism == "rantext")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_answer_is_that_of_the_sanitised_prompt(llama: Bundle, transport: str) -> None:
    ids, boundary = _ids(llama, 2, 20), Boundary(transport)
    with DpText(epsilon=5.0).prepare(llama).deploy(boundary) as deployment:
        answer = deployment.generate(Prompt("p", "", ids), 6).ids
        view = boundary.view(deployment.shows)
    sanitised = tuple(view.of(PromptIds)[0].ids.tolist())
    assert sanitised != ids
    assert answer == plain_greedy(llama, sanitised, 6)
    assert view.shows >= {Observable.SANITISED_IDS}
    assert Observable.TOKEN_IDS not in view.shows


def test_a_huge_epsilon_changes_no_token(llama: Bundle) -> None:
    ids = _ids(llama, 3, 30)
    with DpText(epsilon=1e4).prepare(llama).deploy(Boundary()) as deployment:
        got = deployment.score(ids, (7, 8, 9))
    torch.testing.assert_close(got, plain_logits(llama, ids, (7, 8, 9)), atol=1e-4, rtol=1e-4)


def test_survival_follows_the_public_corpus(llama: Bundle) -> None:
    defense = DpText(survival=0.5)
    everywhere = defense.channel(llama)
    channel = defense.channel(llama, [(7, 7, 7, 9)])
    assert channel.epsilon != everywhere.epsilon
    assert 0.75 * channel.survival([7])[0] + 0.25 * channel.survival([9])[0] == pytest.approx(0.5, abs=1e-6)
    assert DpText(epsilon=3.0, survival=0.5).channel(llama).epsilon == 3.0


def test_the_promise_of_text_is_printed_with_its_composition(llama: Bundle) -> None:
    prepared = DpText(epsilon=5.0).prepare(llama)
    kept = {name: value for name, value in prepared.published().items() if isinstance(value, str | int | float)}
    assert kept == {"mechanism": "santext", "epsilon": 5.0, "space": "unit"}
    promise = prepared.guarantee
    assert promise is not None
    assert promise.epsilon == 5.0
    assert "a prompt of n tokens" in str(promise)


def _messages(defense: DpHidden, bundle: Bundle, ids: tuple[int, ...]) -> tuple[list[torch.Tensor], tuple[int, ...]]:
    boundary = Boundary()
    with defense.prepare(bundle).deploy(boundary) as deployment:
        generated = deployment.generate(Prompt("p", "", ids), 4).ids
        return [message.hidden for message in boundary.view(deployment.shows).of(HiddenStates)], generated


def test_embedding_rows_are_clipped_and_noised_and_rows_of_public_tokens_are_not(llama: Bundle) -> None:
    ids = _ids(llama, 4, 40)
    defense = DpHidden(layer=0, epsilon=20.0)
    messages, generated = _messages(defense, llama, ids)
    mechanism = defense.mechanism(llama)
    table = ExtensionEngine(llama, 0).embedded(0)
    noise = messages[0] - clip_rows(table[list(ids)], mechanism.clip)
    assert float(noise.std()) == pytest.approx(mechanism.sigma(1), rel=0.05)
    for row, token in zip(messages[1:], generated, strict=False):
        torch.testing.assert_close(row[0], table[token])
    assert gaussian_delta(float(noise.std()), 20.0, 2 * mechanism.clip) == pytest.approx(1e-5, rel=2.0)


def test_deeper_every_message_is_clipped_as_a_whole_and_noised(llama: Bundle) -> None:
    ids = _ids(llama, 5, 40)
    defense = DpHidden(layer=2, epsilon=20.0, clip=1.5)
    messages, _ = _messages(defense, llama, ids)
    mechanism = defense.mechanism(llama)
    states = HookedModel(llama, None, 2).forward(LocalAttention(), torch.arange(40), ids=torch.tensor([ids]))[0]
    clipped = mechanism.clipped(states)
    assert float(clipped.norm()) <= 1.5 * 40**0.5 * (1 + 1e-5)
    assert float((messages[0] - clipped).std()) == pytest.approx(mechanism.sigma(40), rel=0.05)
    rows = torch.cat(messages[1:])
    assert float(rows.std()) > 0.5 * mechanism.sigma(1)
    assert mechanism.sigma(40) == pytest.approx(mechanism.sigma(1) * 40**0.5)


def test_clip_is_learnt_from_public_text_only(llama: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"defense\.clip=C"):
        DpHidden(layer=2, epsilon=8.0).mechanism(llama)
    assert DpHidden(layer=2, epsilon=8.0).mechanism(llama, [_ids(llama, 6, 20)]).clip > 0


def test_noise_that_vanishes_leaves_the_split_exact(llama: Bundle) -> None:
    ids = _ids(llama, 7, 20)
    with DpHidden(layer=1, epsilon=1e12, clip=1.0).prepare(llama).deploy(Boundary()) as deployment:
        got = deployment.score(ids, (7, 8, 9))
    torch.testing.assert_close(got, plain_logits(llama, ids, (7, 8, 9)), atol=1e-3, rtol=1e-3)


def test_the_share_of_surviving_rows_is_as_asked(llama: Bundle) -> None:
    mechanism = DpHidden(survival=0.5).mechanism(llama)
    table = clip_rows(ExtensionEngine(llama, 0).embedded(0).float(), mechanism.clip)
    released = mechanism.release(table, np.random.default_rng(0))
    found = torch.cdist(released, table).argmin(dim=1)
    assert float((found == torch.arange(len(table))).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_radial_noise_leaves_rows_unclipped_and_has_its_norm(llama: Bundle) -> None:
    ids = _ids(llama, 8, 60)
    defense = DpHidden("dchi", epsilon=30.0)
    messages, _ = _messages(defense, llama, ids)
    noise = messages[0] - ExtensionEngine(llama, 0).embedded(0)[list(ids)]
    width = llama.geometry.width
    assert float(noise.norm(dim=-1).mean()) == pytest.approx(width / 30.0, rel=0.1)
    assert defense.prepare(llama).published()["epsilon"] == 30.0


def test_noise_is_not_left_out_where_utility_is_measured(llama: Bundle) -> None:
    """Flaw 9: a defense that evaluates without its noise looks better than it is."""
    ids = _ids(llama, 9, 20)
    for defense in (DpHidden(epsilon=5.0), DpHidden(layer=1, epsilon=5.0, clip=1.0), DpHidden("dchi", epsilon=5.0)):
        with defense.prepare(llama).deploy(Boundary()) as deployment:
            got = deployment.score(ids, (7, 8, 9))
        assert float((got - plain_logits(llama, ids, (7, 8, 9))).abs().max()) > 1e-3


def test_a_released_calibration_states_what_it_gives(llama: Bundle) -> None:
    right, released = (DpHidden(epsilon=8.0, clip=1.0, calibration=how).prepare(llama) for how in CALIBRATIONS)
    assert right.guarantee is not None
    assert released.guarantee is not None
    assert (right.guarantee.epsilon, round(released.guarantee.epsilon, 1)) == (8.0, 19.1)
    assert released.mechanism.sigma(1) == pytest.approx(right.mechanism.sigma(1) / 2)
    whole = DpHidden(layer=1, epsilon=8.0, clip=1.0, calibration="released").prepare(llama).guarantee
    assert whole is not None
    assert whole.unit_epsilon is None  # the noise does not grow with what longer messages are allowed


def test_survival_places_the_noise_and_not_the_number_that_is_claimed(llama: Bundle) -> None:
    right, released = (DpHidden(survival=0.5, clip=3.0, calibration=how).mechanism(llama) for how in CALIBRATIONS)
    assert released.sigma(1) == pytest.approx(right.sigma(1), rel=1e-6)
    assert released.true_epsilon() == pytest.approx(right.epsilon, rel=1e-6)
    assert released.epsilon < right.epsilon


def test_the_promise_of_radial_noise_grows_with_the_distance(llama: Bundle) -> None:
    mechanism = DpHidden("dchi", survival=0.5).mechanism(llama)
    promise = mechanism.guarantee()
    assert (promise.notion, promise.epsilon) == ("metric-DP", mechanism.epsilon)
    table = ExtensionEngine(llama, 0).embedded(0)
    assert promise.unit_epsilon >= mechanism.epsilon * float(torch.cdist(table, table).max())
    released = table + torch.from_numpy(
        np.stack([mechanism.noise(1, np.random.default_rng(i))[0] for i in range(len(table))])
    )
    found = torch.cdist(released.float(), table).argmin(dim=1)
    assert float((found == torch.arange(len(table))).float().mean()) == pytest.approx(0.5, abs=0.06)


def test_the_promise_of_states(llama: Bundle) -> None:
    token, sequence = DpHidden(epsilon=8.0), DpHidden(layer=1, epsilon=8.0, clip=2.0)
    first, second = token.prepare(llama).guarantee, sequence.prepare(llama).guarantee
    assert first is not None
    assert second is not None
    assert (first.unit, second.unit) == ("token", "sequence")
    assert second.sensitivity == 4.0
    assert "n=16" in str(second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DpText("snow", epsilon=1.0), "mechanism=snow is unknown"),
        (lambda: DpText(survival=None), "defense.epsilon=E, or defense.survival=S"),
        (lambda: DpText(epsilon=0.0), "must be positive"),
        (lambda: DpText(survival=1.0), "between 0 and 1"),
        (lambda: DpText("rantext"), r"rantext needs defense\.epsilon=E"),
        (lambda: DpText("custext", set_size=1), r"defense\.set_size=1 is out of range"),
        (lambda: DpText("santext_plus", resampled=0.0), r"defense\.resampled=0 is out of range"),
        (lambda: DpHidden(layer=2, epsilon=1.0, unit="token"), "unsound at layer 2"),
        (lambda: DpHidden(layer=2), "needs defense.epsilon=E at layer 2"),
        (lambda: DpHidden(epsilon=-1.0), "defense.epsilon=-1 .*positive"),
        (lambda: DpText(epsilon=math.nan), "must be positive"),
        (lambda: DpHidden(survival=2.0), "defense.survival=2 .*between 0 and 1"),
        (lambda: DpHidden(clip=math.inf), "defense.clip=inf .*positive and finite"),
        (lambda: DpHidden(epsilon=1.0, clip=0.0), "clip=0 is out of range"),
        (lambda: DpHidden(epsilon=1.0, delta=1.0), "delta=1 is out of range"),
        (lambda: DpHidden(epsilon=1.0, unit="row"), "defense.unit=row is unknown"),
        (lambda: DpHidden(layer=1, epsilon=1.0, unit="row"), "defense.unit=row is unknown"),
        (lambda: DpText(epsilon=1.0, space="cosine"), "defense.space=cosine is unknown"),
        (lambda: DpHidden("snow"), "mechanism=snow is unknown"),
        (lambda: DpHidden(epsilon=1.0, calibration="half"), "calibration=half is unknown"),
        (lambda: DpHidden("dchi", layer=1, epsilon=1.0), "dchi promises nothing at layer 1"),
        (lambda: DpHidden("dchi", unit="sequence", epsilon=1.0), "dchi promises nothing at layer 0 with unit=sequence"),
        (lambda: DpHidden("dchi", epsilon=0.0), "defense.epsilon=0 .*positive"),
    ],
)
def test_what_promises_nothing_is_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        make()
