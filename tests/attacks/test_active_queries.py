"""An impostor reads prompts by queries of its own choice, within a budget, while the user sees an honest decode."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
import torch

from attacks.base import Public
from attacks.prompts.active_queries.attack import ActiveQueries
from attacks.prompts.active_queries.averaging import averaged, less_noise
from attacks.prompts.active_queries.probing import LayerZero
from attacks.transcript import exchanges
from smd_research.boundary import AdversaryView, Boundary, Channel, Direction, Untrusted
from smd_research.boundary.messages import Done, Message, PartialAttention, Query, StartDecode, token_tensor
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import PublicText
from smd_research.defenses.smd import Smd
from smd_research.mechanisms.attention.reply_noise import ReplyNoiseParameters
from smd_research.models import sources
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import plain_greedy
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import partial_attention

NEW = 8


@cache
def embedded() -> Bundle:
    return sources.embedded()


@cache
def prompts(length: int) -> tuple[Prompt, ...]:
    found = tokenised(generate("mixed", "validation", 8, 0), embedded().tokenizer, length, 0)
    return tuple(prompt for prompt in found if len(prompt.ids) == length)[:3]


def public(bundle: Bundle, **parameters: object) -> Public:
    corpus = tokenised(generate("mixed", "train", 12, 0), bundle.tokenizer, 48, 0)
    return Public(bundle, "smd", Smd(**parameters).parameters, tuple(prompt.ids for prompt in corpus))


def attacked(
    bundle: Bundle, ids: tuple[int, ...], attack: ActiveQueries, *, transport: str = "inproc", **options: object
) -> tuple[AdversaryView, tuple[int, ...]]:
    """The impostor's view of one request, and what the user got."""
    known = public(bundle, **options)
    attack.fit(known)
    boundary = Boundary(transport, impostor=attack.impostor(known))
    with Smd(**options).prepare(bundle).deploy(boundary) as deployment:  # type: ignore[arg-type]
        answer = deployment.generate(Prompt("p", "", ids), NEW)
        return boundary.view(deployment.shows), answer.ids


def honest(bundle: Bundle, ids: tuple[int, ...], **options: object) -> tuple[AdversaryView, tuple[int, ...]]:
    boundary = Boundary()
    with Smd(**options).prepare(bundle).deploy(boundary) as deployment:  # type: ignore[arg-type]
        answer = deployment.generate(Prompt("p", "", ids), NEW)
        return boundary.view(deployment.shows), answer.ids


def read_by(attack: ActiveQueries, view: AdversaryView) -> Guess:
    return attack.recover(view, np.random.default_rng(0))


@pytest.mark.parametrize("wire_dtype", ["fp32", "bf16", "fp16"])
def test_prompts_are_read_whole_and_proved_within_the_budget(wire_dtype: str) -> None:
    attack = ActiveQueries(fallback=False)
    for prompt in prompts(24):
        view, answer = attacked(embedded(), prompt.ids, attack, wire_dtype=wire_dtype)
        guess = read_by(attack, view)
        plain, expected = honest(embedded(), prompt.ids, wire_dtype=wire_dtype)
        assert guess.ids == prompt.ids
        assert guess.certified
        assert 0 < len(view.of(Query)) - len(plain.of(Query)) <= 128
        assert answer == expected, "the user gets what an honest provider gives"


@pytest.mark.slow
@pytest.mark.parametrize("wire_dtype", ["fp32", "bf16"])
def test_prompts_longer_than_the_head_dimension(wire_dtype: str) -> None:
    attack = ActiveQueries(fallback=False)
    for prompt in prompts(64):
        view, _ = attacked(embedded(), prompt.ids, attack, wire_dtype=wire_dtype)
        assert read_by(attack, view).ids == prompt.ids


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "mistral", "opt"])
def test_grouped_queries_learned_positions_and_windows(family: str) -> None:
    bundle = sources.random(family)
    ids = tuple(np.random.default_rng(3).integers(3, bundle.geometry.vocab, 10).tolist())
    attack = ActiveQueries(fallback=False)
    view, _ = attacked(bundle, ids, attack)
    guess = read_by(attack, view)
    # a window of 12 hides the first keys from later queries, but the first are asked at position 10
    assert guess.ids == ids
    assert guess.certified


