"""What encoded text gives away of the substitution: to counts, to bigrams, to the public model, to a probe."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from keyed import Keyed, keyed, without_base
from numpy.typing import NDArray
from torch import Tensor

from attacks.attributes.attribute_probe import AttributeProbe
from attacks.base import KnownPairs, MappingAttack
from attacks.cryptanalysis.annealing import assigned, balanced
from attacks.cryptanalysis.auxiliary import auxiliary_texts
from attacks.cryptanalysis.bigrams import BigramModel, Puzzle, bigram_counts, unigram_counts
from attacks.cryptanalysis.ciphertext import read
from attacks.cryptanalysis.judging import Judge
from attacks.substitutions.body_likelihood import BodyLikelihood
from attacks.substitutions.combined import WAYS, Combined
from attacks.substitutions.decipherment import Decipherment
from attacks.substitutions.rank_frequency import RankFrequency
from attacks.substitutions.weight_diff import WeightDiff
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import MappingGuess
from smd_research.core.seeds import generator
from smd_research.models import sources
from smd_research.models.bundle import Bundle
from smd_research.models.tables import with_tables
from smd_research.models.unprompted import unprompted

VOCAB = 60
Texts = list[NDArray[np.int64]]


@cache
def model() -> Bundle:
    """With a small vocabulary."""
    whole = sources.random("llama")
    return with_tables(whole, whole.embedding[:VOCAB], None)


@cache
def language() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A Markov chain: Zipf's law, and six followers that each token likes."""
    rng = generator(0, "language")
    zipf = 1 / np.arange(1, VOCAB - 1)
    chain = 0.1 * np.tile(zipf / zipf.sum(), (VOCAB - 2, 1))
    for row in chain:
        liked = rng.choice(VOCAB - 2, 6, replace=False, p=zipf / zipf.sum())
        row[liked] += 0.9 * rng.dirichlet(np.ones(6))
    return chain.cumsum(axis=1) / chain.sum(axis=1, keepdims=True), np.arange(2, VOCAB)


def texts(count: int, seed: int) -> Texts:
    """Texts of 100 tokens in that language."""
    rng = generator(seed, "texts")
    chain, ids = language()
    states = np.zeros((count, 100), dtype=np.int64)
    states[:, 0] = rng.integers(0, len(ids), count)
    for place in range(1, 100):
        states[:, place] = (rng.random(count)[:, None] > chain[states[:, place - 1]]).sum(axis=1)
    return list(ids[np.minimum(states, len(ids) - 1)])


@cache
def setting() -> Keyed:
    return keyed(model(), corpus=[text.tolist() for text in texts(200, 1)])


def solved(attack: MappingAttack, one: Keyed, plain: Sequence[NDArray[np.int64]]) -> float:
    """Share of running tokens read right."""
    attack.fit(one.public)
    found = attack.solve([one.view(text) for text in plain], np.random.default_rng(0))
    flat = np.concatenate(plain)
    cipher = np.argsort(one.truth)[flat]
    return float((found.mapping[cipher] == flat).mean())


def test_decipherment_reads_what_ranks_do_not() -> None:
    plain = texts(60, 2)
    ranks = solved(RankFrequency(), setting(), plain)
    read = solved(Decipherment(judged=0), setting(), plain)
    assert read > 0.95
    assert ranks < 0.7
    assert solved(Decipherment(judged=0, restarts=2, steps=6), setting(), plain) > 0.9


def test_text_in_no_language_is_not_deciphered() -> None:
    """Negative control: the order within every text is lost, and the frequencies with it."""
    rng = generator(0, "noise")
    noise = [rng.integers(2, VOCAB, 100) for _ in range(30)]
    for attack in (RankFrequency(), Decipherment(judged=0, steps=6)):
        assert solved(attack, setting(), noise) < 0.15


def test_auxiliary_text_of_another_kind_says_less() -> None:
    whole = sources.random("llama")
    one = keyed(whole, corpus=[(5, 6, 7)] * 4)
    attack = RankFrequency(auxiliary="reference", auxiliary_tokens=5000)
    attack.fit(one.public)
    assert attack.solve([one.view((5, 5, 6))], np.random.default_rng(0)).mapping.max() > 0


