"""Prompts in a chat template: its tokens are public; what the user wrote alone is hidden, guessed and scored."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chatting import chat_model, saved
from hypothesis import given
from hypothesis import strategies as st
from lived import seen

from attacks.base import PromptAttack, Public
from attacks.baselines.prior import Prior
from attacks.cryptanalysis.ciphertext import public_pairs
from attacks.prompts.bayes_token import BayesToken
from attacks.prompts.guess_and_verify import GuessAndVerify
from attacks.prompts.output_inversion.attack import OutputInversion
from attacks.prompts.partial_attention_inversion.attack import PartialAttentionInversion
from attacks.prompts.pick_stream.attack import PickStream
from attacks.prompts.vocab_matching.attack import VocabMatching
from experiments.commands.cli import main as smd
from experiments.trials.guesses import Attempt, scored
from experiments.trials.hiding import Register, hide
from experiments.trials.pursuit import Findings
from experiments.trials.scoring import score
from smd_research.boundary import AdversaryView, Boundary, Link
from smd_research.boundary.messages import PromptIds, StartDecode
from smd_research.core.guess import Guess
from smd_research.core.wrapper import BARE, Wrapper
from smd_research.data.prompts import Prompt, TokenSpan, moved
from smd_research.data.sources import Synthetic
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import wrapped_prompts
from smd_research.defenses.base import Defense, PublicText
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.dp_text import DpText
from smd_research.defenses.po import Po
from smd_research.defenses.shaking import Shaking
from smd_research.defenses.smd import Smd
from smd_research.defenses.split import Split
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import plain_logits
from smd_research.records import read, read_items

TOKENS = 8


@pytest.fixture(scope="module")
def chatting() -> Bundle:
    return chat_model()


@pytest.fixture(scope="module")
def prompts(chatting: Bundle) -> list[Prompt]:
    return wrapped_prompts(generate("personal", "validation", 2, 0), chatting.tokenizer, TOKENS)


@pytest.fixture(scope="module")
def corpus(chatting: Bundle) -> tuple[tuple[int, ...], ...]:
    documents = generate("personal", "train", 60, 1)
    return tuple(prompt.unwrapped.ids for prompt in wrapped_prompts(documents, chatting.tokenizer, 48))


def served(
    defense: Defense, bundle: Bundle, prompts: Sequence[Prompt], corpus: tuple[tuple[int, ...], ...], new: int = 12
) -> tuple[Public, list[AdversaryView]]:
    prepared = defense.prepare(bundle, PublicText(corpus))
    boundary, views = Boundary(), []
    with prepared.deploy(boundary) as deployment:
        for prompt in prompts:
            deployment.generate(prompt, new)
            views.append(boundary.view(deployment.shows))
    return Public(bundle, "", prepared.parameters, corpus, wrapper=prompts[0].wrapper), views


def guessed(attack: PromptAttack, public: Public, view: AdversaryView) -> Guess:
    attack.fit(public)
    return attack.recover(view, np.random.default_rng(0))


ENDS = st.lists(st.integers(300, 309), max_size=4).map(tuple)


@given(st.builds(Wrapper, ENDS, ENDS), st.data())
def test_a_wrapper_changes_no_score(chatting: Bundle, wrapper: Wrapper, data: st.DataObject) -> None:
    lengths = st.lists(st.integers(300, 309), min_size=4, max_size=4).map(tuple)
    texts, said = data.draw(st.tuples(lengths, lengths)), data.draw(st.tuples(lengths, lengths))
    spans = (TokenSpan(1, 3, "name"),)
    alone = [Prompt(str(n), "", text, spans, source="s") for n, text in enumerate(texts)]
    whole = [
        Prompt(one.id, "", wrapper.around(one.ids), moved(spans, len(wrapper.head)), source="s", wrapper=wrapper)
        for one in alone
    ]
    guesses = [Guess(ids, tuple((token, 300) for token in ids)) for ids in said]
    expected = scored([Attempt(guess, 1.0) for guess in guesses], alone, chatting)
    found = scored([Attempt(guess.wrapped(wrapper), 1.0) for guess in guesses], whole, chatting)
    assert [one.guess for one in found] == [one.guess for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, nan_ok=True)


def test_what_is_recorded_is_what_the_user_wrote(chatting: Bundle, prompts: list[Prompt]) -> None:
    views = [AdversaryView((), frozenset(), len(one.ids), ((1,),), one.wrapper) for one in prompts]
    found = scored([Attempt(Guess(one.ids), 0.0) for one in prompts], prompts, chatting)
    _, items = score(seen(chatting, prompts, views), Findings(found), Link("none", "measured", 0.0, 0.0))
    for item, prompt in zip(items, prompts, strict=True):
        assert (tuple(item.truth_ids), tuple(item.guess_ids)) == (prompt.unwrapped.ids, prompt.unwrapped.ids)
        assert tuple(item.spans) == prompt.unwrapped.spans
        assert item.length == TOKENS
        assert item.metrics["exact_match"] == 1


def test_smd_gives_the_provider_what_stands_before_the_text(
    chatting: Bundle, prompts: list[Prompt], corpus: tuple[tuple[int, ...], ...]
) -> None:
    public, views = served(Smd(), chatting, prompts, corpus)
    for prompt, view in zip(prompts, views, strict=True):
        assert tuple(view.of(StartDecode)[0].public.tolist()) == prompt.wrapper.head
        assert view.wrapper == prompt.wrapper
        guess = guessed(PartialAttentionInversion(), public, view)
        assert guess.ids == prompt.ids
        assert guess.certified
    _, (more,) = served(Smd(public_tokens=len(prompts[0].wrapper.head) + 2), chatting, prompts[:1], corpus)
    assert more.of(StartDecode)[0].public.numel() == len(prompts[0].wrapper.head) + 2


def test_smd_stays_exact(chatting: Bundle, prompts: list[Prompt]) -> None:
    prompt, following = prompts[0], (7, 8, 9)
    with Smd().prepare(chatting).deploy(Boundary()) as deployment:
        got = deployment.score(prompt.ids, following, wrapper=prompt.wrapper)
    assert (got - plain_logits(chatting, prompt.ids, following)).abs().max() < 1e-4


def test_what_stands_behind_the_text_helps_to_read_it(chatting: Bundle) -> None:
    """Seven rows are too few for twenty tokens that nobody knows; four of them are known."""
    (prompt,) = wrapped_prompts(generate("personal", "validation", 1, 0), chatting.tokenizer, 16)
    public, (view,) = served(Smd(), chatting, [prompt], (), new=8)
    told = guessed(PartialAttentionInversion(), public, view)
    assert told.ids == prompt.ids
    assert told.certified
    assert sum(value for name, value in told.facts.items() if name.endswith("_tokens")) == 16, "none that is public"


@pytest.mark.parametrize("defense", [DpText(epsilon=1.0), DpText(mechanism="dchi", epsilon=1.0)])
def test_noise_leaves_a_wrapper_alone(
    chatting: Bundle, prompts: list[Prompt], corpus: tuple[tuple[int, ...], ...], defense: DpText
) -> None:
    public, views = served(defense, chatting, prompts, corpus, new=1)
    for prompt, view in zip(prompts, views, strict=True):
        sent = tuple(view.of(PromptIds)[0].ids.tolist())
        assert sent != prompt.ids
        assert (sent[: prompt.place.start], sent[prompt.place.stop :]) == (prompt.wrapper.head, prompt.wrapper.tail)
        assert guessed(BayesToken("nearest"), public, view).ids == sent


def test_decoys_stand_in_the_same_wrapper(
    chatting: Bundle, prompts: list[Prompt], corpus: tuple[tuple[int, ...], ...]
) -> None:
    prompt = prompts[0]
    whole = Po(fakes=2).spans_of(Prompt("p", prompt.text, prompt.ids, wrapper=prompt.wrapper), chatting)
    assert [(span.start, span.end) for span in whole] == [(prompt.place.start, prompt.place.stop)]
    public, (view,) = served(Po(fakes=2), chatting, [prompt], corpus)
    guess = guessed(PickStream(["likelihood", "retokenisation", "random"]), public, view)
    assert prompt.ids in guess.candidates
    assert {one[: prompt.place.start] for one in guess.candidates} == {prompt.wrapper.head}
    assert {one[prompt.place.stop :] for one in guess.candidates} == {prompt.wrapper.tail}
    assert len({one[prompt.place] for one in guess.candidates}) == 3


INVERSION: dict[str, Any] = {
    **{"length": 8, "outputs": 4, "windows": 1, "samples": 0, "epochs": 1, "batch": 16, "learning_rate": 1e-3},
    **{"seed": 0, "proposals": 4, "candidates": 24, "round_size": 8, "branches": 2, "weight": 1.0},
    **{"first_weight": 0.5, "tolerance": 0.01, "ranked": 3},
}
GUESSES = {
    "prior": (Smd(), lambda: Prior(4, 4)),
    "bayes_token": (DpText(survival=0.3), lambda: BayesToken("beam", beam=4)),
    "vocab_matching": (Split(layer=1), VocabMatching),
    "vocab_matching, permuted rows": (Split(layer=1, permute="sequence"), VocabMatching),
    "vocab_matching, noise on embeddings": (DpHidden(survival=0.3), VocabMatching),
    "vocab_matching, noise deeper": (DpHidden(layer=1, epsilon=200.0), VocabMatching),
    "output_inversion": (Smd(), lambda: OutputInversion(**INVERSION)),
}


@pytest.mark.parametrize("name", GUESSES)
def test_what_is_public_is_right_in_every_guess(
    chatting: Bundle, prompts: list[Prompt], corpus: tuple[tuple[int, ...], ...], name: str
) -> None:
    defense, attack = GUESSES[name]
    public, (view,) = served(defense, chatting, prompts[:1], corpus, new=4)
    guess, wrapper = guessed(attack(), public, view), prompts[0].wrapper
    assert len(guess.ids) == len(prompts[0].ids)
    known = wrapper.known(len(guess.ids))
    assert {place: guess.ids[place] for place in known} == known
    if guess.ranked:
        assert {place: guess.ranked[place][0] for place in known} == known


def test_a_key_is_known_at_a_wrappers_tokens(chatting: Bundle, prompts: list[Prompt]) -> None:
    plain = {"inflate": 0, "tilt": 0, "gaussian": 0, "awareness_steps": 0, "function_steps": 0}
    prepared, boundary = Shaking(**plain).prepare(chatting, seed=1), Boundary()  # type: ignore[arg-type]
    with prepared.deploy(boundary) as deployment:
        deployment.generate(prompts[0], 2)
        view = boundary.view(deployment.shows)
    pairs, wrapper = public_pairs([view]), prompts[0].wrapper
    assert set(pairs.values()) == {*wrapper.head, *wrapper.tail}
    assert any(cipher != plain for cipher, plain in pairs.items())
    assert list(prepared.code.decode(list(pairs))) == list(pairs.values())
    assert not public_pairs([replace(view, wrapper=BARE)])


def test_a_hidden_value_is_found_in_its_wrapper(chatting: Bundle) -> None:
    documents = generate("mixed", "validation", 12, 0)
    values = Register.of(Synthetic(), "name", chatting.tokenizer, 0, size=2000)
    asked = wrapped_prompts(documents, chatting.tokenizer, 40)
    rngs = (np.random.default_rng(number) for number in range(len(asked)))
    pairs = [(p, hide(p, chatting.tokenizer, values, 20, rng)) for p, rng in zip(asked, rngs, strict=True)]
    prompt, hidden = next((p, found) for p, found in pairs if found and len(found.template.candidates) > 5)
    template = hidden.template
    filled = (*template.ids[: template.start], *template.candidates[hidden.truth], *template.ids[template.end :])
    assert filled == prompt.ids
    attack = GuessAndVerify()
    public, (view,) = served(Smd(), chatting, [prompt], (), new=4)
    attack.fit(public)
    assert attack.fill(view, template, np.random.default_rng(0)).choices[0] == hidden.truth


def test_a_cell_is_of_what_the_user_wrote_whatever_stands_around_it(tmp_path: Path, chatting: Bundle) -> None:
    model = ["model=local", f"model.path={saved(chatting, tmp_path / 'model')}", "data=personal"]
    sizes = ["n_prompts=2", "prompt_tokens=8", "max_new_tokens=2", f"results_dir={tmp_path}"]
    for chat in ("true", "false"):
        assert smd(["run", *model, *sizes, f"data.chat={chat}", "defense=none", "attack=reading"]) == 0
    one, other = (read(folder) for folder in sorted((tmp_path / "cells").iterdir()))
    wrapped, bare = (one, other) if one.cell.data.get("chat") else (other, one)
    assert "chat" not in bare.cell.data
    for inside, alone in zip(read_items(wrapped.items), read_items(bare.items), strict=True):
        assert list(inside.truth_ids[:7]) == list(alone.truth_ids[1:]), "but for the begin-of-sequence token"
        assert list(inside.guess_ids) == list(inside.truth_ids)
        assert inside.metrics["exact_match"] == 1
    assert "perplexity" in bare.metrics
    assert "perplexity" not in wrapped.metrics, "behind a message stands an answer"
