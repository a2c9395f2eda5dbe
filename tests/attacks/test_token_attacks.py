"""Sanitised text and noised embeddings: recovered where the noise is small, not where the view is another's."""

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from attacks.base import Attack, Public
from attacks.prompts.bayes_token import BayesToken
from attacks.prompts.bayes_token.attack import Lattice, _best
from attacks.prompts.nearest_token import NearestToken
from attacks.prompts.vocab_matching.attack import VocabMatching
from attacks.text_context import MOST, Context, Pairs, weights
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt
from smd_research.data.reference import PythonReference
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import Defense, PublicText
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.dp_text import DpText
from smd_research.defenses.split import Split
from smd_research.mechanisms.privacy.channels import bundle_space
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel
from smd_research.models import Bundle, sources

Corpus = tuple[tuple[int, ...], ...]


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


@pytest.fixture(scope="module")
def secrets(embedded: Bundle) -> list[Prompt]:
    return tokenised(generate("mixed", "validation", 12, 0), embedded.tokenizer, 24, 0)


@pytest.fixture(scope="module")
def corpus(embedded: Bundle) -> Corpus:
    documents = generate("mixed", "train", 300, 1)
    return tuple(prompt.ids for prompt in tokenised(documents, embedded.tokenizer, 96, 0))


def observe(
    defense: Defense, bundle: Bundle, secrets: Sequence[Prompt], corpus: Corpus
) -> tuple[Public, list[AdversaryView]]:
    prepared = defense.prepare(bundle, PublicText(corpus))
    boundary, views = Boundary(), []
    with prepared.deploy(boundary) as deployment:
        for prompt in secrets:
            deployment.generate(prompt, 1)
            views.append(boundary.view(deployment.shows))
        return Public(bundle, "dp", prepared.parameters, corpus), views


def guesses(attack: Attack, public: Public, views: Sequence[AdversaryView]) -> list[Guess]:
    attack.fit(public)
    return [attack.recover(view, generator(0, "attack", i)) for i, view in enumerate(views)]


def accuracy(found: Sequence[Guess], secrets: Sequence[Prompt]) -> float:
    """Share of tokens recovered, the public first one left out."""
    hits = [a == b for g, p in zip(found, secrets, strict=True) for a, b in zip(g.ids[1:], p.ids[1:], strict=True)]
    return float(np.mean(hits))


def others(secrets: Sequence[Prompt]) -> list[Prompt]:
    """For each view, a prompt of the same kind that it does not belong to (kinds come in turn, three of them)."""
    return [*secrets[3:], *secrets[:3]]


@pytest.mark.parametrize("mechanism", ["santext", pytest.param("dchi", marks=pytest.mark.slow)])
def test_sanitised_text_is_recovered_by_channel_and_prior(
    embedded: Bundle, secrets: list[Prompt], corpus: Corpus, mechanism: str
) -> None:
    public, views = observe(DpText(mechanism, survival=0.5), embedded, secrets, corpus)
    modes = {mode: guesses(BayesToken(mode, beam=16), public, views) for mode in ("nearest", "bayes", "beam")}
    scores = {mode: accuracy(found, secrets) for mode, found in modes.items()}
    assert 0.35 < scores["nearest"] < 0.65
    assert scores["bayes"] >= scores["nearest"] - 0.01
    assert scores["beam"] > scores["nearest"] + 0.03
    crossed = accuracy(modes["beam"], others(secrets))
    assert crossed < 0.3 < scores["beam"]
    for guess, view in zip(modes["beam"], views, strict=True):
        assert len(guess.ids) == view.length
        assert all(row[0] == token for row, token in zip(guess.ranked, guess.ids, strict=True))
        assert guess.certified is None


@pytest.mark.parametrize("mode", ["nearest", "bayes", "beam"])
def test_a_large_epsilon_hides_nothing(embedded: Bundle, secrets: list[Prompt], corpus: Corpus, mode: str) -> None:
    public, views = observe(DpText(epsilon=100.0), embedded, secrets[:4], corpus)
    assert accuracy(guesses(BayesToken(mode), public, views), secrets[:4]) == 1.0


