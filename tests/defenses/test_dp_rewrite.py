"""Rewritten text: what crosses, what is promised, what is refused."""

from typing import Any

import pytest

from smd_research.boundary import Boundary
from smd_research.boundary.messages import PromptIds
from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import PublicText
from smd_research.defenses.dp_rewrite import DpRewrite
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy

QUICK = {"reader_steps": 20, "reader_width": 32, "reader_layers": 1, "reader_tokens": 16}
IDS = (0, 7, 8, 9, 10, 11, 12, 13)


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def text(llama: Bundle) -> PublicText:
    return PublicText([p.ids for p in tokenised(generate("mixed", "train", 60, 0), llama.tokenizer, 40, 0)])


def sent(
    defense: DpRewrite, bundle: Bundle, text: PublicText, seed: int = 0, ids: tuple[int, ...] = IDS
) -> list[list[int]]:
    """Ids the provider received in two requests for the same prompt."""
    boundary, received = Boundary(), []
    with defense.prepare(bundle, text, seed).deploy(boundary) as deployment:
        for _ in range(2):
            deployment.generate(Prompt("p", "", ids), 2)
            received.append(boundary.view(deployment.shows).of(PromptIds)[0].ids.tolist())
    return received


@pytest.mark.parametrize("options", [{}, {"mechanism": "masked", **QUICK}], ids=["sampling", "masked"])
def test_a_text_is_written_afresh_by_seed_and_special_tokens_stay(
    llama: Bundle, text: PublicText, options: dict[str, Any]
) -> None:
    first, second = sent(DpRewrite(**options), llama, text)
    assert first != second
    assert first[0] == second[0] == 0
    assert len(first) == len(second) == len(IDS)
    assert not set(first[1:]) & llama.special_ids
    assert sent(DpRewrite(**options), llama, text) == [first, second]
    assert sent(DpRewrite(**options), llama, text, seed=1)[0] != first


def test_the_answer_is_that_of_the_rewritten_text(llama: Bundle, text: PublicText) -> None:
    boundary = Boundary()
    with DpRewrite().prepare(llama, text).deploy(boundary) as deployment:
        answer = deployment.generate(Prompt("p", "", IDS), 6).ids
        view = boundary.view(deployment.shows)
    assert answer == plain_greedy(llama, tuple(view.of(PromptIds)[0].ids.tolist()), 6)
    assert Observable.TOKEN_IDS not in view.shows
    assert view.length == len(IDS)


def test_a_masked_model_keeps_more_the_larger_epsilon_is(llama: Bundle, text: PublicText) -> None:
    def kept(epsilon: float) -> float:
        options = {**QUICK, "reader_steps": 80, "reader_width": 64, "low": -1.0, "high": 40.0}
        ids = tuple(text.corpus[0][:15])
        rows = sent(DpRewrite("masked", epsilon, **options), llama, text, ids=ids)  # type: ignore[arg-type]
        return sum(a == b for row in rows for a, b in zip(row[1:], ids[1:], strict=True)) / 28

    assert kept(1e5) > 0.6
    assert kept(1.0) < 0.3


def test_a_fixed_length_hides_that_of_the_prompt(llama: Bundle, text: PublicText) -> None:
    boundary, defense = Boundary(), DpRewrite(length=5)
    with defense.prepare(llama, text).deploy(boundary) as deployment:
        for n in (3, 8):
            deployment.generate(Prompt("p", "", IDS[:n]), 2)
            view = boundary.view(deployment.shows)
            assert (len(view.of(PromptIds)[0].ids), view.length) == (6, None)


def test_a_template_stands_around_the_text(llama: Bundle, text: PublicText) -> None:
    found = DpRewrite(template="Say {text} again:").parameters(llama, text.corpus)
    assert found is not None
    assert (bool(found.before), bool(found.behind)) == (True, True)
    plain = DpRewrite().parameters(llama, text.corpus)
    assert plain is not None
    assert (plain.before, plain.behind) == ((), (llama.end_id,))


def test_what_passes_holds_no_digit_and_comes_from_public_text(llama: Bundle, text: PublicText) -> None:
    found = DpRewrite("masked", keep="public", **QUICK).parameters(llama, text.corpus)  # type: ignore[arg-type]
    assert found is not None
    assert 0 < len(found.passed) <= 50
    assert set(found.passed) <= {token for document in text.corpus for token in document}
    assert not any(c.isdigit() for token in found.passed for c in llama.decode([token]))


def test_the_promise(llama: Bundle, text: PublicText) -> None:
    prepared = DpRewrite(epsilon=8.0).prepare(llama, text)
    assert prepared.guarantee is not None
    assert prepared.guarantee.of_text(10) == 80.0
    published = prepared.published()
    assert published["epsilon"] == 8.0
    assert published["low"] < published["high"]  # type: ignore[operator]
    assert prepared.guarantee.sensitivity == pytest.approx(published["high"] - published["low"])  # type: ignore[operator]
    assert DpRewrite(clipped=False).prepare(llama, text).guarantee is None


def test_the_user_draws_nothing_that_is_public(llama: Bundle, text: PublicText) -> None:
    defense = DpRewrite("masked", **QUICK)  # type: ignore[arg-type]
    one, other = (defense.prepare(llama, text, seed).published() for seed in (0, 1))
    assert one["reader"] is other["reader"]
    assert (one["low"], one["high"]) == (other["low"], other["high"])


def test_without_public_text_there_is_a_provider_and_no_client(llama: Bundle) -> None:
    prepared = DpRewrite().prepare(llama)
    assert (prepared.parameters, prepared.guarantee) == ((), None)
    with prepared.deploy(Boundary()) as deployment, pytest.raises(ConfigError, match="needs public text"):
        deployment.generate(Prompt("p", "", IDS), 2)
    assert DpRewrite(low=0.0, high=1.0).prepare(llama).guarantee is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mechanism": "snow"}, "mechanism=snow is unknown"),
        ({"mechanism": "masked", "keep": "names"}, "keep=names is unknown"),
        ({"epsilon": 0.0}, "epsilon=0 is out of range"),
        ({"epsilon": -1.0}, "epsilon=-1 is out of range"),
        ({"epsilon": float("nan")}, "epsilon=nan is out of range"),
        ({"low": 1.0}, "go together"),
        ({"low": 2.0, "high": 1.0}, "lies above"),
        ({"low": 1.0, "high": 1.0}, "zero width"),
        ({"length": 0}, "length=0 is out of range"),
        ({"template": "Paraphrase:"}, r"name \{text\} once"),
        ({"mechanism": "masked", "reader_width": 30}, "no multiple of 4"),
    ],
)
def test_what_promises_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        DpRewrite(**options)
    assert "\n" not in str(caught.value)


def test_what_the_model_rules_out_is_refused(llama: Bundle, text: PublicText) -> None:
    with pytest.raises(ConfigError, match="leaves no room"):
        DpRewrite(length=llama.geometry.context).prepare(llama, text)
    with pytest.raises(ConfigError, match="no tokens to find bounds with"):
        DpRewrite().prepare(llama, PublicText([(0,)]))
    with pytest.raises(ConfigError, match="needs more public text"):
        DpRewrite("masked", **QUICK).prepare(llama, PublicText([tuple(range(5, 20))]))  # type: ignore[arg-type]
