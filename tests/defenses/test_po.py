"""Prompt Obfuscation: streams look alike, only the vault knows the real one, whose answer is the plain model's."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from smd_research.boundary import Boundary
from smd_research.boundary.messages import PartialAttention, Query, StartDecode, Tokens, token_tensor
from smd_research.boundary.session import TRANSPORTS
from smd_research.core.errors import ConfigError, PromptError
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt, TokenSpan
from smd_research.defenses.po import Po, PoDeployment, UnmarkedWarning
from smd_research.mechanisms.decoys.quantised_sampling import Decoys
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy, plain_logits

SMALL = [family for family in sources.FAMILIES if family != "100m"]
LENGTH, NEW, FAKES = 20, 8, 3
SPANS = (TokenSpan(4, 6, "name"), TokenSpan(11, 12, "date"))


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


def _ids(bundle: Bundle, seed: int, rows: int = LENGTH) -> tuple[int, ...]:
    draws = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(5, bundle.geometry.vocab, (rows,), generator=draws).tolist())


def _prompt(bundle: Bundle, seed: int = 1, spans: Sequence[TokenSpan] = SPANS) -> Prompt:
    ids = _ids(bundle, seed)
    return Prompt(f"p{seed}", bundle.decode(list(ids)), ids, tuple(spans))


def _error(deployment: PoDeployment, prompt: Prompt, continuation: tuple[int, ...]) -> float:
    expected = plain_logits(deployment.bundle, prompt.ids, continuation)
    return float((deployment.score(prompt.ids, continuation) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", SMALL)
def test_the_users_answer_is_the_unprotected_models(family: str) -> None:
    bundle = sources.random(family)
    prompt = _prompt(bundle)
    with Po(FAKES).prepare(bundle, seed=3).deploy(Boundary()) as deployment:
        assert deployment.generate(prompt, NEW).ids == plain_greedy(bundle, prompt.ids, NEW)
        assert _error(deployment, prompt, _ids(bundle, 2, NEW)) < 3e-6


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_stream_is_decoded_as_if_it_were_the_prompt(llama: Bundle, transport: str) -> None:
    with Po(FAKES).prepare(llama, seed=3).deploy(Boundary(transport)) as deployment:
        deployment.generate(_prompt(llama), NEW)
        view = deployment.boundary.view(deployment.shows)
    assert (view.streams, view.length) == (FAKES + 1, LENGTH)
    assert len({len(output) for output in view.outputs}) == 1


def test_the_released_construction_changes_the_answer_of_two_secrets_and_marks_the_real_stream(llama: Bundle) -> None:
    prompt = _prompt(llama)
    with Po(FAKES, construction="multiplexed").prepare(llama, seed=3).deploy(Boundary()) as deployment:
        deployment.generate(prompt, NEW)
        assert _error(deployment, prompt, _ids(llama, 2, NEW)) > 1e-4
        keys, _, _ = deployment.vault.store.get(2)
        after = keys[:, :, SPANS[0].end : SPANS[1].start]
        assert torch.equal(after, after[:1].expand_as(after))
    one = _prompt(llama, spans=SPANS[:1])
    with Po(FAKES, construction="multiplexed").prepare(llama, seed=3).deploy(Boundary()) as deployment:
        deployment.generate(one, NEW)
        assert _error(deployment, one, _ids(llama, 2, NEW)) < 3e-6


def test_full_streams_share_nothing_after_a_secret(llama: Bundle) -> None:
    with Po(FAKES).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        deployment.generate(_prompt(llama), NEW)
        keys, _, _ = deployment.vault.store.get(2)
    before, after = keys[:, :, : SPANS[0].start], keys[:, :, SPANS[0].end]
    assert torch.equal(before, before[:1].expand_as(before))
    assert len({tuple(row.flatten().tolist()) for row in after}) == FAKES + 1


def test_the_real_index_is_uniform(llama: Bundle) -> None:
    prompt, places = _prompt(llama, spans=SPANS[:1]), Counter[int]()
    for seed in range(60):
        with Po(FAKES).prepare(llama, seed=seed).deploy(Boundary()) as deployment:
            deployment.generate(prompt, 1)
            places[deployment.vault.authentic] += 1
    assert stats.chisquare([places[place] for place in range(FAKES + 1)]).pvalue > 1e-3


@pytest.mark.parametrize("requests", [1, 3])
def test_the_real_index_is_uniform_over_the_requests_of_one_session_too(llama: Bundle, requests: int) -> None:
    """Each request draws anew: an index that stays, or moves on by a rule, is found by counting."""
    prompt, places = _prompt(llama, spans=SPANS[:1]), list[int]()
    with Po(FAKES, requests=requests).prepare(llama, seed=0).deploy(Boundary()) as deployment:
        prefill = deployment.vault.prefill_full

        def noted(*arguments: Any) -> torch.Tensor:
            places.append(deployment.vault.authentic)
            return prefill(*arguments)

        deployment.vault.prefill_full = noted  # type: ignore[method-assign]
        for _ in range(60 // requests):
            deployment.generate(prompt, 1)
    moves = [(after - before) % (FAKES + 1) for before, after in pairwise(places)]
    for drawn in (places, moves):
        assert stats.chisquare(np.bincount(drawn, minlength=FAKES + 1)).pvalue > 1e-3


def test_all_streams_have_equal_messages_sizes_and_schedule(llama: Bundle) -> None:
    with Po(FAKES).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        deployment.generate(_prompt(llama), NEW)
        view = deployment.boundary.view(deployment.shows)
    kinds = {type(message) for _, message in view.messages}
    assert kinds >= {StartDecode, Query, PartialAttention, Tokens}
    alone = [view.stream(stream) for stream in range(view.streams)]
    shapes = [[(way, type(message), message.nbytes) for way, message in one.messages] for one in alone]
    assert all(shape == shapes[0] for shape in shapes)
    start = view.of(StartDecode)[0]
    assert (len(start.public), start.position) == (0, LENGTH)


def test_what_crosses_does_not_depend_on_which_stream_is_real(llama: Bundle) -> None:
    """The same virtual prompts with another one declared real: the provider receives the same, value for value."""
    prompt = _prompt(llama)
    crossed = []
    with Po(FAKES).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        rows = deployment.vault.disguise(llama, prompt.ids, prompt.spans, generator(0, "test")).ids
        for place in range(len(rows)):
            deployment._begin()
            deployment.vault._request = 0
            deployment.vault.authentic = place
            logits = deployment.vault.prefill_full(deployment._model, rows, prompt.spans[0].start)
            deployment.vault.decode(deployment._channel, logits, max_new_tokens=NEW, end_ids=llama.end_ids)
            crossed.append(deployment.boundary.received_by_untrusted())
    assert all(received == crossed[0] for received in crossed)


def test_each_stream_has_its_own_stop_and_decoding_goes_on_until_all_have_ended(llama: Bundle) -> None:
    prompt = _prompt(llama)
    with Po(FAKES).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        free = deployment.generate(prompt, NEW)
        place, outputs = deployment.vault.authentic, deployment.outputs
    # let the token that the real stream gives third end a text
    end = free.ids[2]
    with Po(FAKES).prepare(replace(llama, end_ids=(end,)), seed=3).deploy(Boundary()) as deployment:
        stopped = deployment.generate(prompt, NEW)
        padded = deployment.outputs
    assert stopped.ids == free.ids[: free.ids.index(end) + 1]
    assert set(padded[place][len(stopped.ids) :]) <= {end}
    longest = max(output.index(end) + 1 if end in output else NEW for output in outputs)
    assert {len(output) for output in padded} == {longest}


def _recorded(deployment: PoDeployment) -> list[Decoys]:
    """What the vault draws from now on."""
    drawn: list[Decoys] = []
    disguise = deployment.vault.disguise

    def record(*arguments: Any) -> Decoys:
        drawn.append(disguise(*arguments))
        return drawn[-1]

    deployment.vault.disguise = record  # type: ignore[method-assign]
    return drawn


def test_sticky_fakes_stay_over_requests_and_prompts_and_others_change(llama: Bundle) -> None:
    first, second = _prompt(llama, 1), _prompt(llama, 2)
    ids = list(second.ids)
    ids[8:10] = first.ids[4:6]
    second = Prompt("other", "", tuple(ids), (TokenSpan(8, 10, "name"),))
    for sticky in (True, False):
        with Po(FAKES, sticky=sticky, requests=2).prepare(llama, seed=3).deploy(Boundary()) as deployment:
            drawn = _recorded(deployment)
            deployment.generate(first, 2)
            deployment.generate(second, 2)
            starts = deployment.boundary.view(deployment.shows).of(StartDecode)
        assert len(starts) == 2
        assert len({start.request for start in starts}) == 2
        assert len(drawn) == 4
        assert torch.equal(drawn[0].ids, drawn[1].ids) == sticky
        assert torch.equal(drawn[0].ids[:, 4:6], drawn[2].ids[:, 8:10]) == sticky


@pytest.mark.parametrize("sticky", [True, False])
def test_a_draw_hides_a_prompt_among_the_same_fakes_at_the_same_place(llama: Bundle, sticky: bool) -> None:
    prompt, places = _prompt(llama), []
    with Po(7, sticky=sticky).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        drawn = _recorded(deployment)
        for draw in (4, 4, 5):
            deployment.generate(prompt, 2, draw)
            places.append(deployment.vault.authentic)
        deployment.score(prompt.ids, (7, 8), 4)
        places.append(deployment.vault.authentic)
    assert places[0] == places[1] == places[3] != places[2]
    assert torch.equal(drawn[0].ids, drawn[1].ids)
    assert torch.equal(drawn[0].ids, drawn[3].ids)
    assert torch.equal(drawn[0].ids, drawn[2].ids) == sticky


def test_the_secret_never_crosses(llama: Bundle) -> None:
    prompt = _prompt(llama)
    with Po(FAKES).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        deployment.generate(prompt, NEW)
        received = deployment.boundary.received_by_untrusted()
        rows = [
            row for layer in range(4) for part in deployment.vault.store.get(layer)[:2] for row in part.flatten(0, 2)
        ]
    for span in SPANS[:1]:
        secret = token_tensor(prompt.ids[span.start : span.end])
        assert secret.numpy().tobytes() not in received
        assert secret.long().numpy().tobytes() not in received
    assert not any(row.contiguous().numpy().tobytes() in received for row in rows)


def test_a_prompt_without_marks_is_hidden_whole_or_refused(llama: Bundle) -> None:
    bare = _prompt(llama, spans=())
    with Po(FAKES, widenings=8).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        deployment.generate(bare, 2)
        keys, _, _ = deployment.vault.store.get(0)
        assert not torch.equal(keys[0, :, -1], keys[1, :, -1])
    with (
        Po(FAKES, unmarked="refuse").prepare(llama, seed=3).deploy(Boundary()) as deployment,
        pytest.raises(PromptError, match="marks no"),
    ):
        deployment.generate(bare, 2)


def test_prompts_without_marks_are_named_before_they_are_hidden_whole(llama: Bundle) -> None:
    prompts = [_prompt(llama), _prompt(llama, spans=())]
    with pytest.warns(UnmarkedWarning, match=f"1 of 2 prompts mark no secret.*up to {LENGTH} tokens.*spans=tagger"):
        assert Po(FAKES).prepare(llama).stage(prompts) is prompts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Po(FAKES).prepare(llama).stage(prompts[:1])
        Po(FAKES, unmarked="refuse").prepare(llama).stage(prompts)


@pytest.mark.parametrize("sticky", [True, False])
def test_a_warm_up_draws_nothing_and_leaves_nothing_to_recall(llama: Bundle, sticky: bool) -> None:
    """The first timed request draws its fakes itself, as if nothing had been served before."""
    prompt = _prompt(llama)
    with Po(FAKES, sticky=sticky).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        drawn = _recorded(deployment)
        deployment.warm_up(prompt, 3, 0)
        assert drawn == []
        deployment.generate(prompt, 3, 0)
        facts = dict(deployment.facts)
    with Po(FAKES, sticky=sticky).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        fresh = _recorded(deployment)
        deployment.generate(prompt, 3, 0)
        assert facts == dict(deployment.facts)
    assert None not in drawn[0].widened
    assert torch.equal(drawn[0].ids, fresh[0].ids)


def test_too_few_fakes_are_refused_and_nothing_crosses(llama: Bundle) -> None:
    with Po(FAKES, epsilon=1e-6, widenings=0).prepare(llama, seed=3).deploy(Boundary()) as deployment:
        with pytest.raises(PromptError, match="fewer than 3 fakes"):
            deployment.generate(_prompt(llama), NEW)
        assert deployment.boundary.ledger.messages == 0


def test_facts_say_what_the_fakes_are_worth(llama: Bundle) -> None:
    prepared = Po(FAKES).prepare(llama, seed=3)
    with prepared.deploy(Boundary()) as deployment:
        generation = deployment.generate(_prompt(llama), 2)
        facts, parameters = dict(deployment.facts), prepared.published()
    assert set(facts) == {"eps_eff", "nominal_bound", "widened_epsilon"}
    assert 0 < generation.waits["sampling_ms"] < 1e3 * generation.ttft_s
    assert -1e-9 <= facts["eps_eff"] < 1
    assert facts["widened_epsilon"] >= 0.1 - 1e-9
    assert facts["nominal_bound"] == pytest.approx(min(1 / 4 + facts["widened_epsilon"], 1))
    assert not {"authentic", "place", "index", "seed"} & set(parameters)


def test_the_claim_is_made_for_the_full_construction_only(llama: Bundle) -> None:
    promise = Po(FAKES).prepare(llama).guarantee
    assert promise is not None
    assert "sampler's own model" in promise.assumptions
    assert Po(FAKES, construction="multiplexed").prepare(llama).guarantee is None


@pytest.mark.parametrize("metric", ["rel", "abs"])
def test_bins_that_weigh_no_fake_promise_nothing(llama: Bundle, metric: Any) -> None:
    assert Po(FAKES, metric=metric).prepare(llama).guarantee is None


def test_where_nothing_is_promised_no_bound_is_claimed(llama: Bundle) -> None:
    with Po(FAKES, metric="rel").prepare(llama, seed=3).deploy(Boundary()) as deployment:
        deployment.generate(_prompt(llama), 2)
        assert "nominal_bound" not in deployment.facts


def test_the_promise_is_at_the_widest_bins_that_may_be_used(llama: Bundle) -> None:
    narrow, wide = (Po(FAKES, widenings=count).prepare(llama).guarantee for count in (0, 12))
    assert narrow is not None
    assert wide is not None
    assert narrow.epsilon == pytest.approx(0.1)
    assert wide.epsilon > narrow.epsilon


@pytest.mark.parametrize("options", [{"construction": "x"}, {"spans": "x"}, {"unmarked": "x"}, {"requests": 0}])
def test_unknown_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Po(**options)  # type: ignore[arg-type]
