"""A text ends where tokenizer, configuration or generation settings say, and in every defense alike."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smd_research.boundary import Boundary
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Defense
from smd_research.defenses.none import NoDefense
from smd_research.defenses.slip import Slip
from smd_research.defenses.smd import Smd
from smd_research.defenses.split import Split
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy

NEW = 12


@pytest.fixture
def llama() -> Bundle:
    return sources.random("llama")


def ends(bundle: Bundle, tokenizer: int | None, config: Any, generation: Any) -> tuple[int, ...]:
    """What a bundle of these settings takes as the end of a text."""
    bundle.tokenizer.eos_token_id = tokenizer
    bundle.model.config.eos_token_id, bundle.model.generation_config.eos_token_id = config, generation
    return Bundle.of("one", bundle.model, bundle.tokenizer).end_ids


@pytest.mark.parametrize(
    ("tokenizer", "config", "generation", "union"),
    [
        (2, 2, 2, (2,)),
        (9, 8, [8, 7, 9], (9, 8, 7)),  # as Llama-3 names them: the tokenizer one, the generation settings all
        (None, [8, 7], None, (8, 7)),
        (None, None, None, ()),
        (4096, [-1, 5, 128009], [5, None, True, "6"], (5,)),
    ],
)
def test_the_ends_are_the_union_of_what_is_named_as_far_as_the_model_has_it(
    llama: Bundle, tokenizer: int | None, config: Any, generation: Any, union: tuple[int, ...]
) -> None:
    assert ends(llama, tokenizer, config, generation) == union


def test_every_end_is_special_and_the_tokenizer_s_is_the_one_to_write(llama: Bundle) -> None:
    several = replace(llama, end_ids=(2, 77))
    assert {2, 77} <= several.special_ids
    assert several.end_id == 2
    assert replace(llama, end_ids=()).end_id is None


def test_a_folder_s_generation_settings_are_read(llama: Bundle, tmp_path: Path) -> None:
    llama.model.generation_config.eos_token_id = [40, 41]
    llama.model.save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    assert sources.local(str(tmp_path)).end_ids == (2, 40, 41)


def test_random_weights_end_as_the_shipped_tokenizer_does(llama: Bundle) -> None:
    assert llama.end_ids == sources.embedded().end_ids == (2,)


@pytest.mark.parametrize("defense", [NoDefense(), Split(), Smd(), Slip()], ids=lambda one: type(one).__name__)
def test_any_end_ends_a_generation(llama: Bundle, defense: Defense) -> None:
    prompt = Prompt("a", "", (1, 300, 301, 302, 303))
    free = plain_greedy(replace(llama, end_ids=()), prompt.ids, NEW)
    last = next(token for token in free[2:] if token not in free[:2])
    ended = free[: free.index(last) + 1]
    bundle = replace(llama, end_ids=(2, 4000, last))
    assert plain_greedy(bundle, prompt.ids, NEW) == ended
    with defense.prepare(bundle).deploy(Boundary()) as deployment:
        assert deployment.generate(prompt, NEW).ids == ended