def test_another_prompts_view_gives_that_prompt() -> None:
    attack = ActiveQueries(fallback=False)
    guesses = [read_by(attack, attacked(embedded(), prompt.ids, attack)[0]) for prompt in prompts(24)]
    wrong = [
        np.mean([a == b for a, b in zip(guesses[i].ids, prompts(24)[j].ids, strict=True)])
        for i in range(3)
        for j in range(3)
        if i != j
    ]
    assert float(np.mean(wrong)) < 0.1


def test_honest_queries_read_nothing_by_themselves() -> None:
    attack = ActiveQueries(fallback=False)
    attack.fit(public(embedded()))
    view, _ = honest(embedded(), prompts(24)[0].ids)
    guess = read_by(attack, view)
    assert not guess.certified
    assert sum(token >= 0 for token in guess.ids) <= 4


def test_the_budget_is_kept() -> None:
    attack = ActiveQueries(queries=2, fallback=False)
    view, _ = attacked(embedded(), prompts(24)[0].ids, attack)
    plain, _ = honest(embedded(), prompts(24)[0].ids)
    assert len(view.of(Query)) - len(plain.of(Query)) == 2
    assert not read_by(attack, view).certified


def test_what_was_not_read_falls_to_the_passive_attack() -> None:
    attack = ActiveQueries(queries=2)
    view, _ = attacked(embedded(), prompts(24)[0].ids, attack)
    guess = read_by(attack, view)
    assert np.mean([a == b for a, b in zip(guess.ids, prompts(24)[0].ids, strict=True)]) > 0.9


class _TwoStreams(Channel):
    """The line to a vault that holds two prompts as streams of one request."""

    def __init__(self, bundle: Bundle, ids: Sequence[Sequence[int]]) -> None:
        self._attention = LocalAttention()
        positions = torch.arange(len(ids[0]))
        HookedModel(bundle).forward(self._attention, positions, ids=torch.tensor(ids), last_only=True)
        self.messages: list[tuple[Direction, Message]] = []

    def notify(self, message: Message) -> None:
        raise AssertionError

    def post(self, message: Message) -> Callable[[], Message]:
        assert isinstance(message, Query)
        spec = self._attention.specs[message.layer]
        shard = self._attention.store.partial(message.layer, message.q.unsqueeze(2), torch.tensor([0]), spec)
        where = message.request, message.layer, message.position
        answer = PartialAttention(shard.m[..., 0], shard.g[..., 0], shard.a[:, :, 0], *where)
        self.messages += [(Direction.TO_UNTRUSTED, message), (Direction.TO_TRUSTED, answer)]
        return lambda: answer


class _Idle(Untrusted):
    def handle(self, message: Message) -> Message:
        return Done()


def test_every_stream_of_a_request_is_read() -> None:
    attack, known = ActiveQueries(fallback=False, per_token=64), public(embedded())
    attack.fit(known)
    ids = [prompt.ids for prompt in prompts(24)[:2]]
    line = _TwoStreams(embedded(), ids)
    start = StartDecode(
        token_tensor([3, 4]),
        token_tensor([]),
        torch.tensor([0.0, 1.0]),
        request=1,
        position=24,
        max_new_tokens=4,
        seed=0,
        turn=0,
    )
    attack.impostor(known)(lambda _: _Idle())(line).handle(start)
    messages = ((Direction.TO_UNTRUSTED, start), *line.messages)
    view = AdversaryView(messages, attack.needs, 24, ((3,), (4,)))
    assert [read_by(attack, view.stream(number)).ids for number in range(2)] == ids
    assert read_by(attack, view).ids in ids


def test_it_works_from_a_process_of_its_own() -> None:
    attack = ActiveQueries(fallback=False)
    prompt = prompts(24)[0]
    view, _ = attacked(embedded(), prompt.ids, attack, transport="process")
    assert read_by(attack, view).ids == prompt.ids


