"""The generator: deterministic, disjoint between splits, and its spans mark what they say."""

import itertools
import re
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.errors import ConfigError
from smd_research.data.prompts import Document
from smd_research.data.synthetic import REGISTERS, CorpusSplit, generate
from smd_research.data.synthetic.grammar import families, families_of_split, parse, templates
from smd_research.data.synthetic.pools import SECRET_KINDS, pools
from smd_research.data.synthetic.values import SECRET_TYPE

FORMS = {
    "date_of_birth": r"\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4}|\d{1,2} [A-Z][a-z]+ \d{4}|[A-Z][a-z]+ \d{1,2}, \d{4}",
    "amount": r"[$£€][\d,]+(\.\d\d)?|[\d,]+(\.\d\d)? EUR",
    "email": r"[a-z0-9.]+@[a-z.]+",
    "dose": r"[\d.]+ (mg|mcg|units|ml) .+",
    "phone": r"[+(\d][\d ()-]+\d",
    "clinician": r"(Dr|Prof) .+",
}


def marked(document: Document) -> list[tuple[str, str]]:
    return [(span.type, document.text[span.start : span.end]) for span in document.spans]


@pytest.mark.parametrize("register", [*REGISTERS, "mixed"])
def test_deterministic_by_seed_and_independent_of_n(register: str) -> None:
    long = generate(register, "train", 12, seed=3)
    assert generate(register, "train", 5, seed=3) == long[:5]
    assert generate(register, "train", 4, seed=3, start=8) == long[8:]
    assert generate(register, "train", 12, seed=4) != long
    assert len({document.id for document in long}) == 12


def test_mixed_takes_the_registers_in_turn() -> None:
    assert [document.register for document in generate("mixed", "train", 6)] == [*REGISTERS, *REGISTERS]


@pytest.mark.parametrize("register", REGISTERS)
@pytest.mark.parametrize("split", list(CorpusSplit))
def test_spans_mark_values_of_their_type(register: str, split: CorpusSplit) -> None:
    seen = Counter()
    for document in generate(register, split, 150, seed=1):
        assert document.spans
        ends = [0]
        for span in document.spans:
            assert ends[-1] <= span.start < span.end <= len(document.text)
            ends.append(span.end)
        for kind, text in marked(document):
            seen[kind] += 1
            assert text == text.strip()
            if kind in FORMS:
                assert re.fullmatch(FORMS[kind], text), (kind, text)
    assert len(seen) >= 8
    assert set(seen) <= set(SECRET_TYPE.values())


def test_the_subject_keeps_one_name_in_a_document() -> None:
    texts = [
        document for document in generate("clinical", "train", 60, seed=2) if document.text.startswith("DISCHARGE")
    ]
    assert texts
    for document in texts:
        name = document.text.split("Patient: ", 1)[1].split(" DOB", 1)[0]
        assert ("name", name) in marked(document)


@pytest.mark.parametrize("register", REGISTERS)
def test_no_secret_value_is_in_two_splits(register: str) -> None:
    values: dict[CorpusSplit, set[str]] = {
        split: {text.casefold() for document in generate(register, split, 1500, seed=5) for _, text in marked(document)}
        for split in CorpusSplit
    }
    for one, other in itertools.combinations(CorpusSplit, 2):
        assert values[one]
        assert not values[one] & values[other]


def test_pools_of_secret_values_are_disjoint() -> None:
    kinds = (*SECRET_KINDS, "female", "male", "last", "street", "city", "employer")
    for kind in kinds:
        for one, other in itertools.combinations(CorpusSplit, 2):
            assert not set(pools(one).values[kind]) & set(pools(other).values[kind])


@pytest.mark.parametrize("register", REGISTERS)
def test_no_template_is_in_two_splits_and_every_section_has_some(register: str) -> None:
    everything = families(register)
    assert sum(len(patterns) for patterns in everything.values()) >= 170  # clause patterns
    found: dict[CorpusSplit, set[str]] = defaultdict(set)
    for split in CorpusSplit:
        for section, patterns in families_of_split(register, split).items():
            assert patterns, section
            found[split] |= {template for pattern in patterns for template in pattern}
    assert len(set.union(*found.values())) >= 1000
    for one, other in itertools.combinations(CorpusSplit, 2):
        assert not found[one] & found[other]


@pytest.mark.parametrize("register", REGISTERS)
def test_every_slot_and_section_of_the_grammar_exists(register: str) -> None:
    sections = families(register)
    for patterns in sections.values():
        for template in itertools.chain.from_iterable(patterns):
            assert not re.search(r"  | [.,;?!]", template), template
            for piece in parse(template):
                if type(piece).__name__ == "Section":
                    assert piece.name in sections  # type: ignore[union-attr]
    for split in CorpusSplit:
        generate(register, split, 300, seed=11)  # an unknown slot would raise


def test_texts_are_clean_english_lines() -> None:
    for document in generate("mixed", "evaluation", 300, seed=8):
        assert not re.search(r"  |[{}|\[\]]|\n\n", document.text)


def test_pattern_notation() -> None:
    assert set(templates("[a|b [c|d]]!")) == {"a!", "b c!", "b d!"}
    assert set(templates("x [y|] z[, w|].")) == {"x y z, w.", "x y z.", "x z, w.", "x z."}
    for wrong in ("a [b|c", "a b] c"):
        with pytest.raises(ConfigError, match="grammar pattern"):
            templates(wrong)
    with pytest.raises(ConfigError, match="stray brace"):
        parse("a {b c")


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([*REGISTERS, "mixed"]), st.sampled_from(list(CorpusSplit)), st.integers(0, 2**32))
def test_any_seed_gives_documents_of_their_split(register: str, split: CorpusSplit, seed: int) -> None:
    document = generate(register, split, 1, seed)[0]
    assert 40 < len(document.text) < 1200
    assert document.id == f"{register}-{split}-{seed}-0"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown register 'legal'"):
        generate("legal", "train", 1)
    with pytest.raises(ConfigError, match="unknown split 'test'"):
        generate("clinical", "test", 1)