class Speaker(torch.nn.Module):
    """A model that knows the language of these tests."""

    def __init__(self) -> None:
        super().__init__()
        cumulative, ids = language()
        chain = torch.full((VOCAB, VOCAB), 1e-6)
        chain[np.ix_(ids, ids)] = torch.from_numpy(np.diff(cumulative, axis=1, prepend=0)).float()
        self.known = torch.nn.Parameter(chain.log(), requires_grad=False)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return torch.nn.Embedding(VOCAB, 64)

    def get_output_embeddings(self) -> torch.nn.Embedding:
        return self.get_input_embeddings()

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        assert not use_cache
        return SimpleNamespace(logits=self.known[input_ids])


def test_where_public_text_leads_astray_the_public_model_falls_back_on_ranks() -> None:
    """Public text of a language with the same words and another grammar: its bigrams are worse than its ranks."""
    plain, order = texts(60, 2), generator(0, "other grammar")
    other = [order.permutation(text) for text in np.split(np.concatenate(texts(200, 1)), 200)]
    reversed_pairs = [np.sort(text) for text in other]
    speaker = replace(model(), model=Speaker())
    one = keyed(model(), corpus=[text.tolist() for text in reversed_pairs])
    one = replace(one, public=replace(one.public, base=speaker))
    ranks = solved(RankFrequency(), one, plain)
    astray = solved(Decipherment(judged=0), one, plain)
    assert astray < ranks, "or this shows nothing"
    assert solved(Decipherment(), one, plain) >= ranks


def test_the_public_body_reads_what_ranks_do_not_if_it_knows_the_language() -> None:
    plain, one = texts(60, 2), setting()
    ranks = solved(RankFrequency(), one, plain)
    knows = replace(one, public=replace(one.public, base=replace(model(), model=Speaker())))
    assert solved(BodyLikelihood(), knows, plain) > ranks + 0.08
    noise = [generator(0, "noise").integers(2, VOCAB, 100) for _ in range(30)]
    assert solved(BodyLikelihood(), knows, noise) < 0.15, "negative control: text in no language"


def test_the_model_s_own_writing_serves_as_public_text() -> None:
    one = keyed(model())
    found = auxiliary_texts(one.public, "model", 500)
    written = unprompted(model(), 500)
    assert 500 <= sum(map(len, found)) < 700
    assert all(np.array_equal(a, b) for a, b in zip(found, written, strict=False))
    with pytest.raises(NotApplicableError, match="public model"):
        RankFrequency(auxiliary="model").fit(without_base(one))


def test_the_likelihood_and_its_gradient_agree_with_bigrams_counted_by_hand() -> None:
    one, plain = setting(), texts(5, 3)
    bigrams = BigramModel.of(texts(20, 1), VOCAB)
    cipher_of = np.argsort(one.truth)
    none = KnownPairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    puzzle = Puzzle.of([cipher_of[text] for text in plain], bigrams, none, VOCAB, 3.0)
    right = one.truth[puzzle.types]
    log_q = np.log(bigrams.unigram)[None] + bigrams.back_off[:, None] + bigrams.excess.toarray()
    np.testing.assert_allclose(np.exp(log_q).sum(axis=1), 1, atol=0.2)
    by_hand = sum(bigrams.excess.toarray()[a, b] for text in plain for a, b in pairwise(text))
    own = float(puzzle.prior[np.arange(len(right)), right].sum())
    assert puzzle.likelihood(right) == pytest.approx(own + by_hand, rel=1e-4)
    soft = np.zeros_like(puzzle.prior)
    soft[np.arange(len(right)), right] = 1
    gradient = puzzle.gradient(soft)
    np.testing.assert_allclose(puzzle.prior + sum(puzzle.beside(right)), gradient, rtol=1e-4, atol=1e-3)
    unread = np.where(np.arange(len(right)) == 0, -1, right)
    soft[0] = 0
    np.testing.assert_allclose(puzzle.prior + sum(puzzle.beside(unread)), puzzle.gradient(soft), rtol=1e-4, atol=1e-3)
    moved = right.copy()
    lone = int(np.flatnonzero(np.asarray(puzzle.bigrams.diagonal()) == 0)[-1])
    moved[lone] = right[0]
    change = puzzle.likelihood(moved) - puzzle.likelihood(right)
    assert gradient[lone, right[0]] - gradient[lone, right[lone]] == pytest.approx(change, abs=0.05)


