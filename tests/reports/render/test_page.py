import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from grid import SPANS, TEXT, records
from rich.console import Console

from smd_research.core.errors import RecordError
from smd_research.data.prompts import TokenSpan
from smd_research.records import Item, Record, Status, Store
from smd_research.reports.marks import TokenVerdict, marks
from smd_research.reports.render.page import prompt_html, write_report
from smd_research.reports.render.prompt_view import guess_text, show_prompts, truth_text

ITEM = Item(
    "p0",
    {"token_accuracy": 0.5, "span_exact": 0.0},
    ["My", " name", " Ann", " Lee<b>", "\n"],
    ["My", " son", " Bob", None],
    [TokenSpan(2, 4, "name")],
)


def test_every_token_gets_its_verdict() -> None:
    found = marks(ITEM)
    assert [mark.verdict for mark in found] == ["recovered", "wrong", "wrong", "abstained", "abstained"]
    assert [mark.secret for mark in found] == ["", "", "name", "name", ""]
    assert "Ann" not in repr(found[2])


def test_ids_decide_before_texts() -> None:
    item = Item("p", {}, ["\ufffd", "a"], ["\ufffd", "a"], truth_ids=[1, 2], guess_ids=[3, 2])
    assert [mark.verdict for mark in marks(item)] == ["wrong", "recovered"]


def test_an_unattacked_prompt_is_untried() -> None:
    assert [mark.verdict for mark in marks(Item("p", {}, ["a"]))] == [TokenVerdict.UNTRIED]


def test_terminal_colours() -> None:
    truth = truth_text(ITEM)
    assert truth.plain == "My name Ann Lee<b>↵"
    styles = {truth.plain[span.start : span.end]: str(span.style) for span in truth.spans}
    assert styles["My"] == "bold green"
    assert styles[" Ann"] == "red underline"
    assert styles[" Lee<b>"] == "bright_black underline"
    assert guess_text(ITEM).plain == "My son Bob··"


def test_terminal_view_shows_the_first_prompts() -> None:
    record = next(r for r in records() if r.status is Status.OK)
    console = Console(file=io.StringIO(), width=100)
    show_prompts(record, console, limit=2)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "clinical-001" in shown
    assert "clinical-002" not in shown
    assert "10 more prompts" in shown


def test_terminal_view_shows_prompts_with_a_kind_of_secret() -> None:
    record = next(r for r in records() if r.status is Status.OK)
    console = Console(file=io.StringIO(), width=100)
    show_prompts(record, console, secret="name")
    assert isinstance(console.file, io.StringIO)
    assert "clinical-001" in console.file.getvalue()
    with pytest.raises(RecordError, match="no prompt holds a secret of type 'address'"):
        show_prompts(record, console, secret="address")


def test_a_cell_without_prompts_says_why() -> None:
    record = next(r for r in records() if r.status is Status.NOT_APPLICABLE)
    with pytest.raises(RecordError, match="needs what"):
        show_prompts(record)


def test_prompt_html_escapes_and_marks() -> None:
    html = prompt_html(ITEM)
    assert "Lee&lt;b&gt;" in html
    assert '<span class="wrong secret" title="name"> Ann</span>' in html
    assert "<b>" not in html


class Balance(HTMLParser):
    """Checks that what is opened is closed."""

    VOID = frozenset({"meta", "img", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    for record in records():
        store.write(record)
    return tmp_path


def test_the_page_stands_alone(results: Path) -> None:
    html = write_report(results, results / "out" / "report.html", prompts=2).read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert {"table", "img", "details"} <= parser.seen
    assert "script" not in parser.seen
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "url(" not in html
    assert "partial_attention_inversion" in html
    assert TEXT[SPANS[0].start] in html


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no records"):
        write_report(tmp_path, tmp_path / "report.html")


def test_a_place_that_cannot_be_written_is_one_line(results: Path) -> None:
    with pytest.raises(RecordError, match="cannot write") as caught:
        write_report(results, results / "cells" / next((results / "cells").iterdir()).name / "metrics.json" / "x.html")
    assert "\n" not in str(caught.value)


def test_the_page_holds_nothing_of_unattacked_cells(results: Path, record_with: object) -> None:
    only = [r for r in records() if r.cell.attack["name"] == "prior"]
    folder = results / "only"
    for record in only:
        Store(folder).write(record)
    html = write_report(folder, folder / "report.html").read_text(encoding="utf-8")
    assert "Prompt by prompt" not in html
    assert isinstance(only[0], Record)
