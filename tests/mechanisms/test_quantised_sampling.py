"""Fakes lie in the secret's bins, follow the law that is claimed, and bound the attacker as claimed."""

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from smd_research.core.errors import ConfigError, PromptError
from smd_research.core.seeds import generator
from smd_research.data.prompts import TokenSpan
from smd_research.mechanisms.decoys import quantised_sampling
from smd_research.mechanisms.decoys.prompt_reader import PromptReader
from smd_research.mechanisms.decoys.quantised_sampling import (
    _class_masses,
    canonical,
    draw_secret,
    sample,
    weigh,
    weigh_by_widenings,
)
from smd_research.mechanisms.decoys.quantiser import METRICS, Quantiser, claimed_bound, ratio_bound
from smd_research.models import Bundle, sources

ONE = (TokenSpan(6, 7, "name"),)
TWO = (TokenSpan(6, 9, "name"), TokenSpan(12, 14, "date"))
probabilities = st.floats(1e-6, 1.0)


@cache
def _llama() -> Bundle:
    return sources.random("llama")


@cache
def _embedded() -> Bundle:
    return sources.embedded()


@cache
def _ids() -> tuple[int, ...]:
    text = "Dear Dr Taylor, thank you for seeing Anna Kowalski, born on 4 May 1962, with a sore knee."
    return tuple(_embedded().tokenizer(text)["input_ids"])


def test_the_mass_of_a_context_is_the_mean_over_the_paths_that_were_drawn_in_it() -> None:
    """Three streams, two of one context: three paths of it and one of the other; a refused one has no mass."""
    context, streams = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1, 2])
    log_mass = torch.tensor([0.5, 0.25, 0.0, 0.125], dtype=torch.float64).log()
    masses = _class_masses(context, streams, log_mass).exp()
    assert masses.tolist() == pytest.approx([0.25, 0.25, 0.125])
    nothing = _class_masses(context, streams[:3], log_mass[:3])
    assert nothing.isfinite().all()
    assert float(nothing[2]) < -20


def _log_p(bundle: Bundle, ids: list[int], position: int) -> torch.Tensor:
    logits = bundle.model(input_ids=torch.tensor([ids[:position]])).logits[0, -1].double()
    logits[sorted(bundle.special_ids)] = -math.inf
    return torch.log_softmax(logits, -1)


@given(probabilities, st.sampled_from(METRICS), st.floats(0.01, 0.5), st.integers(0, 4))
def test_bins_are_the_released_ones_and_hold_the_secret_itself(
    p: float, metric: str, epsilon: float, level: int
) -> None:
    quantiser = Quantiser(metric, epsilon, widenings=4)  # type: ignore[arg-type]
    low, high = (float(edge[level, 0].exp()) for edge in quantiser.bins(torch.tensor([p], dtype=torch.float64).log()))
    width = quantiser.epsilons[level]
    if metric == "abs":
        assume(abs(p / width - round(p / width)) > 1e-9)  # at an edge rounding decides
        bottom = math.floor(p / width) * width + 1e-3
        assert (low, high) == (pytest.approx(bottom), pytest.approx(bottom + width))
        return
    assert low < p <= high * (1 + 1e-12)
    if metric == "rel":
        assert (low, high) == (pytest.approx(p * (1 - width)), pytest.approx(p * (1 + width)))
    else:
        assert low / high == pytest.approx(1 - width)


@given(probabilities, probabilities, st.floats(0.01, 0.5), st.integers(0, 4))
def test_sharing_a_cell_is_mutual_and_survives_widening(p: float, q: float, epsilon: float, level: int) -> None:
    quantiser = Quantiser("grid", epsilon, widenings=5)
    logs = torch.tensor([p, q], dtype=torch.float64).log()
    low, high = quantiser.bins(logs)
    inside = (logs.flip(0) > low) & (logs.flip(0) <= high)
    assert inside[level, 0] == inside[level, 1]
    assert inside[level + 1].all() or not inside[level].any()