def test_assignments_keep_to_capacity_and_to_what_is_known() -> None:
    rng = generator(0, "scores")
    scores = rng.standard_normal((5, 6)).astype(np.float32)
    fixed = np.array([-1, -1, 3, -1, -1])
    capacity = np.ones(6, dtype=np.float32)
    soft = balanced(scores, capacity, fixed)
    assert soft[2, 3] == pytest.approx(1, abs=1e-3)
    assert (soft.sum(axis=0) <= 1.001).all()
    chosen = assigned(scores, capacity, fixed)
    assert chosen[2] == 3
    assert len(set(chosen.tolist())) == 5
    two = np.array([2, 2, 1, 1, 0, 0], dtype=np.float32)
    assert np.bincount(assigned(scores, two, fixed), minlength=6).max() <= 2


def test_the_judge_prefers_the_text_that_the_model_wrote() -> None:
    """Greedy text of the model itself, read rightly and under another mapping."""
    one = setting()
    rng = generator(0, "written")
    written = [np.tile(rng.integers(2, VOCAB, 2), 20) for _ in range(4)]
    cipher_of = np.argsort(one.truth)
    encoded = [cipher_of[text] for text in written]
    judge = Judge(model(), encoded, 100)
    reading = judge.read(one.truth, np.unique(np.concatenate(encoded)))
    assert reading.likelihood == pytest.approx(Judge(model(), encoded, 100).likelihood(one.truth), abs=1e-5)
    spent = judge.spent
    assert judge.likelihood(one.truth) == reading.likelihood
    assert judge.spent == spent  # it remembers
    assert judge.likelihood(np.roll(one.truth, 1)) < reading.likelihood
    assert reading.occurrences.sum() == pytest.approx(3 * 39)
    own = reading.expected[np.arange(len(reading.expected))]
    assert own.shape == (len(reading.occurrences), VOCAB)
    assert (own <= 0).all()


def test_the_whole_battery_runs_on_little() -> None:
    one = setting()
    views = [one.view(text[:10]) for text in texts(2, 4)]
    for attack in (Decipherment(steps=2), BodyLikelihood(judged=2), Combined()):
        attack.fit(one.public)
        found = attack.solve(views, np.random.default_rng(0))
        assert len(found.mapping) == VOCAB
        assert found.residual is not None
        guess = read(views[0], attack.solve(views[:1], np.random.default_rng(0)))
        assert len(guess.ids) == 10


def test_ids_in_clear_are_seen_as_such() -> None:
    """Where vertical operators alone protect the table, the text needs no deciphering."""
    one, plain = setting(), texts(20, 5)
    public = replace(one.public, base=replace(model(), model=Speaker()))
    attack = Combined()
    attack.fit(public)
    clear = replace(one, truth=np.arange(VOCAB))
    found = attack.solve([clear.view(text) for text in plain], np.random.default_rng(0))
    assert found.readable
    assert found.certified is None, "what reads well is not proved"
    assert found.facts["won"] == WAYS.index("in_clear")
    assert found.mapping.tolist() == list(range(VOCAB))
    coded = attack.solve([one.view(text) for text in plain], np.random.default_rng(0))
    assert coded.facts["won"] != WAYS.index("in_clear")


