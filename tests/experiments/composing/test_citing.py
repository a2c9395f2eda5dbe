"""A component notes keys of papers, some of them under conditions; bibliographies hold the entries."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.composing.citing import FILE, bibliography, cited, mentioned
from smd_research.core.errors import ConfigError

KEYS = st.from_regex(r"[a-z]+[0-9]{4}[a-z]+", fullmatch=True)


def test_keys_hang_on_the_options_as_they_are() -> None:
    note = ["a", {"epsilon": "b", "mechanism=x|y": ["c", "a"]}]
    assert cited({"cites": note, "epsilon": None, "mechanism": "z"}) == ["a"]
    assert cited({"cites": note, "epsilon": 1.0, "mechanism": "z"}) == ["a", "b"]
    assert cited({"cites": note, "epsilon": None, "mechanism": "y"}) == ["a", "c"]


@given(st.lists(KEYS, max_size=6))
def test_a_list_of_keys_is_itself_none_twice(keys: list[str]) -> None:
    assert cited({"cites": keys}) == list(dict.fromkeys(keys))


def test_own_work_and_no_note_cite_nothing() -> None:
    assert cited({"cites": "own"}) == cited({}) == cited({"cites": None}) == []


@pytest.mark.parametrize("note", [3, [None], {"": "a"}, {"mechanism=x": 1.5}])
def test_what_is_no_note_is_refused_by_name(note: Any) -> None:
    with pytest.raises(ConfigError, match=r"mine\.Mine: cites: "):
        cited({"_target_": "mine.Mine", "cites": note, "mechanism": "x"})


def test_entries_end_where_their_braces_do_and_a_later_folder_wins(tmp_path: Path) -> None:
    for name, text in (
        ("one", "% a note\n@article{a2020b,\n  title = {{A {B} c}},\n  year = {2020},\n}\n@misc{c2021d, title={D}}\n"),
        ("two", '@book{a2020b,\n  title = "other"}\n'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_text(text)
    first = bibliography([tmp_path / "one"])
    assert first == {
        "a2020b": "@article{a2020b,\n  title = {{A {B} c}},\n  year = {2020},\n}",
        "c2021d": "@misc{c2021d, title={D}}",
    }
    both = bibliography([tmp_path / "one", tmp_path / "two", tmp_path / "nowhere"])
    assert both == {**first, "a2020b": '@book{a2020b,\n  title = "other"}'}


def test_an_entry_without_an_end_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("@article{a2020b,\n  title = {A,\n}\n")
    with pytest.raises(ConfigError, match=r"'@article\{a2020b,' has no end"):
        bibliography([tmp_path])


def test_what_a_text_names_by_its_number_is_found() -> None:
    entries = {"a": "@article{a,\n  eprint = {2409.19134},\n}", "b": "@misc{b,\n  title = {of 2401.00001},\n}"}
    assert mentioned("arXiv 2409.19134v5, abstract", entries) == ["a"]
    assert mentioned("2401.00001 and 12409.191345", entries) == []
