"""Rewriters: what they write follows the law that they publish, and their claim is held against it."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest
import torch

from smd_research.core.errors import ConfigError, PromptError
from smd_research.mechanisms.rewriting import worst_pair
from smd_research.mechanisms.rewriting.audit import audit_rewriter, hardest_audit
from smd_research.mechanisms.rewriting.masked import MaskedRewriter
from smd_research.mechanisms.rewriting.parameters import RewriteParameters, barred_tokens
from smd_research.mechanisms.rewriting.sampled import SampledRewriter
from smd_research.models import Bundle, sources
from smd_research.models.pair_reader import PairReader, ReaderShape

TEXT = (0, 7, 8, 9, 10, 11)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def reader(bundle: Bundle) -> PairReader:
    """Untrained: it already tends to what stands in the place."""
    torch.manual_seed(0)
    return PairReader(bundle.embedding, ReaderShape(32, 1, 4, 12)).eval().requires_grad_(False)


def sampling(bundle: Bundle, epsilon: float, **changed: object) -> SampledRewriter:
    parameters = RewriteParameters("sampling", epsilon, -0.2, 0.2, True, behind=(2,))
    made = replace(parameters, **changed).rewriter(bundle)
    assert isinstance(made, SampledRewriter)
    return made


def masked(bundle: Bundle, reader: PairReader, epsilon: float, **changed: object) -> MaskedRewriter:
    parameters = RewriteParameters("masked", epsilon, -0.2, 0.2, True, reader=reader)
    made = replace(parameters, **changed).rewriter(bundle)
    assert isinstance(made, MaskedRewriter)
    return made


def test_what_is_written_token_by_token_follows_the_law_of_the_whole(bundle: Bundle) -> None:
    """With a temperature near zero and no clip every draw is the likeliest token, given those before."""
    made = sampling(bundle, 1e9, clipped=False)
    sent = made.rewrite(TEXT, np.random.default_rng(0))
    assert (sent[0], len(sent)) == (0, len(TEXT))
    laws = made.log_laws(torch.tensor([TEXT]), sent)[0]
    assert laws.argmax(-1).tolist() == sent[1:]
    assert float(made.log_likelihood(torch.tensor([TEXT]), sent)[0]) == pytest.approx(0, abs=1e-6)


def test_how_many_tokens_are_written_follows_the_text_or_is_fixed(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    assert [len(sampling(bundle, 1.0).rewrite(TEXT[:n], rng)) for n in (3, 6)] == [3, 6]
    assert [len(sampling(bundle, 1.0, length=4).rewrite(TEXT[:n], rng)) for n in (3, 6)] == [5, 5]


def test_no_processor_of_the_model_touches_the_draw(bundle: Bundle) -> None:
    """Generation settings of a model often keep the likeliest few tokens, which breaks the promise."""
    settings = bundle.model.generation_config
    kept = {name: getattr(settings, name, None) for name in ("do_sample", "top_k", "top_p", "temperature")}
    plain = sampling(bundle, 1.0).rewrite(TEXT, np.random.default_rng(3))
    try:
        settings.update(do_sample=False, top_k=1, top_p=0.1, temperature=0.01)
        assert sampling(bundle, 1.0).rewrite(TEXT, np.random.default_rng(3)) == plain
    finally:
        settings.update(**kept)


@pytest.mark.parametrize("kind", ["sampling", "masked"])
def test_every_token_but_special_ones_is_possible_everywhere(bundle: Bundle, reader: PairReader, kind: str) -> None:
    made = sampling(bundle, 30.0) if kind == "sampling" else masked(bundle, reader, 30.0)
    laws = made.log_laws(torch.tensor([TEXT, TEXT[:1] * 1 + (90,) * 5]), TEXT)
    possible = torch.ones(made.vocab, dtype=torch.bool)
    possible[list(barred_tokens(bundle))] = False
    assert (laws.isfinite() == possible).all()
    assert float(laws[..., possible].min()) >= -15 - np.log(made.vocab)
    assert not set(made.rewrite(TEXT, np.random.default_rng(0))[1:]) & bundle.special_ids


def test_each_place_is_drawn_by_its_own_law(bundle: Bundle, reader: PairReader) -> None:
    made, texts = masked(bundle, reader, 5.0), torch.tensor([TEXT, (0, 20, 8, 9, 10, 11)])
    laws = made.log_laws(texts, TEXT)
    again = torch.stack([made.softmax.log_law(made.read(texts, torch.tensor([p]))[:, 0]) for p in range(1, 6)], 1)
    torch.testing.assert_close(laws, again, atol=1e-5, rtol=1e-5)
    likelihood = laws[:, torch.arange(5), torch.tensor(TEXT[1:])].sum(1)
    torch.testing.assert_close(made.log_likelihood(texts, TEXT), likelihood)
    assert not torch.allclose(laws[0, 4], laws[1, 4], atol=1e-9), "the context of a draw holds the whole text"


def test_tokens_that_pass_stand_still_and_are_never_drawn(bundle: Bundle, reader: PairReader) -> None:
    made = masked(bundle, reader, 0.1, passed=(8, 10))
    for seed in range(20):
        sent = made.rewrite(TEXT, np.random.default_rng(seed))
        assert (sent[0], sent[2], sent[4]) == (0, 8, 10)
        assert made.drawn(sent) == [1, 3, 5]


@pytest.mark.parametrize("kind", ["sampling", "masked"])
def test_the_claim_holds_with_the_clip_and_is_missed_without(bundle: Bundle, reader: PairReader, kind: str) -> None:
    def audit(clipped: bool, epsilon: float = 10.0) -> tuple[float, bool]:
        changed = {"clipped": clipped, "low": -0.05, "high": 0.05}
        made = (
            sampling(bundle, epsilon, **changed) if kind == "sampling" else masked(bundle, reader, epsilon, **changed)
        )
        texts = torch.tensor([TEXT, (0, 50, 51, 52, 53, 54), (0, 60, 61, 62, 63, 64)])
        found = hardest_audit(made, texts, bundle.special_ids, np.random.default_rng(0))
        assert (found.claimed, found.n > 1e4) == (epsilon, True)
        return found.measured, found.holds

    measured, holds = audit(clipped=True)
    assert holds
    assert 2.5 < measured <= 10
    measured, holds = audit(clipped=False)
    assert not holds
    assert measured > 10


@pytest.mark.parametrize("kind", ["sampling", "masked"])
def test_the_search_adds_to_what_given_texts_show(
    bundle: Bundle, reader: PairReader, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = torch.tensor([TEXT, (0, 50, 51, 52, 53, 54), (0, 60, 61, 62, 63, 64)])

    def measured(clipped: bool, rounds: int) -> float:
        monkeypatch.setattr(worst_pair, "_ROUNDS", rounds)
        made = (
            sampling(bundle, 10.0, clipped=clipped)
            if kind == "sampling"
            else masked(bundle, reader, 10.0, clipped=clipped)
        )
        return hardest_audit(made, texts, bundle.special_ids, np.random.default_rng(0)).measured

    assert measured(False, 80) > 1.1 * measured(False, 0)
    assert measured(True, 0) <= measured(True, 80) <= 10


@pytest.mark.parametrize("kind", ["sampling", "masked"])
def test_one_place_alone_has_the_logits_that_it_has_among_all(bundle: Bundle, reader: PairReader, kind: str) -> None:
    made = sampling(bundle, 5.0) if kind == "sampling" else masked(bundle, reader, 5.0)
    texts = torch.tensor([TEXT, (0, 50, 51, 52, 53, 54)])
    whole = made.logits(texts, TEXT)
    for row, place in enumerate(made.drawn(TEXT)):
        sent = (*TEXT[:place], *[77] * (len(TEXT) - place))
        torch.testing.assert_close(made.logits_at(texts, sent, place), whole[:, row], atol=1e-5, rtol=1e-5)


def test_a_text_that_passes_whole_is_certain(bundle: Bundle, reader: PairReader) -> None:
    """Special tokens alone, or with ``keep=public`` a text of frequent ones: nothing of it was drawn."""
    for made in (masked(bundle, reader, 5.0, passed=(7, 8)), sampling(bundle, 5.0)):
        text = (0, 7, 8) if isinstance(made, MaskedRewriter) else (0,)
        assert made.rewrite(text, np.random.default_rng(0)) == list(text)
        assert made.log_likelihood(torch.tensor([text, text]), text).tolist() == [0.0, 0.0]


def test_an_audit_names_the_largest_ratio(bundle: Bundle) -> None:
    made, texts = sampling(bundle, 5.0), torch.tensor([TEXT, (0, 50, 51, 52, 53, 54)])
    laws = made.log_laws(texts, TEXT)
    expected = float((laws[0] - laws[1]).nan_to_num(0).abs().max())
    assert audit_rewriter(made, texts, TEXT).measured == pytest.approx(expected)
    with pytest.raises(ConfigError, match="at least two"):
        audit_rewriter(made, texts[:1], TEXT)


def test_laws_that_no_prefix_changes_are_computed_once(
    bundle: Bundle, reader: PairReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = torch.tensor([TEXT, (0, 50, 51, 52, 53, 54)])
    for made, distinct in ((masked(bundle, reader, 10.0), 1), (sampling(bundle, 10.0), 13)):
        read: list[tuple[int, ...]] = []
        log_laws = type(made).log_laws
        monkeypatch.setattr(
            type(made),
            "log_laws",
            lambda self, part, sent, log_laws=log_laws, read=read: (
                read.append(tuple(sent)) or log_laws(self, part, sent)
            ),
        )
        found = hardest_audit(made, texts, bundle.special_ids, np.random.default_rng(0))
        assert len(read) == distinct + 1, "the last where the search ended"
        compared, rest = divmod(found.n, 5 * int(made.vocab - len(made.softmax.barred)))
        assert rest == 0
        assert compared in [13 * comb(texts, 2) + comb(texts + 2, 2) for texts in range(60)], (
            "after 13 prefixes and one"
        )
    laws = [masked(bundle, reader, 10.0).log_laws(texts, sent) for sent in ((0, 5, 5, 5, 5, 5), (0, 6, 7, 8, 9, 9))]
    assert torch.equal(*laws), "or once would not be enough"


def test_texts_that_do_not_fit_are_refused(bundle: Bundle, reader: PairReader) -> None:
    with pytest.raises(PromptError, match="longer than the 12 that the masked model reads"):
        masked(bundle, reader, 1.0).rewrite((5,) * 13, np.random.default_rng(0))
    context = bundle.geometry.context
    with pytest.raises(PromptError, match=f"more than the context of {context}"):
        sampling(bundle, 1.0).rewrite((5,) * (context // 2), np.random.default_rng(0))