def test_tables_that_agree_are_believed_whatever_the_text_is_about() -> None:
    """Text in no language: a judge of texts would choose the mapping that makes it look like public text."""
    bundle = sources.random("llama")
    corpus = [text.tolist() for text in texts(100, 1)]
    rng = generator(0, "noise")
    noise = [rng.integers(2, bundle.geometry.vocab, 100) for _ in range(20)]
    one = keyed(bundle, corpus, noise=0.5)
    one = replace(
        one, public=replace(one.public, bundle=with_tables(one.public.bundle, one.public.bundle.embedding, None))
    )
    attack = Combined()
    attack.fit(one.public)
    found = attack.solve([one.view(text) for text in noise], np.random.default_rng(0))
    assert one.recovered(found) > 0.95
    assert found.facts["won"] == WAYS.index("table_matching")
    assert not found.readable, "a model without a language tells nothing by it"
    assert not found.certified


def test_rows_that_moved_name_the_tokens_that_were_used() -> None:
    one = setting()
    table = one.public.bundle.embedding.clone()
    used = [7, 9, 30]
    table[used] += 0.01
    tuned = with_tables(one.public.bundle, table * 0.999, None)
    public = type(one.public)(tuned, "shaking", {}, one.public.corpus, base=model(), before=one.public.bundle)
    attack = WeightDiff()
    attack.fit(public)
    found = attack.solve([], np.random.default_rng(0))
    assert found.sure is not None
    assert np.flatnonzero(found.sure).tolist() == used
    assert found.facts["rows_moved"] == pytest.approx(3 / VOCAB)
    with pytest.raises(NotApplicableError, match="frozen"):
        WeightDiff().fit(type(one.public)(one.public.bundle, "shaking", {}, before=one.public.bundle))
    with pytest.raises(NotApplicableError, match="not tuned"):
        WeightDiff().fit(one.public)


@pytest.mark.parametrize("features", ["ids", "embeddings", "both"])
def test_an_attribute_is_read_off_encoded_records_without_decryption(features: str) -> None:
    one, rng = setting(), generator(0, "records")
    label = rng.integers(0, 2, 120)
    shares = np.where(label[:, None] == 0, 0.3, 0.7)
    half = (rng.random((120, 20)) < shares).astype(np.int64)
    records = list(np.argsort(one.truth)[rng.integers(2, 31, (120, 20)) + 29 * half])
    told = np.where(np.arange(120) < 60, label, -1)
    attack = AttributeProbe(features=features)
    attack.fit(one.public)
    found = attack.probe(records, told)
    assert (found[:60] == label[:60]).all()
    assert (found[60:] == label[60:]).mean() > 0.75
    shuffled = attack.probe(records, np.where(told >= 0, rng.permutation(label), -1))
    assert 0.2 < (shuffled[60:] == label[60:]).mean() < 0.8, "negative control: labels that say nothing"
    with pytest.raises(NotApplicableError, match="fewer than two"):
        attack.probe(records, np.full(120, -1))


def test_what_cannot_be_run_is_named() -> None:
    for made in (
        lambda: RankFrequency(auxiliary="novel"),
        lambda: RankFrequency(auxiliary_tokens=0),
        lambda: Decipherment(steps=0),
        lambda: BodyLikelihood(judged=0),
        lambda: Combined(known=-1),
        lambda: AttributeProbe(known=1),
        lambda: AttributeProbe(features="colour"),
    ):
        with pytest.raises(ConfigError):
            made()
    with pytest.raises(NotApplicableError, match="public text"):
        Decipherment().fit(keyed(model()).public)
    for attack in (BodyLikelihood(), Combined()):
        with pytest.raises(NotApplicableError, match="public model"):
            attack.fit(without_base(setting()))


def test_counts_do_not_cross_from_one_text_to_the_next() -> None:
    found = bigram_counts([np.array([1, 2]), np.array([2, 3]), np.array([4])], 5)
    assert found.sum() == 2
    assert found[1, 2] == found[2, 3] == 1
    assert unigram_counts([np.array([1, 2]), np.array([2])], 4).tolist() == [0, 1, 2, 0]
    assert isinstance(MappingGuess(np.zeros(1, dtype=np.int64)).score, type(None))
