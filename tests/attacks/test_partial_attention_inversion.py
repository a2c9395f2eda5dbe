"""Attention unmixing recovers prompts from SMD's layer-0 exchange, proves it, and fails where it must."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.base import Public
from attacks.prompts.partial_attention_inversion.attack import PartialAttentionInversion, _table
from attacks.prompts.partial_attention_inversion.certificate import exchanged, indistinguishable, misfit
from attacks.prompts.partial_attention_inversion.deduction import ContradictionError, Rows, propagate, screen
from attacks.prompts.partial_attention_inversion.measurements import (
    UNDISTURBED,
    Disturbance,
    LayerTable,
    Measurements,
    grouped,
)
from attacks.prompts.partial_attention_inversion.naming import named
from attacks.prompts.partial_attention_inversion.replay import Exchange, Replay, mend
from attacks.prompts.partial_attention_inversion.row_space import RowSpace, deviation, members
from attacks.prompts.partial_attention_inversion.search import Effort
from attacks.prompts.partial_attention_inversion.solver import solve
from attacks.prompts.partial_attention_inversion.spans import span
from attacks.prompts.partial_attention_inversion.unmerging import Own, unmerged
from attacks.transcript import exchanges, merges
from smd_research.boundary import AdversaryView, Boundary
from smd_research.boundary.messages import PartialAttention
from smd_research.core.guess import Guess
from smd_research.core.observable import Observable
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.defenses.base import PublicText
from smd_research.defenses.smd import Smd, SmdDeployment
from smd_research.mechanisms.attention.reply_noise import ReplyRoundingParameters
from smd_research.models import sources
from smd_research.models.attention import AttentionSpec
from smd_research.models.bundle import Bundle

SENTENCES = (
    "Once upon a time there was a small red fox who lived near the old river with his mother.",
    "Tom wanted to give his sister a big blue kite, but the wind was too strong that day.",
    "The doctor said that Anna must take her medicine every morning and rest for a week.",
)


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Bundle:
    return sources.local(str(shared_data / "stories260k-hf"))


@contextmanager
def deployed(bundle: Bundle, wire_dtype: str = "fp32") -> Iterator[SmdDeployment]:
    with Smd(wire_dtype).prepare(bundle).deploy(Boundary("inproc")) as deployment:
        yield deployment


def fitted(bundle: Bundle, **options: float) -> PartialAttentionInversion:
    attack = PartialAttentionInversion(**options)  # type: ignore[arg-type]
    attack.fit(Public(bundle, "smd"))
    return attack


def view_of(bundle: Bundle, ids: list[int], new: int = 32, wire_dtype: str = "fp32") -> AdversaryView:
    with deployed(bundle, wire_dtype) as deployment:
        deployment.generate(Prompt("p", "", tuple(ids)), new)
        return deployment.boundary.view(deployment.shows)


def recovered(attack: PartialAttentionInversion, view: AdversaryView) -> Guess:
    return attack.recover(view, np.random.default_rng(0))


def accuracy(guess: Guess, ids: list[int]) -> float:
    return float(np.mean([a == b for a, b in zip(guess.ids, ids, strict=True)]))


def prompt_ids(bundle: Bundle, text: str, length: int = 16) -> list[int]:
    return list(bundle.tokenizer(text)["input_ids"][:length])


@pytest.mark.parametrize("wire_dtype", ["fp32", "bf16", "fp16"])
def test_real_prompts_come_back_exactly_and_certified(stories: Bundle, wire_dtype: str) -> None:
    attack = fitted(stories)
    for text in SENTENCES:
        ids = prompt_ids(stories, text)
        guess = recovered(attack, view_of(stories, ids, wire_dtype=wire_dtype))
        assert guess.ids == tuple(ids)
        assert guess.certified
        assert [ranked[0] for ranked in guess.ranked] == ids
        assert all(len(ranked) <= 10 for ranked in guess.ranked)


def test_the_shipped_model_gives_its_prompts_away_and_only_those() -> None:
    bundle = sources.embedded()
    attack = fitted(bundle)
    texts = [document.text for document in generate("mixed", "validation", 3)]
    ids = [prompt_ids(bundle, text) for text in texts]
    guesses = [recovered(attack, view_of(bundle, each)) for each in ids]
    assert [list(guess.ids) for guess in guesses] == ids
    assert all(guess.certified for guess in guesses)
    wrong = [accuracy(guesses[i], ids[j]) for i in range(3) for j in range(3) if i != j]
    assert float(np.mean(wrong)) < 0.1


def test_two_decode_steps_are_enough(stories: Bundle) -> None:
    ids = prompt_ids(stories, SENTENCES[0])
    guess = recovered(fitted(stories), view_of(stories, ids, new=3))
    assert guess.ids == tuple(ids)
    assert guess.spent.steps > 0, "two steps leave work for the whitened pursuit"


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma2", "opt"])
def test_every_kind_of_layer0_is_inverted(family: str) -> None:
    bundle = sources.random(family)
    ids = np.random.default_rng(3).integers(3, bundle.geometry.vocab, 8).tolist()
    guess = recovered(fitted(bundle), view_of(bundle, ids))
    assert guess.ids == tuple(ids)
    assert guess.certified


def test_another_prompts_view_gives_that_prompt_and_not_this_one(stories: Bundle) -> None:
    attack = fitted(stories)
    ids = [prompt_ids(stories, text) for text in SENTENCES]
    guesses = [recovered(attack, view_of(stories, each)) for each in ids]
    wrong = [accuracy(guesses[i], ids[j]) for i in range(3) for j in range(3) if i != j]
    assert float(np.mean(wrong)) < 0.25  # the shared first token, and letters that recur


def test_the_certificate_refuses_a_model_that_did_not_answer(stories: Bundle) -> None:
    other = sources.local(str(Path(stories.model.config._name_or_path)))
    with torch.no_grad():
        weight = other.model.get_input_embeddings().weight
        weight.requires_grad_(False)
        weight += 0.05 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    ids = prompt_ids(stories, SENTENCES[0])
    guess = recovered(fitted(other, restarts=0, rounds=2, sweeps=1, equations=256), view_of(stories, ids))
    assert guess.certified is False
    assert guess.residual is not None
    assert guess.residual > 1


def test_noise_on_the_averages_is_not_certified(stories: Bundle) -> None:
    ids = prompt_ids(stories, SENTENCES[0])
    view = view_of(stories, ids)
    generator = torch.Generator().manual_seed(0)
    noisy = tuple(
        (way, dataclasses.replace(m, a=m.a + 0.01 * torch.randn(m.a.shape, generator=generator)))
        if isinstance(m, PartialAttention)
        else (way, m)
        for way, m in view.messages
    )
    guess = recovered(fitted(stories, restarts=0, rounds=4), dataclasses.replace(view, messages=noisy))
    assert not guess.certified
    assert accuracy(guess, ids) >= 0.9, "maxima and masses alone still name nearly every token"


def test_positions_no_query_sees_are_not_certified() -> None:
    bundle = sources.random("mistral")  # window of 12: the first positions are out of sight of every step
    ids = np.random.default_rng(3).integers(3, bundle.geometry.vocab, 16).tolist()
    guess = recovered(fitted(bundle), view_of(bundle, ids, new=12))
    assert guess.ids[5:] == tuple(ids[5:])
    assert not guess.certified


def test_twin_tokens_are_ranked_together_and_not_certified(stories: Bundle) -> None:
    twinned = sources.local(str(Path(stories.model.config._name_or_path)))
    ids = prompt_ids(stories, SENTENCES[1])
    twin = next(i for i in range(3, 512) if i not in ids)
    with torch.no_grad():
        weight = twinned.model.get_input_embeddings().weight
        weight[twin] = weight[ids[5]]
    guess = recovered(fitted(twinned), view_of(twinned, ids))
    assert guess.certified is False
    assert all(
        {ids[5], twin} <= set(ranked[:2]) for token, ranked in zip(ids, guess.ranked, strict=True) if token == ids[5]
    )
    assert all(a == b for a, b in zip(guess.ids, ids, strict=True) if b != ids[5])


def test_a_cut_shortlist_draws_no_deductions(stories: Bundle) -> None:
    """With too few candidates kept the truth may be missing: the attack still answers, and does not vouch for it."""
    ids = prompt_ids(stories, SENTENCES[0])
    guess = recovered(fitted(stories, shortlist=4, rounds=4, restarts=0), view_of(stories, ids))
    assert len(guess.ids) == len(ids)
    assert guess.certified is False or guess.ids == tuple(ids)


def test_the_budget_ends_the_search_with_a_whole_guess(stories: Bundle) -> None:
    ids = prompt_ids(stories, SENTENCES[2])
    guess = recovered(fitted(stories, rounds=0, restarts=0, sweeps=0), view_of(stories, ids, new=2))
    assert len(guess.ids) == len(ids)
    assert guess.exhausted
    assert not guess.certified


def test_public_tokens_are_taken_as_given_and_the_rest_is_found(stories: Bundle) -> None:
    ids = prompt_ids(stories, SENTENCES[1])
    with Smd(public_tokens=5).prepare(stories).deploy(Boundary("inproc")) as deployment:
        deployment.generate(Prompt("p", "", tuple(ids)), 16)
        view = deployment.boundary.view(deployment.shows)
    guess = recovered(fitted(stories), view)
    assert guess.ids == tuple(ids)
    assert guess.certified
    assert guess.ranked[:5] == tuple((token,) for token in ids[:5])


def inner(bundle: Bundle, ids: list[int], layers: int, new: int, reply: str = "mga", **options: float) -> Guess:
    """What is read of a prompt whose first layers decode in the vault."""
    with Smd(inner_layers=layers, reply=reply).prepare(bundle).deploy(Boundary("inproc")) as deployment:
        deployment.generate(Prompt("p", "", tuple(ids)), new)
        view = deployment.boundary.view(deployment.shows)
    return recovered(fitted(bundle, **options), view)


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_inside_the_vault_are_read_from_left_to_right(layers: int) -> None:
    bundle = sources.embedded()
    ids = prompt_ids(bundle, next(iter(generate("mixed", "validation", 1))).text, 10)
    guess = inner(bundle, ids, layers, new=16)
    assert guess.ids == tuple(ids)
    assert guess.certified
    assert guess.facts["left_to_right_tokens"] == len(ids)


@pytest.mark.parametrize("repeats", [0, 1, 2])
def test_a_first_token_is_repeated_where_the_text_does_and_nowhere_else(embedded: Bundle, repeats: int) -> None:
    ids = np.random.default_rng(1).integers(5, embedded.geometry.vocab, 8).tolist()
    ids[1 : 1 + repeats] = [ids[0]] * repeats
    guess = inner(embedded, ids, 1, new=16)
    assert guess.ids == tuple(ids)
    assert guess.certified


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("reply", ["mga", "lse"])
def test_twins_inside_the_vault_are_not_certified(layers: int, reply: str) -> None:
    """Whichever of two equal tokens is read, the replies cannot tell; the other tokens stay proved."""
    bundle = sources.random("llama")
    with torch.no_grad():
        weight = bundle.model.get_input_embeddings().weight
        weight[4000] = weight[50]
    for ids in ([7, 50, 9, 11, 60], [7, 4000, 9, 11, 60]):
        guess = inner(bundle, ids, layers, new=16, reply=reply)
        assert guess.ids[1] in (50, 4000)
        assert not guess.certified
    guess = inner(bundle, [7, 51, 9, 11, 60], layers, new=16, reply=reply)
    assert guess.ids == (7, 51, 9, 11, 60)
    assert guess.certified


def test_what_a_16_bit_replay_explains_is_not_certified_where_it_explains_others_too() -> None:
    bundle = sources.random("llama", dtype="fp16")
    ids = [2914, 3383, 3220]
    guess = inner(bundle, ids, 1, new=16)
    assert guess.residual is not None
    assert guess.residual <= 1
    assert guess.ids == tuple(ids) or not guess.certified


def test_a_token_that_is_not_proposed_ends_the_reading() -> None:
    bundle = sources.embedded()
    ids = prompt_ids(bundle, next(iter(generate("mixed", "validation", 1))).text, 10)
    guess = inner(bundle, ids, 1, new=16, proposals=3)
    assert guess.certified is False
    assert guess.exhausted
    assert guess.ids[-1] == -1
    assert all(a == b for a, b in zip(guess.ids, ids, strict=True) if a >= 0)


def test_a_higher_layer_that_spans_everything_is_not_read(stories: Bundle) -> None:
    ids = prompt_ids(stories, SENTENCES[1])  # 16 tokens, heads of 8 dimensions
    guess = inner(stories, ids, 1, new=8)
    assert guess.ids == (-1,) * len(ids)
    assert guess.certified is False


def test_rounded_replies_are_still_read(stories: Bundle) -> None:
    ids = prompt_ids(stories, SENTENCES[0])
    with Smd(reply_bits=10).prepare(stories).deploy(Boundary("inproc")) as deployment:
        deployment.generate(Prompt("p", "", tuple(ids)), 32)
        view = deployment.boundary.view(deployment.shows)
    attack = PartialAttentionInversion(restarts=1, rounds=4)
    attack.fit(Public(stories, "smd", (ReplyRoundingParameters(10),)))
    assert accuracy(recovered(attack, view), ids) >= 0.9


@pytest.mark.slow
def test_prompts_far_longer_than_the_head_dimension_come_back(stories: Bundle) -> None:
    text = " ".join(SENTENCES * 2)
    ids = prompt_ids(stories, text, 96)
    assert len(ids) == 96 > 8 * stories.geometry.head_dim
    guess = recovered(fitted(stories), view_of(stories, ids))
    assert guess.ids == tuple(ids)
    assert guess.certified


def replay_of(bundle: Bundle, view: AdversaryView) -> Replay:
    return Replay(bundle, {layer: Exchange(seen) for layer, seen in exchanges(view).items()})


@pytest.mark.parametrize("wire_dtype", ["fp32", "bf16"])
def test_only_the_prompt_reproduces_all_layers_and_near_guesses_are_mended(stories: Bundle, wire_dtype: str) -> None:
    ids = prompt_ids(stories, SENTENCES[2])
    replay = replay_of(stories, view_of(stories, ids, new=8, wire_dtype=wire_dtype))
    near = [*ids[:4], 300, *ids[5:9], 301, *ids[10:]]
    errors = replay.errors([ids, near])
    assert float(errors[0, 0]) <= 1 < float(errors[1, 0])
    mended, error = mend(replay, near, {9: (ids[9], 77, 78), 4: (80, 81, ids[4])}, budget=32)
    assert mended == ids
    assert error <= 1
    assert replay.spent.candidates <= 2 + 1 + 32
    assert replay.spent.flops > 0
    unmended, error = mend(replay, near, {9: (ids[9],), 4: (ids[4],)}, budget=0)
    assert unmended == near
    assert error > 1


def test_nothing_seen_is_nothing_guessed(stories: Bundle) -> None:
    ids = prompt_ids(stories, SENTENCES[0])
    guess = recovered(fitted(stories), view_of(stories, ids, new=1))
    assert guess.ids == (-1,) * len(ids)
    assert guess.certified is False


def test_it_needs_queries_which_no_defense_shows_without_replies() -> None:
    assert PartialAttentionInversion.needs == {Observable.QUERIES}
    for defense in (Smd(), Smd(reply="lse"), Smd(merge="vault")):
        assert defense.shows & {Observable.PARTIAL_ATTENTION, Observable.MERGED_ATTENTION}


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


def otherwise(bundle: Bundle, ids: list[int], new: int, **options: object) -> AdversaryView:
    with Smd(**options).prepare(bundle).deploy(Boundary("inproc")) as deployment:  # type: ignore[arg-type]
        deployment.generate(Prompt("p", "", tuple(ids)), new)
        return deployment.boundary.view(deployment.shows)


@pytest.mark.parametrize("options", [{"reply": "lse"}, {"merge": "vault"}, {"merge": "vault", "wire_dtype": "fp16"}])
def test_neither_summed_weights_nor_merging_at_the_vault_hides_a_short_prompt(
    embedded: Bundle, options: dict[str, object]
) -> None:
    attack = fitted(embedded)
    for document in generate("mixed", "validation", 2):
        ids = prompt_ids(embedded, document.text, 12)
        guess = recovered(attack, otherwise(embedded, ids, 24, **options))
        assert guess.ids == tuple(ids)
        assert guess.certified or "wire_dtype" in options


def test_merged_rows_of_a_full_quotient_name_nothing(embedded: Bundle) -> None:
    ids = prompt_ids(embedded, generate("mixed", "validation", 1)[0].text, 40)
    guess = recovered(fitted(embedded), otherwise(embedded, ids, 24, merge="vault"))
    assert guess.ids == (-1,) * len(ids)
    assert not guess.certified


def test_merged_rows_of_learned_positions_are_read() -> None:
    bundle = sources.random("gpt2")
    ids = np.random.default_rng(3).integers(3, bundle.geometry.vocab, 6).tolist()
    guess = recovered(fitted(bundle), otherwise(bundle, ids, 8, merge="vault"))
    assert guess.ids == tuple(ids)


def test_what_is_taken_out_of_merged_rows_is_the_prompts_attention(embedded: Bundle) -> None:
    ids = prompt_ids(embedded, generate("mixed", "validation", 1)[0].text, 12)
    attack = fitted(embedded)
    view, bare = (otherwise(embedded, ids, 24, merge=place) for place in ("vault", "provider"))
    merged, plain = merges(view)[0], exchanges(bare)[0]
    heads = embedded.geometry.kv_heads
    own = Own(grouped(merged.own.a, heads), torch.tensor(view.output_ids), len(ids))
    seen, true = (attack._measurements(each, 0, UNDISTURBED) for each in (merged, plain))
    without = unmerged(seen, own, _table(attack._engine), len(ids))
    assert without is not None
    assert without.spanned is not None
    assert set(without.spanned.ids) == set(ids)
    for row in range(without.seen.queries.shape[1]):
        twin = int((true.queries[0] == without.seen.queries[0, row]).all(1).nonzero()[0, 0])
        off = without.seen.average[:, row] - true.average[:, twin]
        assert float(off.abs().max()) <= 6 * without.seen.disturbance.average
        weight = true.maximum[:, twin] + true.mass[:, twin].log()
        assert float((without.seen.maximum[:, row] - weight).abs().max()) <= 6 * without.seen.disturbance.log_weight


def synthetic(
    seed: int, length: int, steps: int, vocab: int = 48, dim: int = 6
) -> tuple[Measurements, LayerTable, list[int]]:
    """An exact exchange over a random table of two key/value heads with two query heads each."""
    g = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(vocab, 2, dim, generator=g) for _ in range(2))
    shift = torch.randn(length, 2, dim, generator=g)
    ids = torch.randint(0, vocab, (length,), generator=g)

    def at(position: int, tokens: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        some = torch.arange(vocab) if tokens is None else tokens
        return keys[some] + shift[position], values[some]

    table = LayerTable(at, vocab)
    k = torch.stack([table(p)[0][ids[p]] for p in range(length)]).repeat_interleave(2, 1)
    v = values[ids].repeat_interleave(2, 1)
    q = torch.randn(steps, 4, dim, generator=g)
    s = torch.einsum("thd,phd->thp", q, k) * 0.4
    m = s.amax(-1)
    e = torch.exp(s - m[..., None])
    a = torch.einsum("thp,phd->thd", e / e.sum(-1, keepdim=True), v)
    where = torch.arange(length, length + steps)
    seen = Measurements.from_steps(q, m, e.sum(-1), a, positions=where, kv_heads=2, spec=AttentionSpec(0.4))
    return seen, table, ids.tolist()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 8), steps=st.integers(1, 10))
def test_deduction_never_drops_the_truth(seed: int, length: int, steps: int) -> None:
    seen, table, ids = synthetic(seed, length, steps)
    kept, rows, _ = screen(seen, table, length, limit=48)
    for candidate, token in zip(propagate(kept, rows), ids, strict=True):
        assert token in candidate.ids.tolist()


def sharp(rows: Rows, slack: float) -> Rows:
    return dataclasses.replace(rows, tolerance=rows.tolerance / slack)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 8), data=st.data())
def test_the_certificate_holds_for_the_truth_alone(seed: int, length: int, data: st.DataObject) -> None:
    seen, table, ids = synthetic(seed, length, 4)
    everything, rows, seen = screen(seen, table, length, limit=48, slack=1e9)
    rows = sharp(rows, 1e9)
    true = [c.ids.tolist().index(token) for c, token in zip(everything, ids, strict=True)]
    assert misfit(seen, rows, everything, true) <= 1
    assert not indistinguishable(seen, rows, table, everything, true)
    position = data.draw(st.integers(0, length - 1))
    wrong = data.draw(st.integers(0, 47).filter(lambda i: i != true[position]))
    changed = [wrong if p == position else i for p, i in enumerate(true)]
    assert misfit(seen, rows, everything, changed) > 1


def test_false_assumptions_are_refuted() -> None:
    seen, table, ids = synthetic(1, 8, 3)
    kept, rows, _ = screen(seen, table, 8, limit=48)
    wrong = [(p, int(i)) for p, c in enumerate(kept) for i in c.ids if int(i) != ids[p]]
    assert len(wrong) > 20
    refuted = 0
    for position, token in wrong:
        try:
            propagate([c.only(token) if p == position else c for p, c in enumerate(kept)], rows)
        except ContradictionError:
            refuted += 1
    assert refuted > len(wrong) / 2


def test_prompts_longer_than_all_head_dimensions_together_are_solved() -> None:
    seen, table, ids = synthetic(7, 20, 24)
    solution = solve(seen, table, 20, np.random.default_rng(0))
    assert list(solution.ids) == ids
    assert solution.certified
    assert solution.flops > 0


@pytest.mark.slow
def test_what_bf16_leaves_of_peeled_rows_does_not_lose_true_tokens(embedded: Bundle) -> None:
    ids = tuple(embedded.tokenizer(generate("mixed", "validation", 1, 0)[0].text)["input_ids"][:56])
    with deployed(embedded, "bf16") as deployment:
        deployment.generate(Prompt("p", "", ids), 10)
        view = deployment.boundary.view(deployment.shows)
    guess = recovered(fitted(embedded), view)
    assert guess.ids == ids
    assert guess.certified


def test_noise_that_is_known_is_allowed_for() -> None:
    seen, table, ids = synthetic(3, 8, 24)
    noise = 0.02 * torch.randn(seen.average.shape, generator=torch.Generator().manual_seed(0))
    noisy = dataclasses.replace(seen, average=seen.average + noise, disturbance=Disturbance(average=0.02))
    assert list(solve(noisy, table, 8, np.random.default_rng(0)).ids) == ids
    log_noise = 0.02 * torch.randn(seen.mass.shape, generator=torch.Generator().manual_seed(1))
    weight = seen.maximum + seen.mass.log() + log_noise
    vague = dataclasses.replace(
        noisy, maximum=weight, mass=torch.ones_like(weight), disturbance=Disturbance(average=0.02, log_weight=0.02)
    )
    found = solve(vague, table, 8, np.random.default_rng(0), effort=Effort(rounds=6, restarts=1))
    assert accuracy(Guess(found.ids), ids) >= 0.5


def test_a_maximum_that_every_token_breaks_by_far_ends_the_search_with_a_guess() -> None:
    seen, table, ids = synthetic(3, 8, 24)
    broken = seen.maximum.clone()
    broken[:, 0] -= 200.0  # e^200 is no number in single precision
    solution = solve(dataclasses.replace(seen, maximum=broken), table, 8, np.random.default_rng(0))
    assert len(solution.ids) == len(ids)
    assert not solution.certified


def spanned(seed: int, length: int, steps: int, log_noise: float = 0.0) -> tuple[Measurements, LayerTable, list[int]]:
    """An exchange of heads of 24 dimensions, whose log weights may be noised."""
    seen, table, ids = synthetic(seed, length, steps, vocab=96, dim=24)
    if log_noise:
        noise = log_noise * torch.randn(seen.mass.shape, generator=torch.Generator().manual_seed(seed))
        weight = seen.maximum + seen.mass.log() + noise
        disturbance = Disturbance(log_weight=log_noise)
        seen = dataclasses.replace(seen, maximum=weight, mass=torch.ones_like(weight), disturbance=disturbance)
    return seen, table, ids


def test_the_row_space_holds_the_prompts_tokens_and_no_others() -> None:
    seen, table, ids = spanned(1, 12, 20)
    found = members(RowSpace.of(seen.average, deviation(seen)), table, list(range(12)))
    assert found is not None
    assert sorted(found.tokens.tolist()) == sorted(set(ids))
    assert float(found.distances[0][found.rank] - found.distances[0][found.rank - 1]) > 6


def test_too_few_rows_or_too_many_tokens_name_nothing() -> None:
    few, table, _ = spanned(1, 12, 3)
    assert members(RowSpace.of(few.average, deviation(few)), table, [0]) is None
    many, table, _ = spanned(1, 40, 40)
    assert members(RowSpace.of(many.average, deviation(many)), table, [0]) is None


def test_rows_of_another_prompt_are_at_chance() -> None:
    seen, _, _ = spanned(2, 12, 20)
    _, table, ids = spanned(1, 12, 20)
    found = members(RowSpace.of(seen.average, deviation(seen)), table, list(range(12)))
    assert found is not None
    assert len(set(found.tokens.tolist()) & set(ids)) <= 6


@pytest.mark.parametrize("log_noise", [0.01, 1.0, 10.0])
def test_noise_on_the_log_weights_hides_neither_tokens_nor_order(log_noise: float) -> None:
    seen, table, ids = spanned(4, 12, 24, log_noise)
    solution = solve(seen, table, 12, np.random.default_rng(0))
    assert list(solution.ids) == ids
    assert solution.certified
    assert solution.stages.tokens == {"row_space": 12}


def test_repeated_tokens_stand_where_they_stood() -> None:
    seen, table, ids = synthetic(9, 16, 24, vocab=8, dim=24)
    assert len(set(ids)) <= 8
    assert list(solve(seen, table, 16, np.random.default_rng(0)).ids) == ids


def test_what_known_positions_leave_spans_less() -> None:
    """More distinct tokens than dimensions: nothing at first, and the rest of the prompt once half of it is known."""
    seen, table, ids = spanned(5, 32, 60)
    assert span(seen, table, 32, {}) is None
    found = span(seen, table, 32, {place: ids[place] for place in range(0, 32, 2)})
    assert found is not None
    assert found.ids == ids[1::2]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 40), steps=st.integers(1, 60))
def test_row_maxima_name_no_wrong_token(seed: int, length: int, steps: int) -> None:
    seen, table, ids = spanned(seed, length, steps)
    assert all(ids[place] == token for place, token in named(seen, table, length, {}).items())
    told = named(seen, table, length, {0: ids[0]})
    assert told[0] == ids[0]


def test_maxima_and_what_they_leave_read_more_tokens_than_a_head_has_dimensions() -> None:
    seen, table, ids = spanned(5, 40, 60)
    assert len(set(ids)) > 24
    sure = named(seen, table, 40, {})
    assert len(sure) > 16
    solution = solve(seen, table, 40, np.random.default_rng(0))
    assert list(solution.ids) == ids
    assert solution.certified
    assert not solution.stages.tokens.get("pursuit")


def test_a_prompt_that_maxima_name_whole_needs_no_row_space() -> None:
    """Too few rows to span what the values span, and each position the maximum of some row."""
    for seed in range(40):
        seen, table, ids = spanned(seed, 2, 1)
        if len(named(seen, table, 2, {})) == 2:
            assert list(solve(seen, table, 2, np.random.default_rng(0)).ids) == ids
            break
    else:
        pytest.fail("no seed names both positions")


def test_queries_turned_back_name_what_turned_keys_name(embedded: Bundle) -> None:
    attack = fitted(embedded)
    ids = prompt_ids(embedded, " ".join(document.text for document in generate("mixed", "validation", 3)), 48)
    seen = attack._measurements(exchanges(view_of(embedded, ids))[0], 0, UNDISTURBED)
    table = _table(attack._engine)
    assert table.back is not None
    told = named(seen, table, len(ids), {})
    assert len(told) > 8
    assert told == named(seen, dataclasses.replace(table, back=None), len(ids), {})
    assert all(ids[place] == token for place, token in told.items())


def test_rough_tables_of_learned_positions_lead_to_what_exact_ones_do() -> None:
    bundle = sources.random("gpt2")
    attack = fitted(bundle)
    ids = list(range(7, 31))
    seen = attack._measurements(exchanges(view_of(bundle, ids))[0], 0, UNDISTURBED)
    table = _table(attack._engine)
    assert table.rough is not None
    exact = dataclasses.replace(table, rough=None)
    told = named(seen, table, len(ids), {})
    assert told
    assert told == named(seen, exact, len(ids), {})
    ours, theirs = (screen(seen, some, len(ids), limit=8192)[0] for some in (table, exact))
    assert [c.ids.tolist() for c in ours] == [c.ids.tolist() for c in theirs]


def test_maxima_of_another_prompt_name_tokens_at_chance() -> None:
    seen, _, _ = spanned(2, 40, 60)
    _, table, ids = spanned(1, 40, 60)
    assert sum(ids[place] == token for place, token in named(seen, table, 40, {}).items()) <= 4


def test_less_memory_forgets_rows_and_keeps_the_truth() -> None:
    seen, table, ids = synthetic(11, 6, 16)
    full, rows, _ = screen(seen, table, 6, limit=48)
    memory = 4 * len(rows.mass) * sum(map(len, full)) // 3
    some, fewer, left = screen(seen, table, 6, limit=48, memory=memory)
    assert len(fewer.mass) < len(rows.mass)
    assert left.maximum.shape == (2, len(fewer.mass) // 2)
    assert torch.equal(left.mass.flatten(), fewer.mass)
    assert [c.ids.tolist() for c in some] == [c.ids.tolist() for c in full]
    true = [c.ids.tolist().index(token) for c, token in zip(some, ids, strict=True)]
    assert misfit(left, fewer, some, true) <= 1


def test_the_linear_part_alone_solves_it() -> None:
    """Without the row maxima (all set to a loose bound) the whitened pursuit must do the work."""
    seen, table, ids = synthetic(5, 8, 24)
    loose = dataclasses.replace(
        seen, maximum=seen.maximum + 3.0, mass=seen.mass * float(np.exp(-3.0)), score_precision=seen.score_precision
    )
    solution = solve(loose, table, 8, np.random.default_rng(0), effort=Effort(restarts=0))
    assert list(solution.ids) == ids
    assert solution.deduced < 8
    assert not solution.certified, "a maximum that no position attains cannot be explained"


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_tokens_that_could_change_places_are_not_certified(dtype: str) -> None:
    """One step of a 16-bit vault whose log weights are noised tells which tokens there are, and hardly their order."""
    bundle, proved = sources.random("phi", dtype=dtype), 0
    for seed in range(4):
        ids = np.random.default_rng(seed).integers(5, bundle.geometry.vocab, 3).tolist()
        prepared = Smd(noise_log_weight=0.07).prepare(bundle, PublicText([ids]), seed)
        with prepared.deploy(Boundary("inproc")) as deployment:
            deployment.generate(Prompt("p", "", tuple(ids)), 2)
            view = deployment.boundary.view(deployment.shows)
        attack = PartialAttentionInversion(restarts=0, rounds=2, sweeps=2, equations=256)
        attack.fit(Public(bundle, "smd", prepared.parameters))
        guess = recovered(attack, view)
        assert not (guess.certified and guess.ids != tuple(ids))
        proved += bool(guess.certified)
    assert proved or dtype == "bf16"


def test_a_known_place_is_not_exchanged() -> None:
    """Equal keys at three places: noise hides every exchange, and two of the places are public."""
    heads, rows, dim, tokens = 1, 6, 8, torch.tensor([3, 4, 5])
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(10, heads, dim, generator=generator)
    table = LayerTable(lambda _, ids: (torch.zeros(10, heads, dim)[ids], values[ids]), 10)
    seen = Measurements(
        queries=torch.randn(heads, rows, dim, generator=generator),
        maximum=torch.zeros(heads, rows),
        mass=torch.full((heads, rows), 3.0),
        average=values[tokens].mean(0)[:, None].expand(heads, rows, dim).contiguous(),
        positions=torch.arange(3, 3 + rows),
        precision=1e-6,
        value_precision=1e-6,
        score_precision=1e-6,
        spec=AttentionSpec(1.0),
        disturbance=Disturbance(log_weight=0.1),
    )
    flat = Rows(seen.mass.flatten(), torch.full((rows,), 0.6), named=False)
    ids = tokens.tolist()
    assert exchanged(seen, flat, table, ids) == [[4, 3, 5], [5, 4, 3], [3, 5, 4]]
    assert exchanged(seen, flat, table, ids, {0, 1}) == []
    assert exchanged(dataclasses.replace(seen, disturbance=UNDISTURBED), flat, table, ids) == []