@given(
    st.integers(1, 31), st.floats(0.01, 0.5), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=31), st.integers(1, 6)
)
def test_the_ratio_bound_caps_the_priors_posterior(fakes: int, epsilon: float, where: list[float], tokens: int) -> None:
    real = 1.0
    ratios = [(1 - epsilon) ** (tokens * share) for share in (where * fakes)[:fakes]]
    posterior = real / (real + sum(ratios))
    assert posterior <= ratio_bound(fakes, epsilon, tokens) + 1e-12


def test_the_ratio_bound_is_the_notes() -> None:
    assert [round(ratio_bound(7, 0.1, tokens), 3) for tokens in (1, 3, 5)] == [0.137, 0.164, 0.195]
    assert claimed_bound(7, 0.1) == pytest.approx(0.225)


@pytest.mark.parametrize("metric", METRICS)
def test_every_fake_token_is_in_the_bin_of_the_secrets(metric: str) -> None:
    bundle, ids = _embedded(), list(_ids())
    quantiser = Quantiser(metric, 0.3, fakes=3, widenings=5)  # type: ignore[arg-type]
    decoys = sample(bundle, ids, TWO, quantiser, np.random.default_rng(0))
    assert decoys.ids[0].tolist() == ids
    outside = [i for i in range(len(ids)) if not any(span.start <= i < span.end for span in TWO)]
    for fake in decoys.ids[1:].tolist():
        assert [fake[i] for i in outside] == [ids[i] for i in outside]
        for span, level in zip(TWO, decoys.widened, strict=True):
            assert level is not None
            for position in range(span.start, span.end):
                # a later span is judged in the fake's own context: its spans are drawn jointly
                own = _log_p(bundle, ids, position)[ids[position]]
                low, high = (edge[level, 0] for edge in quantiser.bins(own[None]))
                assert low - 1e-4 < _log_p(bundle, fake, position)[fake[position]] <= high + 1e-4
    for span in TWO:
        held = {tuple(row[span.start : span.end]) for row in decoys.ids.tolist()}
        assert len(held) == quantiser.fakes + 1