def test_a_tiny_epsilon_leaves_the_prior(embedded: Bundle, secrets: list[Prompt], corpus: Corpus) -> None:
    public, views = observe(DpText(epsilon=0.01), embedded, secrets, corpus)
    for mode in ("bayes", "beam"):
        found = guesses(BayesToken(mode, beam=4), public, views)
        assert accuracy(found, secrets) == pytest.approx(accuracy(found, others(secrets)), abs=0.1)
        assert accuracy(found, secrets) < 0.35


@pytest.mark.parametrize("epsilon", [1.0, 12.0, 30.0])
def test_the_best_of_bounds_are_the_best_of_all_and_few_inputs_are_settled(embedded: Bundle, epsilon: float) -> None:
    channel = ExponentialChannel(bundle_space(embedded), epsilon)
    seen = [5, 900, 2000]
    exact = torch.from_numpy(ExponentialChannel(channel.space, epsilon).log_likelihood(seen))
    likelihood = channel.likelihood(seen)
    prior = torch.from_numpy(np.log(generator(0, "prior").dirichlet(np.ones(channel.vocab_size), size=4)))
    for position, row in enumerate(exact):
        values, places = _best(likelihood, position, prior, 20)
        expected = (prior + row).reshape(-1).topk(20)
        assert torch.allclose(values, expected.values, rtol=1e-12)
        assert torch.equal(places, expected.indices)
    assert likelihood.settled.mean() < 0.5


def test_pairs_are_a_law_and_a_pair_left_out_is_judged_by_all_the_rest() -> None:
    corpus, vocab = [(1, 2, 3, 2, 3), (4, 2, 5), (2, 3, 0)], 7
    pairs = Pairs(corpus, vocab)
    for token in range(vocab):
        assert pairs.after(token).sum() == pytest.approx(1)
    assert pairs.after(2).argmax() == 3
    np.testing.assert_array_equal(pairs.after(6), pairs.single)
    before, after = np.array([2, 2, 6, 4]), np.array([3, 0, 5, 2])
    each = [pairs.after(one)[two] for one, two in zip(before, after, strict=True)]
    np.testing.assert_allclose(pairs.of(before, after), each)
    found, single = pairs.left_out(np.array([2, 1]), np.array([3, 2]))
    # after 2 stand 3, 3 (one of three left out) and 5: two kinds; token 3 is left in the corpus twice of ten
    assert single[0] == pytest.approx((3 - 1 + 1) / (11 - 1 + vocab))
    assert found[0] == pytest.approx((2 + 2 * single[0]) / (3 + 2))
    assert found[1] == single[1], "nothing else follows 1"


def test_weights_are_those_of_what_explains_best() -> None:
    rng = generator(0, "weights")
    good, bad = rng.uniform(0.3, 0.9, 200), np.full(200, 1e-4)
    assert weights(np.stack([bad, good, bad]), None)[1] > 0.99
    assert weights(np.stack([good, bad, bad]), None)[0] == MOST, "it may have read the corpus"
    given = weights(np.stack([good, bad, bad / 2]), 0.25)
    assert given[0] == 0.25
    assert given[1] > given[2]
    assert sum(given) == pytest.approx(1)


def test_a_model_made_for_other_text_is_not_trusted(embedded: Bundle, corpus: Corpus) -> None:
    shuffled = [tuple(generator(0, "order", i).permutation(one[:48]).tolist()) for i, one in enumerate(corpus)]
    own, other = Context(embedded, corpus), Context(embedded, shuffled)
    assert own.weights[0] == MOST
    assert other.weights[0] < 0.2
    tokens = torch.tensor([7, 900])
    model = torch.log_softmax(torch.zeros(2, embedded.geometry.vocab), dim=-1)
    assert torch.allclose(own.following(tokens, model).exp().sum(1), torch.ones(2), atol=1e-4)
    assert Context(embedded, ()).weights == (0.5, 0.0, 0.5)


def test_places_are_decided_by_all_readings_forwards_and_backwards() -> None:
    """Beside every reading of a hidden chain of five tokens, summed one by one."""
    rng = generator(0, "chain")
    start, step, seen = (np.log(rng.dirichlet(np.ones(5), size=n)) for n in (1, 5, 4))
    every, lattice, prior = torch.arange(5), Lattice(torch.zeros(1)), torch.from_numpy(start)
    for row in torch.from_numpy(seen):
        totals = torch.logsumexp(lattice.totals[:, None] + prior, 0) + row
        lattice.extend(every, totals, row, prior)
        prior = torch.from_numpy(step)
    shares = np.zeros((4, 5))
    for reading in product(range(5), repeat=4):
        steps = sum(step[a, b] for a, b in pairwise(reading))
        weight = np.exp(start[0, reading[0]] + steps + sum(seen[i, token] for i, token in enumerate(reading)))
        shares[range(4), reading] += weight
    assert lattice.likeliest() == np.argsort(-shares, axis=1).tolist()


