"""Hidden states are plaintext: every scheme, every cut; on another prompt's view nothing is learnt."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from attacks.base import Attack, Public
from attacks.baselines.prior import Prior
from attacks.baselines.random import Random
from attacks.prompts.vocab_matching.attack import VocabMatching
from attacks.prompts.vocab_matching.evidence import ScaledEvidence
from attacks.prompts.vocab_matching.noisy_states import MISFIT, NoisyStateSearch
from attacks.prompts.vocab_matching.public_states import clipping
from attacks.text_context import Context
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import ConfigError
from smd_research.core.wrapper import BARE, Wrapper
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import Defense, PublicText
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.split import PERMUTATIONS, Split
from smd_research.defenses.split_denoise import SplitDenoise
from smd_research.mechanisms.privacy.gaussian import GaussianParameters
from smd_research.models import Bundle, sources
from smd_research.models.extension import ExtensionEngine
from smd_research.models.token_lens import states_after

TOKENS, NOISED = 24, 12
TRIALS = 8
"""Documents on which the prior compares its answers."""


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


@pytest.fixture(scope="module")
def secrets(embedded: Bundle) -> list[Prompt]:
    return tokenised(generate("mixed", "validation", 4, 0), embedded.tokenizer, TOKENS, 0)


@pytest.fixture(scope="module")
def corpus(embedded: Bundle) -> tuple[tuple[int, ...], ...]:
    documents = generate("mixed", "train", 300, 1)
    return tuple(prompt.ids for prompt in tokenised(documents, embedded.tokenizer, 64, 0))


def _views(defense: Split, bundle: Bundle, secrets: list[Prompt]) -> tuple[list[AdversaryView], tuple[object, ...]]:
    views = []
    prepared = defense.prepare(bundle)
    with prepared.deploy(Boundary()) as deployment:
        for prompt in secrets:
            deployment.generate(prompt, 4)
            views.append(deployment.boundary.view(deployment.shows))
        return views, prepared.parameters


def _hits(guess: tuple[int, ...], truth: tuple[int, ...]) -> float:
    return float(np.mean([a == b for a, b in zip(guess[1:], truth[1:], strict=True)]))


@pytest.mark.parametrize("permute", PERMUTATIONS)
@pytest.mark.parametrize("layer", [0, 1, 5])
def test_every_prompt_is_read_back(embedded: Bundle, secrets: list[Prompt], layer: int, permute: str) -> None:
    views, parameters = _views(Split(layer, permute), embedded, secrets[:2])
    attack = VocabMatching()
    attack.fit(Public(embedded, "split", parameters))
    for view, prompt in zip(views, secrets, strict=False):
        guess = attack.recover(view, np.random.default_rng(0))
        assert guess.ids == prompt.ids
        assert guess.certified
        assert guess.spent.candidates < 0.5 * len(prompt.ids) * embedded.geometry.vocab
        assert all(ranked[0] == token for ranked, token in zip(guess.ranked, guess.ids, strict=True))


@pytest.mark.parametrize("permute", ["none", "both"])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_token_that_has_a_twin_is_not_certified(layer: int, permute: str) -> None:
    bundle = sources.random("llama")
    with torch.no_grad():
        weight = bundle.model.get_input_embeddings().weight
        weight[4000] = weight[50]
    for ids, alone in (((7, 4000, 9, 11), False), ((7, 50, 9, 11), False), ((7, 51, 9, 11), True)):
        (view,), parameters = _views(Split(layer, permute), bundle, [Prompt("p", "", ids)])  # type: ignore[arg-type]
        attack = VocabMatching()
        attack.fit(Public(bundle, "split", parameters))
        guess = attack.recover(view, np.random.default_rng(0))
        assert guess.certified == alone
        assert [50 if token == 4000 else token for token in guess.ids] == [50 if i == 4000 else i for i in ids]


@pytest.mark.parametrize(("permute", "share"), [("none", 0.2), ("sequence", 1.0)])
def test_a_lens_leaves_fewer_candidates_to_try(
    embedded: Bundle, secrets: list[Prompt], corpus: tuple[tuple[int, ...], ...], permute: str, share: float
) -> None:
    """Several positions are tried at once where rows are in order; elsewhere what one of the rows looks like is."""
    views, parameters = _views(Split(1, permute), embedded, secrets[:2])
    attack = VocabMatching()
    attack.fit(Public(embedded, "split", parameters, corpus))
    tried = []
    for lens in (attack._lens, None):
        attack._lens = lens
        guesses = [attack.recover(view, np.random.default_rng(0)) for view in views]
        assert [guess.ids for guess in guesses] == [prompt.ids for prompt in secrets[:2]]
        tried.append(sum(guess.spent.candidates for guess in guesses))
    assert tried[0] < share * tried[1]


@pytest.mark.parametrize("proposals", [1, 64])
def test_a_lens_that_names_none_costs_time_alone(embedded: Bundle, secrets: list[Prompt], proposals: int) -> None:
    views, parameters = _views(Split(1), embedded, secrets[:1])
    attack = VocabMatching(proposals=proposals)
    attack.fit(Public(embedded, "split", parameters))
    assert attack._lens is not None
    attack._lens = replace(attack._lens, directions=attack._lens.directions.flip(0))
    guess = attack.recover(views[0], np.random.default_rng(0))
    assert guess.ids == secrets[0].ids
    assert guess.certified


def test_tokens_that_are_public_are_taken_as_they_are(embedded: Bundle, secrets: list[Prompt]) -> None:
    """Where what is said to be public is wrong, the guess keeps it and is not certified."""
    views, parameters = _views(Split(1), embedded, secrets[:1])
    attack = VocabMatching()
    attack.fit(Public(embedded, "split", parameters))
    ids = secrets[0].ids
    for head, certified in ((ids[:4], True), ((*ids[:3], 7), False)):
        guess = attack.recover(replace(views[0], wrapper=Wrapper(head, ids[-2:])), np.random.default_rng(0))
        assert (guess.ids[:4], guess.ids[-2:]) == (head, ids[-2:])
        assert guess.certified == certified


def test_another_prompts_view_gives_another_prompt(embedded: Bundle, secrets: list[Prompt]) -> None:
    views, parameters = _views(Split(1), embedded, secrets)
    attack = VocabMatching()
    attack.fit(Public(embedded, "split", parameters))
    scores = [
        _hits(attack.recover(view, np.random.default_rng(0)).ids, prompt.ids)
        for view, prompt in zip(views, secrets[1:] + secrets[:1], strict=True)
    ]
    assert np.mean(scores) < 0.35  # templates share words; secrets do not


def test_states_of_another_model_are_not_certified(embedded: Bundle, secrets: list[Prompt]) -> None:
    other = sources.random("llama")
    views, parameters = _views(Split(1), other, secrets[:1])
    attack = VocabMatching()
    attack.fit(Public(sources.random("llama", seed=9), "split", parameters))
    guess = attack.recover(views[0], np.random.default_rng(0))
    assert not guess.certified
    assert _hits(guess.ids, secrets[0].ids) < 0.2


def test_a_16_bit_wire_changes_nothing(embedded: Bundle, secrets: list[Prompt]) -> None:
    for wire in ("fp16", "bf16"):
        views, parameters = _views(Split(3, "none", wire), embedded, secrets[:1])
        attack = VocabMatching()
        attack.fit(Public(embedded, "split", parameters))
        assert attack.recover(views[0], np.random.default_rng(0)).ids == secrets[0].ids


@pytest.mark.parametrize("layer", [0, 2])
def test_noise_of_known_scale_is_searched_with_the_language_model(
    embedded: Bundle, corpus: tuple[tuple[int, ...], ...], layer: int
) -> None:
    """A beam with the right likelihood and prior reads through moderate noise, and not through overwhelming noise."""
    secrets = tokenised(generate("mixed", "validation", 2, 0), embedded.tokenizer, NOISED, 0)
    views, parameters = _views(Split(layer), embedded, secrets)
    spread = float(views[0].messages[0][1].hidden.std())  # type: ignore[attr-defined]
    scores = {}
    for share in (0.5, 30.0):
        sigma = share * spread
        attack = VocabMatching()
        noise = GaussianParameters("token", epsilon=1.0, delta=1e-5, clip=math.inf, sigma=sigma)
        attack.fit(Public(embedded, "dp_hidden", (*parameters, noise), corpus))
        generator = torch.Generator().manual_seed(0)
        hits = []
        for view, prompt in zip(views, secrets, strict=True):
            states = view.messages[0][1].hidden  # type: ignore[attr-defined]
            noisy = states + sigma * torch.randn(states.shape, generator=generator)
            guess = attack._search(noisy, {}, Context(embedded, corpus))
            hits.append(_hits(guess.ids, prompt.ids))
        scores[share] = np.mean(hits)
    assert scores[0.5] > 0.9
    assert scores[30.0] < 0.5


def test_random_is_at_chance_and_prior_reads_no_message(
    embedded: Bundle, secrets: list[Prompt], corpus: tuple[tuple[int, ...], ...]
) -> None:
    views, parameters = _views(Split(1), embedded, secrets)
    blank = [AdversaryView((), view.shows, view.length, view.outputs) for view in views]
    attacks: list[Attack] = [Random(), Prior(trials=TRIALS)]
    for attack in attacks:
        attack.fit(Public(embedded, "split", parameters, corpus))
        for seen, empty in zip(views, blank, strict=True):
            one, two = (attack.recover(view, np.random.default_rng(3)) for view in (seen, empty))
            assert one == two
            assert len(one.ids) == TOKENS
    rng = np.random.default_rng(0)
    hits = [_hits(attacks[0].recover(view, rng).ids, p.ids) for view, p in zip(views * 20, secrets * 20, strict=True)]
    assert np.mean(hits) < 0.01


def test_the_prior_beats_chance(embedded: Bundle, secrets: list[Prompt], corpus: tuple[tuple[int, ...], ...]) -> None:
    views, parameters = _views(Split(1), embedded, secrets)
    prior = Prior(trials=TRIALS)
    prior.fit(Public(embedded, "split", parameters, corpus))
    hits = [
        _hits(prior.recover(view, np.random.default_rng(0)).ids, p.ids) for view, p in zip(views, secrets, strict=True)
    ]
    assert np.mean(hits) > 0.01


VECTORS: dict[str, tuple[Callable[[float], Defense], float, float]] = {
    "radial noise": (lambda epsilon: DpHidden("dchi", epsilon=epsilon), 1e3, 1.0),
    "rows clipped after the noise": (lambda epsilon: SplitDenoise(epsilon=epsilon, steps=0), 1e3, 1.0),
    "what was released for it": (lambda epsilon: SplitDenoise(epsilon=epsilon, steps=0, sampler="released"), 1e4, 1.0),
    "a message clipped as one": (lambda epsilon: DpHidden(unit="sequence", epsilon=epsilon), 1e6, 1.0),
    "and deeper": (lambda epsilon: DpHidden(layer=2, epsilon=epsilon), 1e6, 1.0),
}
"""Defenses by their epsilon, one at which matching must succeed, and one at which it must be at chance."""


@pytest.mark.parametrize("name", VECTORS)
def test_matching_knows_every_channel_of_noise_on_vectors(
    embedded: Bundle, corpus: tuple[tuple[int, ...], ...], name: str
) -> None:
    made, quiet, loud = VECTORS[name]
    secrets = tokenised(generate("mixed", "validation", 2, 0), embedded.tokenizer, NOISED, 0)
    scores = []
    for epsilon in (quiet, loud):
        prepared = made(epsilon).prepare(embedded, PublicText(corpus))
        attack = VocabMatching(beam=2, shortlist=80)
        attack.fit(Public(embedded, "noise", prepared.parameters, corpus))
        hits = []
        with prepared.deploy(Boundary()) as deployment:
            for prompt in secrets:
                deployment.generate(prompt, 1)
                guess = attack.recover(deployment.boundary.view(deployment.shows), np.random.default_rng(0))
                hits.append(_hits(guess.ids, prompt.ids))
        scores.append(float(np.mean(hits)))
    assert scores[0] > 0.95
    assert scores[1] < 0.25  # what the language model expects anyway


def test_a_shortlist_that_lacks_the_token_is_left_where_no_noise_explains_it(
    embedded: Bundle, corpus: tuple[tuple[int, ...], ...]
) -> None:
    """Under little noise what the shortlist lacks is found; the candidates that this took are counted."""
    (secret,) = tokenised(generate("mixed", "validation", 1, 0), embedded.tokenizer, NOISED, 0)
    prepared = DpHidden(layer=1, epsilon=1e7).prepare(embedded, PublicText(corpus))
    attack = VocabMatching(beam=1, shortlist=200)
    attack.fit(Public(embedded, "dp_hidden", prepared.parameters, corpus))
    with prepared.deploy(Boundary()) as deployment:
        deployment.generate(secret, 1)
        guess = attack.recover(deployment.boundary.view(deployment.shows), np.random.default_rng(0))
    assert guess.ids == secret.ids
    assert guess.spent.candidates >= 200 * (NOISED - 1)


def test_what_was_tried_in_vain_is_no_evidence(embedded: Bundle, corpus: tuple[tuple[int, ...], ...]) -> None:
    """Where no candidate at all explains the noise, the sums carried on are those of the reading, not of the trials."""
    (secret,) = tokenised(generate("mixed", "validation", 1, 0), embedded.tokenizer, NOISED, 0)
    states = states_after(embedded, 1, [torch.tensor(secret.ids)])[0].flip(-1)
    evidence = ScaledEvidence(sigma=1e-3, mean=1.0, spread=0.1)
    context, engine = Context(embedded, corpus), ExtensionEngine(embedded, 1)
    search = NoisyStateSearch(context, engine, evidence, beam=1, shortlist=80, inverse=None)
    guess = search.recover(states, {})
    own = states_after(embedded, 1, [torch.tensor(guess.ids)])[0]
    assert evidence.misfit > MISFIT
    assert float(evidence._along) == pytest.approx(float((own * states).sum()), rel=1e-3)
    assert float(evidence._energy) == pytest.approx(float(own.square().sum()), rel=1e-3)


@pytest.mark.parametrize("wrapper", [BARE, Wrapper((5, 6, 7), (8, 9))])
def test_what_is_clipped_of_a_message_is_told_by_public_messages_like_it(embedded: Bundle, wrapper: Wrapper) -> None:
    """As long, and in what a chat template puts around them; the state of the first row is unlike all others."""
    documents = tokenised(generate("mixed", "train", 60, 1), embedded.tokenizer, 100, 0)
    corpus, rows = tuple(one.ids for one in documents), 90
    public = Public(embedded, "dp_hidden", (), corpus, wrapper=wrapper)
    own = [wrapper.around(one[: rows - len(wrapper)]) for one in corpus]
    messages = states_after(embedded, 5, [torch.tensor(one) for one in own if len(one) == rows])
    factors = torch.stack([100 * rows**0.5 / one.norm() for one in messages])
    assert 1 < len(messages) < len(corpus)
    expected = float(factors.mean()), float(factors.std())
    assert clipping(public, 5, 100.0, rows) == pytest.approx(expected, rel=1e-4)


def test_a_shortlist_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="shortlist=1 is out of range"):
        VocabMatching(shortlist=1)