def _walked_one_by_one(
    reader: PromptReader, span: TokenSpan, quantiser: Quantiser, level: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The paths as they are defined: each read by itself, to the end of the span, whatever became of it."""
    rows = reader.rows
    streams = torch.arange(len(rows)).repeat(quantiser.tries)
    index = torch.cat([streams.new_zeros(1), streams])
    tried = reader.fork(index, rows[index].clone())
    log_mass = torch.zeros(len(streams), dtype=torch.float64)
    for position in range(span.start, span.end):
        tried.read_to(position)
        log_p = tried.log_p()
        low, high = (edge[level] for edge in quantiser.bins(log_p[0, rows[0, position]][None]))
        inside = ((log_p > low) & (log_p <= high))[1:]
        log_mass += torch.where(inside, log_p[1:].exp(), 0.0).sum(-1).log()
        total = torch.where(inside, quantiser.weight(log_p[1:]), 0.0).cumsum(-1)
        point = torch.as_tensor(rng.random((len(streams), 1))) * total[:, -1:]
        tried.rows[1:, position] = torch.searchsorted(total, point, right=True)[:, 0].clamp(max=total.shape[1] - 1)
    return streams, tried.rows[1:], log_mass


@pytest.mark.parametrize("metric", ["grid", "rel"])
def test_a_tree_of_paths_draws_what_paths_one_by_one_do_and_reads_less(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Narrow bins fail early, and the randomness goes on as if they had been walked to their end."""
    quantiser = Quantiser(metric, 0.05, fakes=3, tries=4, widenings=7)  # type: ignore[arg-type]
    read: list[int] = []
    feed = PromptReader.read_to

    def counted(reader: PromptReader, position: int) -> None:
        read.append(len(reader.rows) * max(position - reader._read, 0))
        feed(reader, position)

    monkeypatch.setattr(PromptReader, "read_to", counted)
    tree = sample(_embedded(), _ids(), TWO, quantiser, np.random.default_rng(2))
    in_tree = sum(read)
    read.clear()
    monkeypatch.setattr(quantised_sampling, "_attempts", _walked_one_by_one)
    alone = sample(_embedded(), _ids(), TWO, quantiser, np.random.default_rng(2))
    assert torch.equal(tree.ids, alone.ids)
    assert tree.widened == alone.widened
    assert max(level for level in tree.widened if level is not None) > 0
    torch.testing.assert_close(tree.weights.log_law, alone.weights.log_law, rtol=1e-4, atol=1e-4)
    assert in_tree < 0.7 * sum(read)


def test_one_reading_weighs_for_every_count_of_widenings() -> None:
    quantiser = Quantiser(fakes=2, widenings=3)
    rows = sample(_embedded(), _ids(), TWO, Quantiser(fakes=2, widenings=6), np.random.default_rng(0)).ids
    for steps, weights in enumerate(weigh_by_widenings(_embedded(), rows, TWO, quantiser)):
        alone = weigh(_embedded(), rows, TWO, Quantiser(fakes=2, widenings=steps))
        assert torch.equal(weights.log_law, alone.log_law)
        assert torch.equal(weights.log_prior, alone.log_prior)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_the_samplers_law_is_what_weigh_says(metric: str) -> None:
    """One fake of one token: drawn frequencies against the law in closed form (chi-square)."""
    bundle, ids, draws = _embedded(), list(_ids())[:8], 60
    own = _log_p(bundle, ids, 6)
    ids[6] = int(own.argsort(descending=True)[4])
    quantiser = Quantiser(metric, 0.6, fakes=1, tries=8, widenings=0)  # type: ignore[arg-type]
    low, high = (edge[0, 0] for edge in quantiser.bins(own[ids[6]][None]))
    members = [token for token in torch.nonzero((own > low) & (own <= high)).flatten().tolist() if token != ids[6]]
    rng = np.random.default_rng(1)
    drawn = Counter(int(sample(bundle, ids, ONE, quantiser, rng).ids[1, 6]) for _ in range(draws))
    assert set(drawn) <= set(members)
    law = {}
    for token in sorted(members, key=lambda token: -float(own[token]))[:12]:
        law[token] = math.exp(
            float(weigh(bundle, torch.tensor([ids, [*ids[:6], token, ids[7]]]), ONE, quantiser).log_law[0])
        )
    if len(members) <= 12:
        assert sum(law.values()) == pytest.approx(1.0, rel=1e-3)
    rest = 1 - sum(law.values())
    pairs = [(drawn[token], law[token] * draws) for token in law]
    pairs.append((draws - sum(drawn[token] for token in law), rest * draws))
    kept = [(seen, expected) for seen, expected in pairs if expected > 1]
    assert stats.chi2.sf(sum((seen - expected) ** 2 / expected for seen, expected in kept), len(kept)) > 1e-3


def test_bins_too_poor_are_widened_and_the_widest_are_refused() -> None:
    bundle, ids = _embedded(), _ids()
    narrow = Quantiser("grid", 1e-4, fakes=7, widenings=0)
    with pytest.raises(PromptError, match="fewer than 7 fakes") as caught:
        sample(bundle, ids, TWO, narrow, np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    wide = Quantiser("grid", 1e-4, fakes=7, widenings=16)
    levels = sample(bundle, ids, TWO, wide, np.random.default_rng(0)).widened
    assert all(level is not None and level > 0 for level in levels)


def test_a_repeated_secret_has_the_same_fakes_and_known_ones_are_used_again() -> None:
    bundle, ids = _embedded(), list(_ids())
    ids[12:15] = ids[6:9]
    spans = (TokenSpan(6, 9, "name"), TokenSpan(12, 15, "name"))
    quantiser = Quantiser(fakes=2, widenings=6)
    rows = sample(bundle, ids, spans, quantiser, np.random.default_rng(0))
    assert torch.equal(rows.ids[:, 6:9], rows.ids[:, 12:15])
    assert rows.widened[1] is None
    again = sample(bundle, ids, spans, quantiser, np.random.default_rng(9), {0: rows.ids[1:, 6:9].tolist()})
    assert torch.equal(again.ids, rows.ids)
    assert again.widened == (None, None)


def test_the_same_randomness_gives_the_same_fakes() -> None:
    one, two, other = (
        sample(_embedded(), _ids(), TWO, Quantiser(fakes=2, widenings=6), generator(seed, "po")).ids
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_secret_at_the_very_beginning_can_be_hidden() -> None:
    decoys = sample(_llama(), range(10, 20), (TokenSpan(0, 2, "name"),), Quantiser(fakes=3, widenings=6), generator(0))
    assert len({tuple(row[:2]) for row in decoys.ids.tolist()}) == 4


@pytest.mark.parametrize(
    ("spans", "match"),
    [
        ((), "marks no secret"),
        ((TokenSpan(5, 8, "a"), TokenSpan(7, 9, "b")), "in order and apart"),
        ((TokenSpan(5, 80, "a"),), "within"),
        ((TokenSpan(0, 2, "a"),), "special token"),
    ],
)
def test_what_cannot_be_hidden_is_refused(spans: tuple[TokenSpan, ...], match: str) -> None:
    with pytest.raises(PromptError, match=match):
        sample(_embedded(), _ids(), spans, Quantiser(), np.random.default_rng(0))


@pytest.mark.parametrize(
    "options", [{"metric": "cos"}, {"epsilon": 0.0}, {"epsilon": 1.0}, {"temperature": 0.0}, {"fakes": 0}, {"tries": 0}]
)
def test_values_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Quantiser(**options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_no_attacker_passes_the_posterior_and_only_the_grid_keeps_the_bound() -> None:
    """Secrets of one token from the sampler's own law: the best attacker meets the mean of the largest posterior."""
    bundle, fakes, prompts = _embedded(), 3, 48
    measured = {}
    for metric in METRICS:
        quantiser = Quantiser(metric, 0.2, fakes=fakes, widenings=0)  # type: ignore[arg-type]
        rng, hits, claims = np.random.default_rng(5), [], []
        while len(hits) < prompts:
            secret = draw_secret(bundle, _ids(), ONE, quantiser, rng)
            try:
                decoys = sample(bundle, secret, ONE, quantiser, rng)
            except PromptError:
                continue
            place = int(rng.integers(fakes + 1))
            rows = list(decoys.ids[1:])
            rows.insert(place, decoys.ids[0])
            posterior = weigh(bundle, torch.stack(rows), ONE, quantiser).posterior
            hits.append(int(posterior.argmax()) == place)
            claims.append(float(posterior.max()))
        measured[metric] = (float(np.mean(hits)), float(np.mean(claims)))
    slack = 3 * math.sqrt(0.25 / prompts)
    for success, posterior in measured.values():
        assert abs(success - posterior) < slack
    bound = claimed_bound(fakes, 0.2)
    assert measured["grid"][1] < ratio_bound(fakes, 0.2, 1)
    assert measured["rel"][1] > ratio_bound(fakes, 0.2, 1)
    assert measured["abs"][1] > bound


def test_fakes_are_written_as_the_tokenizer_writes_them() -> None:
    bundle, ids = _embedded(), _ids()
    fakes = sample(bundle, ids, TWO, Quantiser(fakes=5, widenings=6), np.random.default_rng(0)).ids
    assert canonical(bundle, fakes).all()
    loose = [
        sample(bundle, ids, TWO, Quantiser(fakes=5, widenings=6, canonical=False), np.random.default_rng(seed)).ids
        for seed in range(3)
    ]
    assert not canonical(bundle, torch.cat(loose)).all()


def test_a_secret_drawn_from_the_model_differs_in_its_spans_only() -> None:
    bundle, ids = _embedded(), _ids()
    drawn = draw_secret(bundle, ids, TWO, Quantiser(), np.random.default_rng(0))
    changed = {i for i, (one, two) in enumerate(zip(ids, drawn, strict=True)) if one != two}
    assert changed
    assert changed <= {i for span in TWO for i in range(span.start, span.end)}
    assert canonical(bundle, torch.tensor([drawn])).all()
