"""The vault's counter-measures: honest decodes pass the audit, active ones do not; noise and rounding cost equality."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest

from attacks.base import Public
from attacks.prompts.active_queries.attack import ActiveQueries
from attacks.prompts.partial_attention_inversion.attack import PartialAttentionInversion
from smd_research.boundary import AdversaryView, Boundary
from smd_research.boundary.messages import PartialAttention, Query, StartDecode
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import Generation, PublicText
from smd_research.defenses.smd import Smd
from smd_research.defenses.smd.defense import SmdPrepared
from smd_research.models import sources
from smd_research.models.bundle import Bundle

NEW = 8


@cache
def bundle() -> Bundle:
    return sources.embedded()


@cache
def corpus() -> tuple[tuple[int, ...], ...]:
    return tuple(p.ids for p in tokenised(generate("mixed", "train", 48, 0), bundle().tokenizer, 64, 0))


@cache
def prompts() -> tuple[Prompt, ...]:
    return tuple(tokenised(generate("mixed", "validation", 6, 0), bundle().tokenizer, 16, 0))


def prepared(seed: int = 0, **options: object) -> SmdPrepared:
    return Smd(**options).prepare(bundle(), PublicText(corpus()), seed)  # type: ignore[arg-type]


@cache
def served(options: tuple[tuple[str, object], ...] = ()) -> tuple[tuple[Generation, AdversaryView], ...]:
    boundary = Boundary()
    with prepared(**dict(options)).deploy(boundary) as deployment:
        return tuple((deployment.generate(p, NEW), boundary.view(deployment.shows)) for p in prompts())


def impostor_meets(options: Mapping[str, object], attack: ActiveQueries) -> tuple[AdversaryView, str]:
    """An active attack's view of the first prompt, and the line with which the vault refused it (or none)."""
    made = prepared(**options)
    public = Public(bundle(), "smd", made.parameters, corpus())
    attack.fit(public)
    boundary = Boundary(impostor=attack.impostor(public))
    refusal = ""
    with made.deploy(boundary) as deployment:
        try:
            deployment.generate(prompts()[0], NEW)
        except ProtocolError as error:
            refusal = str(error)
        boundary.publish(length=len(prompts()[0].ids), outputs=((),))
        return boundary.view(deployment.shows), refusal


@pytest.mark.parametrize("audit", ["schedule", "norm", "rank"])
def test_an_honest_decode_passes_every_audit_unchanged(audit: str) -> None:
    plain, audited = served(), served((("audit", audit),))
    assert [g.ids for g, _ in audited] == [g.ids for g, _ in plain]


@pytest.mark.parametrize("audit", ["schedule", "norm", "rank"])
def test_an_active_attack_is_refused_in_one_line_before_it_learns_anything(audit: str) -> None:
    attack = ActiveQueries(fallback=False)
    view, refusal = impostor_meets({"audit": audit}, attack)
    assert refusal.startswith("query audit")
    assert "\n" not in refusal
    guess = attack.recover(view, np.random.default_rng(0))
    assert sum(token >= 0 for token in guess.ids) <= 6, "one reply at most"
    assert not guess.certified


@pytest.mark.parametrize("audit", ["norm", "rank"])
def test_stealth_passes_the_audit_that_it_knows_and_reads_little(audit: str) -> None:
    attack = ActiveQueries(stealth=audit, fallback=False)
    view, refusal = impostor_meets({"audit": audit}, attack)
    assert refusal == ""
    guess = attack.recover(view, np.random.default_rng(0))
    assert np.mean([a == b for a, b in zip(guess.ids, prompts()[0].ids, strict=True)]) < 0.5
    assert not guess.certified


def test_a_schedule_alone_stops_nobody() -> None:
    attack = ActiveQueries(stealth="schedule", fallback=False)
    view, refusal = impostor_meets({"audit": "schedule"}, attack)
    assert refusal == ""
    assert attack.recover(view, np.random.default_rng(0)).ids == prompts()[0].ids


def test_stealth_that_looks_at_norms_only_is_refused_by_rank() -> None:
    attack = ActiveQueries(stealth="norm", fallback=False)
    norms = prepared(audit="norm")
    public = Public(bundle(), "smd", norms.parameters, corpus())
    attack.fit(public)
    boundary = Boundary(impostor=attack.impostor(public))
    with (
        prepared(audit="rank").deploy(boundary) as deployment,
        pytest.raises(ProtocolError, match="direction"),
    ):
        deployment.generate(prompts()[0], NEW)