@pytest.mark.slow
def test_bayes_dominates_the_text_as_it_stands_over_many_tokens(embedded: Bundle, corpus: Corpus) -> None:
    """With the right channel and a prior of the same text, no context-free guess does better on average."""
    secrets = tokenised(generate("mixed", "validation", 60, 3), embedded.tokenizer, 64, 0)
    for share in (0.05, 0.25):
        public, views = observe(DpText(survival=share), embedded, secrets, corpus)
        near, bayes = (accuracy(guesses(BayesToken(mode), public, views), secrets) for mode in ("nearest", "bayes"))
        assert bayes > near


def test_embeddings_are_plaintext(embedded: Bundle, secrets: list[Prompt]) -> None:
    public, views = observe(Split(0), embedded, secrets, ())
    found = guesses(NearestToken(), public, views)
    assert [guess.ids for guess in found] == [prompt.ids for prompt in secrets]
    assert all(guess.certified for guess in found)
    assert accuracy(found, others(secrets)) < 0.3


def test_a_row_that_has_a_twin_is_not_certified() -> None:
    bundle = sources.random("llama")
    with torch.no_grad():
        weight = bundle.model.get_input_embeddings().weight
        weight[4000] = weight[50]
    for ids, alone in (((7, 4000, 9), False), ((7, 50, 9), False), ((7, 51, 9), True)):
        public, views = observe(Split(0), bundle, [Prompt("p", "", ids)], ())
        assert guesses(NearestToken(), public, views)[0].certified == alone


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "opt"])
def test_positions_and_scales_of_the_embedding_are_taken_into_account(family: str) -> None:
    bundle = sources.random(family)
    ids = tuple(np.random.default_rng(0).integers(5, bundle.geometry.vocab, 20).tolist())
    public, views = observe(Split(0), bundle, [Prompt("p", "", ids)], ())
    assert guesses(NearestToken(), public, views)[0].ids == ids


def test_noised_embeddings(embedded: Bundle, secrets: list[Prompt], corpus: Corpus) -> None:
    public, views = observe(DpHidden(survival=0.5), embedded, secrets, corpus)
    near = guesses(NearestToken(), public, views)
    assert 0.35 < accuracy(near, secrets) < 0.65
    assert accuracy(near, others(secrets)) < 0.25
    assert all(guess.certified is None for guess in near)
    assert accuracy(guesses(VocabMatching(), public, views), secrets) > accuracy(near, secrets)
    public, views = observe(DpHidden(epsilon=1e4), embedded, secrets[:4], corpus)
    assert accuracy(guesses(NearestToken(), public, views), secrets[:4]) == 1.0


def test_text_that_the_model_does_not_know_is_read_with_public_text_of_its_kind(embedded: Bundle) -> None:
    """A language model alone misleads there: with it, less is read than the nearest rows say."""
    manual = PythonReference()
    secrets = tokenised(manual.documents("evaluation", 12, 0), embedded.tokenizer, 24, 0)
    corpus = tuple(one.ids for one in tokenised(manual.documents("train", 128, 0), embedded.tokenizer, 96, 0))
    public, views = observe(DpHidden(survival=0.5), embedded, secrets, corpus)
    near = accuracy(guesses(NearestToken(), public, views), secrets)
    assert accuracy(guesses(VocabMatching(), public, views), secrets) > near + 0.05


@pytest.mark.parametrize(("defense", "reason"), [(Split(1), "of layer 1"), (Split(0, "sequence"), "permute=sequence")])
def test_states_it_cannot_read_are_not_applicable(embedded: Bundle, defense: Split, reason: str) -> None:
    with pytest.raises(NotApplicableError, match=reason):
        NearestToken().fit(Public(embedded, "split", defense.prepare(embedded).parameters))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"attack\.mode=viterbi is unknown"):
        BayesToken("viterbi")
    with pytest.raises(ConfigError, match=r"attack\.beam >= 1"):
        BayesToken(beam=0)
