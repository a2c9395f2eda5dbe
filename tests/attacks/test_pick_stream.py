"""The judges of decoys: each finds the real stream where it must, and is at chance where it must be."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from streams import SHOWS, view_of

from attacks.base import Public
from attacks.prompts.pick_stream import repetition, termination
from attacks.prompts.pick_stream.attack import PickStream
from attacks.prompts.pick_stream.consistency import Consistency
from attacks.prompts.pick_stream.discriminator import Discriminator
from attacks.prompts.pick_stream.evidence import Witness
from attacks.prompts.pick_stream.features import luhn, valid
from attacks.prompts.pick_stream.language import DomainModel, ServedModel, of_tokens
from attacks.prompts.pick_stream.lineup import Lineup, verdict
from attacks.prompts.pick_stream.retokenisation import canonical
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import PartialAttention
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess
from smd_research.data.prompts import TokenSpan
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.mechanisms.decoys.quantised_sampling import draw_secret, sample
from smd_research.mechanisms.decoys.quantiser import Metric, Quantiser
from smd_research.metrics import JUDGES
from smd_research.models import sources
from smd_research.models.bundle import Bundle

SAMPLER = Quantiser("grid", 0.2, 1.0, fakes=3)


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return sources.random("llama")


def prompt(bundle: Bundle, text: str) -> list[int]:
    return list(bundle.tokenizer(text)["input_ids"])


def in_place_of(bundle: Bundle, text: str, words: Sequence[str]) -> list[list[int]]:
    """Prompts of one length, for words of one token each."""
    found = [prompt(bundle, text.format(word)) for word in words]
    assert len({len(ids) for ids in found}) == 1
    return found


def picked(attack: PickStream, view: AdversaryView, seed: int = 0) -> Guess:
    return attack.recover(view, np.random.default_rng(seed))


def fitted(bundle: Bundle, *judges: str, **options: int) -> PickStream:
    attack = PickStream(judges, **options)
    attack.fit(Public(bundle, "po", (SAMPLER,)))
    return attack


def tampered(prompts: list[list[int]], where: range, vocab: int, streams: int, seed: int) -> list[list[int]]:
    """The first prompt, and fakes of it with other tokens in the secret."""
    rng = np.random.default_rng(seed)
    fakes = [list(prompts[0]) for _ in range(streams)]
    for fake in fakes[1:]:
        fake[where.start : where.stop] = rng.integers(3, vocab, len(where)).tolist()
    return fakes


# -- the line-up -----------------------------------------------------------------------------------------------------


def test_a_lineup_differs_where_the_secrets_are() -> None:
    lineup = Lineup(torch.tensor([[1, 5, 6, 7, 8], [1, 9, 6, 7, 3], [1, 4, 2, 7, 8]]))
    assert lineup.spans == ((1, 3), (4, 5))
    assert lineup.first == 1
    assert lineup.values() == [(5, 6, 8), (9, 6, 3), (4, 2, 8)]
    assert Lineup(lineup.ids[:1]).spans == ()


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8))
def test_a_verdict_picks_a_most_probable_stream(weights: list[float]) -> None:
    made = verdict("joint", torch.tensor(weights), np.random.default_rng(0))
    assert sum(made.posterior) == pytest.approx(1)
    assert made.posterior[made.picked] == pytest.approx(max(made.posterior), rel=1e-3)


def test_ties_and_ignorance_are_broken_at_random() -> None:
    for weights in (torch.zeros(4), torch.full((4,), -torch.inf)):
        picks = [verdict("random", weights, np.random.default_rng(seed)).picked for seed in range(60)]
        assert set(picks) == {0, 1, 2, 3}
        assert verdict("random", weights, np.random.default_rng(0)).posterior == (0.25,) * 4


# -- language models -------------------------------------------------------------------------------------------------


def test_a_lineup_is_scored_as_its_prompts_are_alone(tiny: Bundle) -> None:
    ids = torch.randint(3, 4000, (3, 9), generator=torch.Generator().manual_seed(0))
    ids[:, :4], ids[:, 7:] = ids[0, :4], ids[0, 7:]
    lineup = Lineup(ids)
    found = of_tokens(ServedModel(tiny).predictions(lineup), lineup)[:, 1:]
    logits = tiny.model(input_ids=ids).logits[:, :-1]
    expected = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_domain_model_knows_the_domain_better(tiny: Bundle) -> None:
    corpus = [[7, 8, 9, 10, 11] * 4 for _ in range(20)]
    served = ServedModel(tiny)
    domain = DomainModel(corpus, served, tiny.geometry.vocab)
    assert domain.weight > 0.9, "an untrained model explains nothing"
    lineup = Lineup(torch.tensor([[7, 8, 9, 10], [7, 8, 50, 10]]))
    found = domain.of_tokens(of_tokens(served.predictions(lineup), lineup), lineup)
    assert float(found[0, 2] - found[1, 2]) > 5


# -- reading and judging from end to end -----------------------------------------------------------------------------


def test_all_streams_are_read_and_every_judge_answers(embedded: Bundle) -> None:
    document = tokenised(generate("mixed", "validation", 1), embedded.tokenizer, 16, 0)[0]
    made = sample(embedded, document.ids, document.spans, SAMPLER, np.random.default_rng(0))
    prompts = made.ids[[2, 0, 3, 1]].tolist()
    guess = picked(fitted(embedded, *JUDGES), view_of(embedded, [prompts], 12))
    assert [list(ids) for ids in guess.candidates] == prompts
    assert guess.certified
    assert [found.judge for found in guess.verdicts] == list(JUDGES)
    assert all(sum(found.posterior) == pytest.approx(1) for found in guess.verdicts)
    assert guess.ids == guess.candidates[guess.verdicts[0].picked]


def test_an_unlikely_fake_is_told_by_likelihood(embedded: Bundle) -> None:
    real = in_place_of(embedded, "The patient was seen on{} by", [" Monday"])
    prompts = tampered(real, range(len(real[0]) - 2, len(real[0]) - 1), 4096, 4, 3)[::-1]
    guess = picked(fitted(embedded, "likelihood", "likelihood_domain"), view_of(embedded, [prompts], 12))
    assert all(found.picked == 3 for found in guess.verdicts)
    assert guess.ids == tuple(real[0])


def test_fakes_of_the_secrets_own_likelihood_are_not(embedded: Bundle) -> None:
    quantiser = Quantiser("grid", 0.02, 1.0, 3, 2)
    ids = prompt(embedded, "NOTE\nFor: Beau\nPlease bring")
    made = sample(embedded, ids, [TokenSpan(5, 6, "name")], quantiser, np.random.default_rng(1))
    lineup = Lineup(made.ids)
    served = of_tokens(ServedModel(embedded).predictions(lineup), lineup)
    posterior = verdict("likelihood", served[:, lineup.differs].sum(1), np.random.default_rng(0)).posterior
    assert max(posterior) < 0.27


@pytest.mark.parametrize(
    ("text", "secret"),
    [("NOTE\nFor: Beau\nPlease bring my ticket", 11), ("Dear Mr Taylor,\nThank you for your letter", 8)],
)
def test_what_follows_a_secret_tells_what_its_likelihood_does_not(embedded: Bundle, text: str, secret: int) -> None:
    """The sampler reads the text before a span only, so its fakes need not fit the text behind it."""
    quantiser, ids = Quantiser("grid", 0.1, 1.0, 3), prompt(embedded, text)
    made = sample(embedded, ids, [TokenSpan(secret, secret + 1, "word")], quantiser, np.random.default_rng(0))
    served = ServedModel(embedded)
    evidence = Witness(embedded, served, DomainModel([], served, 4096), quantiser).evidence(Lineup(made.ids))
    assert float(torch.softmax(evidence.served.sum(1), 0)[0]) > 0.95
    assert float(torch.softmax(evidence.secrets(evidence.served), 0)[0]) < 0.5


def test_ids_that_no_tokenizer_writes_are_told(embedded: Bundle) -> None:
    ids = prompt(embedded, "The patient was seen on Monday by a nurse")
    word = embedded.tokenizer("Monday", add_special_tokens=False)["input_ids"]
    at = next(i for i in range(len(ids)) if embedded.decode([ids[i]]) == " Monday")
    spelt = [*ids[:at], *prompt(embedded, " ")[1:], *word, *ids[at + 1 :]]
    assert embedded.decode(spelt) == embedded.decode(ids)
    assert canonical(Lineup(torch.tensor([ids])), embedded.tokenizer).tolist() == [True]
    assert canonical(Lineup(torch.tensor([spelt])), embedded.tokenizer).tolist() == [False]
    cut = tokenised(generate("mixed", "validation", 40), embedded.tokenizer, 16, 0)
    assert bool(canonical(Lineup(torch.tensor([document.ids for document in cut])), embedded.tokenizer).all())


# -- what the construction gives away --------------------------------------------------------------------------------


def lineups_of(bundle: Bundle, count: int, streams: int = 4) -> list[tuple[list[list[int]], int]]:
    """Prompts with a secret of three tokens among fakes, and the index of the real one."""
    made = []
    for number, document in enumerate(tokenised(generate("mixed", "validation", count), bundle.tokenizer, 16, 0)):
        prompts = tampered([list(document.ids)], range(5, 8), bundle.geometry.vocab, streams, number)
        made.append(
            (prompts[1 : number % streams + 1] + prompts[:1] + prompts[number % streams + 1 :], number % streams)
        )
    return made


def consistency(bundle: Bundle, prompts: list[list[int]], view: AdversaryView) -> tuple[float, ...]:
    weights = Consistency(bundle, 3).weights(Lineup(torch.tensor(prompts)), view)
    return verdict("consistency", weights, np.random.default_rng(0)).posterior


@pytest.mark.parametrize("model", ["embedded", "tiny"])
def test_consistency_breaks_multiplexed_streams(model: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(model)
    for prompts, real in lineups_of(bundle, 6):
        posterior = consistency(bundle, prompts, view_of(bundle, [prompts], 3, real))
        assert posterior[real] > 0.95


@pytest.mark.parametrize("wire", [torch.float32, torch.float16, torch.bfloat16])
def test_streams_prefilled_in_full_are_all_consistent(embedded: Bundle, wire: torch.dtype) -> None:
    for prompts, _ in lineups_of(embedded, 3):
        view = rounded(view_of(embedded, [prompts], 3), wire)
        assert consistency(embedded, prompts, view) == pytest.approx((0.25,) * 4, abs=1e-6)


def rounded(view: AdversaryView, wire: torch.dtype) -> AdversaryView:
    messages = tuple(
        (way, dataclasses.replace(m, a=m.a.to(wire)) if isinstance(m, PartialAttention) else m)
        for way, m in view.messages
    )
    return dataclasses.replace(view, messages=messages)


def requests(fresh: bool, count: int, streams: int = 4) -> list[Lineup]:
    """The same secret in several requests, the order of the streams drawn anew."""
    rng = np.random.default_rng(0)
    ids = torch.randint(3, 4000, (streams, 6), generator=torch.Generator().manual_seed(1))
    ids[:, :2], ids[:, 4:] = ids[0, :2], ids[0, 4:]
    found = [Lineup(ids)]
    for number in range(1, count):
        others = ids.clone()
        if fresh:
            others[1:, 2:4] = torch.randint(
                3, 4000, (streams - 1, 2), generator=torch.Generator().manual_seed(number + 9)
            )
        found.append(Lineup(others[torch.from_numpy(rng.permutation(streams))]))
    return found


@pytest.mark.parametrize("streams", [2, 4, 8, 16])
def test_fresh_fakes_fall_to_intersection_within_three_requests(streams: int) -> None:
    weights, sure = repetition.weights(requests(True, 5, streams))
    assert int(weights.argmax()) == 0
    assert sure is not None
    assert sure <= 3


def test_sticky_fakes_do_not() -> None:
    weights, sure = repetition.weights(requests(False, 20))
    assert sure is None
    assert torch.allclose(weights, weights[:1].expand(4))
    assert repetition.weights(requests(True, 1))[1] is None


def test_requests_are_told_apart_in_one_view(tiny: Bundle) -> None:
    asked = [lineup.ids.tolist() for lineup in requests(True, 3)]
    view = view_of(tiny, asked, 2)
    alone = [view_of(tiny, [prompts], 2) for prompts in asked]
    for found, expected in zip(repetition.requests_of(view), alone, strict=True):
        assert found.outputs == expected.outputs
        assert len(found.messages) == len(expected.messages)
        assert found.length == 6


def test_intersection_reads_repeated_requests(embedded: Bundle) -> None:
    prompts = [sets[0] for sets in lineups_of(embedded, 1)]
    again = tampered([prompts[0][0]], range(5, 8), 4096, 4, 99)
    guess = picked(fitted(embedded, "intersection"), view_of(embedded, [prompts[0], again[::-1]], 12))
    assert guess.verdicts[0].picked == 0
    assert guess.verdicts[0].posterior[0] > 0.9


END = 1


def test_a_stream_that_stops_the_others_is_the_real_one() -> None:
    cut = [(5, 6, 7), (5, 9, END), (4, 4, 4)]
    assert int(termination.weights(cut, (END,), 8).argmax()) == 1
    longer = [(5, 6), (5, 6, 7), (5, 6)]
    assert int(termination.weights(longer, (END,), 8).argmax()) == 1


@pytest.mark.parametrize(
    "padded", [[(5, END, END), (5, 9, END), (END, END, END)], [(5, 6, 7), (5, END, END), (4, 4, 4)]]
)
def test_a_common_schedule_says_nothing(padded: list[tuple[int, ...]]) -> None:
    assert termination.weights(padded, (END,), 3).tolist() == [0, 0, 0]


# -- the classifier --------------------------------------------------------------------------------------------------


def test_the_discriminator_learns_from_public_text(tiny: Bundle) -> None:
    """Documents open with one of two words, which an untrained sampler does not know."""
    rng = np.random.default_rng(0)
    corpus = [(0, int(rng.choice([7, 8])), *rng.integers(20, 4000, 6).tolist()) for _ in range(60)]
    spans = [(TokenSpan(1, 2, "word"),)] * len(corpus)
    served, quantiser = ServedModel(tiny), Quantiser("rel", 0.5, 1.0, 3, canonical=False)
    witness = Witness(tiny, served, DomainModel(corpus, served, tiny.geometry.vocab), quantiser)
    judge = Discriminator(tiny, witness, corpus, spans, 40)
    right = []
    for ids in corpus[-10:]:
        made = sample(tiny, ids, spans[0], quantiser, rng)
        right.append(int(judge.weights(witness.evidence(Lineup(made.ids.flip(0)))).argmax()) == 3)
    assert np.mean(right) > 0.8


def test_without_marked_public_text_the_discriminator_knows_nothing(tiny: Bundle) -> None:
    witness = Witness(tiny, ServedModel(tiny), DomainModel([], ServedModel(tiny), 4096), Quantiser(fakes=3))
    evidence = witness.evidence(Lineup(torch.tensor([[3, 4, 5], [3, 6, 5], [3, 7, 5], [3, 8, 5]])))
    assert Discriminator(tiny, witness, [], [], 10).weights(evidence).tolist() == [0, 0, 0, 0]


def test_numbers_are_checked() -> None:
    assert luhn([int(digit) for digit in "4539578763621486"])
    assert not luhn([int(digit) for digit in "4539578763621487"])
    assert valid("12/31/1999")
    assert not valid("41/02/1999")
    assert valid("Ann")


# -- refusals --------------------------------------------------------------------------------------------------------


def test_one_stream_is_nothing_to_pick_from(tiny: Bundle) -> None:
    with pytest.raises(NotApplicableError, match="several streams"):
        PickStream(["random"]).fit(Public(tiny, "smd"))
    with pytest.raises(NotApplicableError, match="several streams"):
        picked(fitted(tiny, "random"), view_of(tiny, [[[3, 4, 5]]], 2))
    with pytest.raises(NotApplicableError, match="several streams"):
        picked(fitted(tiny, "random"), AdversaryView((), SHOWS, 3, ()))


@pytest.mark.parametrize("judges", [[], ["gut_feeling"]])
def test_unknown_judges_are_refused(judges: list[str]) -> None:
    with pytest.raises(ConfigError, match="joint"):
        PickStream(judges)


# -- the sampler's law -----------------------------------------------------------------------------------------------


def by_the_law(bundle: Bundle, metric: Metric, prompts: int = 50) -> tuple[float, float]:
    """Secrets drawn from the sampler's own model: how often its law finds them, and the mean largest posterior."""
    quantiser = Quantiser(metric, 0.3, 1.0, fakes=3, canonical=False)
    span, rng = [TokenSpan(3, 5, "word")], np.random.default_rng(0)
    served = ServedModel(bundle)
    witness = Witness(bundle, served, DomainModel([], served, bundle.geometry.vocab), quantiser)
    right, hoped = [], []
    for _ in range(prompts):
        ids = draw_secret(bundle, [0, *rng.integers(20, 4000, 6).tolist()], span, quantiser, rng)
        order = rng.permutation(4)
        evidence = witness.evidence(Lineup(sample(bundle, ids, span, quantiser, rng).ids[torch.from_numpy(order)]))
        made = verdict("sampler_law", evidence.prior + evidence.law, rng)
        right.append(bool(order[made.picked] == 0))
        hoped.append(max(made.posterior))
    return float(np.mean(right)), float(np.mean(hoped))


@pytest.mark.slow
def test_a_window_centred_at_the_secret_gives_it_away_to_who_knows_the_sampler(tiny: Bundle) -> None:
    found, hoped = by_the_law(tiny, "rel")
    assert found > 0.25 + 0.2
    assert found < hoped + 0.2


@pytest.mark.slow
def test_a_public_grid_does_not(tiny: Bundle) -> None:
    found, hoped = by_the_law(tiny, "grid")
    assert hoped == pytest.approx(0.25, abs=0.01)
    assert found < 0.25 + 0.2