def test_bounds_need_public_text() -> None:
    with pytest.raises(ConfigError, match="public text"):
        Smd(audit="norm").prepare(bundle())
    with Smd(audit="schedule").prepare(bundle()).deploy(Boundary()) as deployment:
        assert deployment.generate(prompts()[0], 2).ids


def exact_tokens(options: tuple[tuple[str, object], ...]) -> float:
    """What a hurried passive inversion recovers of two prompts."""
    attack = PartialAttentionInversion(rounds=2, restarts=0, sweeps=1, equations=256)
    attack.fit(Public(bundle(), "smd"))
    shares = []
    for (_, view), prompt in list(zip(served(options), prompts(), strict=True))[:2]:
        guess = attack.recover(view, np.random.default_rng(0))
        assert not (options and guess.certified)
        shares.append(np.mean([a == b for a, b in zip(guess.ids, prompt.ids, strict=True)]))
    return float(np.mean(shares))


def test_noise_breaks_equality_and_only_noise_on_everything_stops_the_inversion() -> None:
    averages = (("noise_multiplier", 0.05),)
    everything = (("noise_multiplier", 0.05), ("noise_log_weight", 1.0))
    plain = served()[0][1].of(PartialAttention)[0]
    for options in (averages, everything):
        reply = served(options)[0][1].of(PartialAttention)[0]
        assert not reply.a.equal(plain.a)
    assert served(averages)[0][1].of(PartialAttention)[0].m.equal(plain.m)
    assert exact_tokens(()) > 0.9
    assert exact_tokens(averages) > 0.5, "maxima and sums are exact equations"
    assert exact_tokens(everything) < 0.1


def test_noise_changes_what_the_user_gets() -> None:
    noisy = served((("noise_multiplier", 0.5), ("noise_log_weight", 3.0)))
    assert [g.ids for g, _ in noisy] != [g.ids for g, _ in served()]


def test_noise_is_fresh_and_of_the_seed() -> None:
    boundary, replies = Boundary(), []
    for seed in (0, 0, 1):
        with prepared(seed, noise_multiplier=0.1).deploy(boundary) as deployment:
            deployment.generate(prompts()[0], 3)
            replies.append(boundary.view(deployment.shows).of(PartialAttention)[0].a)
    assert replies[0].equal(replies[1])
    assert not replies[0].equal(replies[2])


def test_a_guarantee_is_claimed_only_where_nothing_is_exact() -> None:
    for options, promised in (
        ({"noise_multiplier": 5.0}, False),
        ({"noise_epsilon": 1.0, "noise_log_weight": 400.0}, True),
    ):
        made = prepared(**options)
        assert (made.guarantee is not None) == promised
        assert made.published()["noise_multiplier"] > 3  # type: ignore[operator]


def test_the_promise_of_a_reply_leaves_out_the_first_token_which_crosses_exactly() -> None:
    options = {"noise_epsilon": 0.01, "noise_log_weight": 1e4}
    promise = prepared(**options).guarantee
    assert promise is not None
    assert promise.unit == "reply"
    assert "layers x (t - 1) replies and its first token, which is released exactly: no epsilon" in promise.composition
    for (drowned, view), (plain, _) in zip(served(tuple(options.items())), served(), strict=True):
        assert drowned.ids[0] == plain.ids[0], "noise that drowns every reply leaves the first token as it is"
        assert view.of(StartDecode)[0].first.tolist() == [plain.ids[0]]
        assert len(view.of(PartialAttention)) == bundle().geometry.layers * (len(drowned.ids) - 1)


@pytest.mark.parametrize("bits", [2, 7])
def test_fewer_bits_cross_and_equality_goes(bits: int) -> None:
    replies = served((("reply_bits", bits),))[0][1].of(PartialAttention)
    for part in (replies[0].m, replies[0].g, replies[0].a):
        fraction = np.frexp(part.numpy())[0] * 2 ** (bits + 1)
        assert np.array_equal(fraction, np.round(fraction))
    assert not replies[0].a.equal(served()[0][1].of(PartialAttention)[0].a)


def test_few_bits_take_the_inversions_proof() -> None:
    assert exact_tokens((("reply_bits", 3),)) < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"audit": "strict"},
        {"audit_slack": 0.0},
        {"noise_multiplier": -1.0},
        {"noise_log_weight": -1.0},
        {"noise_multiplier": 1.0, "noise_epsilon": 1.0},
        {"noise_epsilon": -1.0},
        {"reply_bits": 0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Smd(**options)  # type: ignore[arg-type]


def test_queries_of_an_honest_decode_are_on_the_schedule() -> None:
    view = served()[0][1]
    layers = bundle().geometry.layers
    assert [q.layer for q in view.of(Query)] == list(range(layers)) * (len(view.of(Query)) // layers)