def test_stealth_keeps_the_schedule_and_the_norms() -> None:
    attack = ActiveQueries(stealth="norm", fallback=False)
    prompt = prompts(24)[0]
    view, _ = attacked(embedded(), prompt.ids, attack)
    plain, _ = honest(embedded(), prompt.ids)

    def places(seen: AdversaryView) -> list[tuple[int, int]]:
        return [(query.layer, query.position) for query in seen.of(Query)]

    shared = min(len(places(view)), len(places(plain)))
    assert places(view)[:shared] == places(plain)[:shared]
    largest = max(float(q.q.norm(dim=-1).max()) for q in view.of(Query) if q.layer == 0)
    assert largest < 50


def test_it_does_not_apply_where_layer_0_stays_in_the_vault() -> None:
    with pytest.raises(NotApplicableError, match="layer 0"):
        ActiveQueries().fit(public(embedded(), inner_layers=1))


@pytest.mark.parametrize(
    "options",
    [
        {"queries": 0},
        {"per_token": 0},
        {"norm": 0.0},
        {"norm": 1e6},
        {"stealth": "much"},
        {"repeats": -1},
        {"repeats": 1, "stealth": "schedule"},
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ActiveQueries(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"reply": "lse"}, {"merge": "vault"}])
def test_whoever_asks_reads_prompts_whatever_crosses(options: dict[str, str]) -> None:
    bundle = sources.embedded()
    ids = tuple(bundle.tokenizer(generate("mixed", "validation", 2)[1].text)["input_ids"][:24])
    prepared = Smd(**options).prepare(bundle)  # type: ignore[arg-type]
    attack = ActiveQueries()
    public = Public(bundle, "smd", prepared.parameters)
    attack.fit(public)
    boundary = Boundary("inproc", impostor=attack.impostor(public))
    with prepared.deploy(boundary) as deployment:
        generation = deployment.generate(Prompt("p", "", ids), 24)
        view = boundary.view(deployment.shows)
    assert generation.ids == plain_greedy(bundle, ids, 24)
    assert attack.recover(view, np.random.default_rng(0)).ids == ids


def off(ids: tuple[int, ...], view: AdversaryView) -> float:
    """Root mean square error of a view's answers about ``A`` at layer 0."""
    layer, seen = LayerZero(embedded()), exchanges(view)[0]
    own = [torch.tensor([token]) for token in ids]
    keys = torch.cat([layer.keys(token, place) for place, token in enumerate(own)]).transpose(0, 1)[None]
    values = torch.cat([layer.values(token, place) for place, token in enumerate(own)]).transpose(0, 1)[None]
    predicted = partial_attention(seen.q.transpose(0, 1)[None], keys, values, layer.spec.scale)
    return float(seen.error(predicted)[1].square().mean().sqrt())


def test_noise_drawn_anew_for_each_reply_averages_out() -> None:
    noise = {"noise_multiplier": 1e-3, "noise_log_weight": 0.5}
    known = public(embedded(), **noise)
    attack = ActiveQueries(queries=NEW * 63, repeats=63)
    attack.fit(known)
    boundary = Boundary(impostor=attack.impostor(known))
    (prompt, *_) = prompts(24)
    ids = prompt.ids[:5]
    with Smd(**noise).prepare(embedded(), PublicText(known.corpus)).deploy(boundary) as deployment:  # type: ignore[arg-type]
        deployment.generate(Prompt("p", "", ids), NEW)
        view = boundary.view(deployment.shows)
    assert len([query for query in view.of(Query) if not query.layer]) == (NEW - 1) * 64
    once = averaged(view, 64)
    assert len(once.of(Query)) == NEW - 1
    assert off(ids, once) < 0.2 * off(ids, view), "an eighth, as for 64 draws"
    assert read_by(attack, view).ids == ids
    assert less_noise(known, 64).published(ReplyNoiseParameters) == ReplyNoiseParameters(1e-3 / 8, 0.5 / 8)


def test_a_query_whose_answers_a_budget_cut_short_is_left_out() -> None:
    attack = ActiveQueries(queries=10, repeats=4)
    view, answer = attacked(embedded(), prompts(24)[0].ids, attack)
    assert len(averaged(view, 5).of(Query)) == 2
    assert answer == honest(embedded(), prompts(24)[0].ids)[1]
