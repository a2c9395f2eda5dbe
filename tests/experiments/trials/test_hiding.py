"""Templates hide one value among values that could stand in its place, and say nothing about which."""

from functools import cache

import numpy as np
import pytest

from experiments.trials.hiding import Hidden, Register, hide
from smd_research.core.errors import ConfigError
from smd_research.data.prompts import Prompt
from smd_research.data.sources import Jsonl, Synthetic
from smd_research.data.synthetic import CorpusSplit, generate
from smd_research.data.synthetic.partition import split_of
from smd_research.data.synthetic.registry import register
from smd_research.data.tokenise import prompts as tokenised
from smd_research.models import sources

TOKENIZER = sources.embedded_tokenizer()


@cache
def names() -> Register:
    return Register.of(Synthetic(), "name", TOKENIZER, 0, size=2000)


@cache
def hidden() -> tuple[tuple[Prompt, Hidden], ...]:
    prompts = tokenised(generate("mixed", "validation", 12, 0), TOKENIZER, 48, 0)
    pairs = ((p, hide(p, TOKENIZER, names(), 60, np.random.default_rng(i))) for i, p in enumerate(prompts))
    return tuple((prompt, found) for prompt, found in pairs if found)


def test_candidates_fit_and_hold_the_truth() -> None:
    assert len(hidden()) >= 6
    for prompt, found in hidden():
        template = found.template
        gap = slice(template.start, template.end)
        assert template.candidates[found.truth] == prompt.ids[gap]
        assert len(set(template.candidates)) == len(template.candidates)
        assert {len(c) for c in template.candidates} == {template.end - template.start}
        assert set(template.ids[gap]) == {-1}
        assert template.ids[: template.start] + template.ids[template.end :] == (
            prompt.ids[: template.start] + prompt.ids[template.end :]
        )
        assert "name" in {s.type for s in prompt.spans if (s.start, s.end) == (template.start, template.end)}


def test_a_filled_template_reads_as_the_tokenizer_would_write_it() -> None:
    for prompt, found in hidden():
        template = found.template
        for candidate in template.candidates[:5]:
            ids = [*prompt.ids[: template.start], *candidate, *prompt.ids[template.end :]]
            body = ids[1:] if ids[0] == TOKENIZER.bos_token_id else ids
            assert TOKENIZER(TOKENIZER.decode(body), add_special_tokens=False)["input_ids"] == body


def test_the_place_of_the_truth_is_drawn() -> None:
    prompt, _ = hidden()[0]
    found = (hide(prompt, TOKENIZER, names(), 60, np.random.default_rng(seed)) for seed in range(4))
    places = {one.truth for one in found if one}
    assert len(places) > 1


def test_no_secret_of_the_type_hides_nothing() -> None:
    prompt = Prompt("p", "nothing here", tuple(TOKENIZER("nothing here", add_special_tokens=False)["input_ids"]))
    assert hide(prompt, TOKENIZER, names(), 10, np.random.default_rng(0)) is None


def test_a_register_is_distinct_and_of_its_split() -> None:
    found = register("drug", "evaluation", 30)
    assert len(set(found)) == len(found)
    assert {split_of(value) for value in found} == {CorpusSplit.EVALUATION}
    assert register("drug", "evaluation", 30) == found
    assert len(register("name", "evaluation", 500)) == 500
    with pytest.raises(ConfigError, match="no secret of type"):
        register("shoe size", "evaluation", 3)


def test_other_data_gives_its_own_marked_secrets(tmp_path) -> None:
    file = tmp_path / "notes.jsonl"
    lines = [f'{{"text": "Ann{i} is here", "spans": [{{"start": 0, "end": 4, "type": "name"}}]}}' for i in range(8)]
    file.write_text("\n".join(lines), encoding="utf-8")
    found = Register.of(Jsonl(str(file)), "name", TOKENIZER, 0)
    assert set(found.values) == {f"Ann{i}" for i in range(8)}
