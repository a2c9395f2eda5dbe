"""The pages of a board as a reader meets them: in Chromium, from the disk."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import PATH, Page, opened
from made_board import HOSTILE, all_records, all_tables, hostile_record, many, sourced_of

from smd_research.metrics import CARDS
from smd_research.records import Record, Status, frame_of
from smd_research.reports.board import write_board
from smd_research.reports.points import points
from smd_research.reports.render import numbers
from smd_research.reports.tradeoffs import paired, undominated

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PATH is None, reason="no Chromium here: Debian's package chromium brings one"),
]
VIEWS = ("#/matrix", "#/frontier", "#/tables", "#/tables/summary", "#/cells", "#/frontier?show=every&logx=1&x=tpot_ms")
FOUND = all_records()
PLACE = json.dumps("td a[href*='defense=dp_text'][href*='attack=bayes_token']")
"""A place of the matrix, as JavaScript."""

ATTACKED = next(one for one in FOUND if one.texts and len(one.items) and one.cell.attack["name"] == "bayes_token")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "board"
    write_board(sourced_of(FOUND), out, all_tables(FOUND))
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A page of its own size and theme that must end without a complaint and without having asked a network."""
    browser.resize(1280, 900)
    browser.prefer("light")
    browser.problems.clear()
    browser.requests.clear()
    yield browser
    assert browser.problems == []
    assert [one for one in browser.requests if not one.startswith(("file:", "data:", "blob:", "about:"))] == []


def cell_address(record: Record) -> str:
    return f"#/cell/{record.cell.id}"


@pytest.mark.parametrize("address", [*VIEWS, *(cell_address(one) for one in FOUND[-3:])])
def test_every_page_opens_and_says_what_it_is(page: Page, folder: Path, address: str) -> None:
    page.open(folder, address)
    assert page.run("document.querySelectorAll('h1').length") == 1
    assert page.run("document.title").endswith("smd board")
    assert page.run("document.querySelectorAll('#pages [aria-current=page]').length") == 1
    unnamed = "[...document.querySelectorAll('select, input')].filter((one) => !one.labels.length).length"
    assert page.run(unnamed) == 0
    bare = (
        "[...document.querySelectorAll('table')].filter((one) => !one.caption || !one.querySelector('th[scope=col]'))"
    )
    assert page.run(f"{bare}.length") == 0


def test_the_library_draws_what_the_filter_leaves(page: Page, folder: Path) -> None:
    page.open(folder, "#/frontier?x=token_accuracy&y=tpot_ms&show=every&defense=dp_text")
    drawn = "board.chart.getOption().series.filter((one) => one.type === 'scatter').flatMap((one) => one.data)"
    measured = [one for one in FOUND if one.cell.defense["name"] == "dp_text" and "tpot_ms" in one.metrics]
    values = sorted(one["value"] for one in page.run(f"{drawn}.map(({{ value }}) => ({{ value }}))"))
    told = sorted([one.metrics["token_accuracy"].mean, one.metrics["tpot_ms"].mean] for one in measured)
    assert np.allclose(values, told, rtol=1e-6)
    page.run("board.chart.dispatchAction({ type: 'showTip', seriesIndex: 0, dataIndex: 0 })")
    assert "dp_text" in page.wait("document.querySelector('.hint')?.textContent")


def test_a_mark_stands_for_its_strongest_attack(page: Page, folder: Path) -> None:
    page.open(folder, "#/frontier?x=token_accuracy&y=tpot_ms")
    drawn = "board.chart.getOption().series.filter((one) => one.type === 'scatter').flatMap((one) => one.data)"
    shown = page.run(f"{drawn}.map((one) => [one.name, one.value[0], board.records.cells.id[one.point.cell]])")
    by_setting: dict[str, list[Record]] = {}
    for one in FOUND:
        if {"token_accuracy", "tpot_ms"} <= one.metrics.keys():
            by_setting.setdefault(json.dumps(one.cell.defense), []).append(one)
    tested = [
        cells
        for cells in by_setting.values()
        if any(one.cell.attack["name"] not in ("random", "prior") for one in cells)
    ]
    best = [max(one.metrics["token_accuracy"].mean for one in cells) for cells in tested]
    assert sorted(value for _, value, _ in shown) == pytest.approx(sorted(best), rel=1e-6)


def test_what_no_other_beats_is_that_of_the_figures(page: Page, folder: Path) -> None:
    page.open(folder, "#/frontier?x=token_accuracy&y=perplexity")
    settings = paired(points(frame_of(FOUND)), "token_accuracy", "perplexity")
    best = undominated([one for one in settings if one.tested])
    assert len(best) > 1
    rows = page.run("[...document.querySelector('main table').tBodies[0].rows].map((row) => row.cells[2].textContent)")
    shown = [numbers.share(one.leak.value) for one in best]
    assert [text[: len(share)] for text, share in zip(rows, shown, strict=True)] == shown


def test_a_click_on_a_place_filters_and_back_returns(page: Page, folder: Path) -> None:
    page.open(folder, "#/matrix?metric=token_accuracy&data=synthetic")
    assert "4 cells" in page.wait(f"document.querySelector({PLACE})?.textContent")
    page.click(json.loads(PLACE))
    page.wait("document.querySelector('h1').textContent === 'Cells'")
    assert page.run("location.hash").startswith("#/cells?")
    assert page.text(".total").startswith("4 of ")
    assert page.run("document.querySelectorAll('main tbody tr').length") == 4
    page.run("history.back()")
    page.wait("document.querySelector('.matrix')")
    assert page.run("location.hash") == "#/matrix?metric=token_accuracy&data=synthetic"


def test_filters_count_are_told_and_go_along(page: Page, folder: Path) -> None:
    page.open(folder, "#/cells")
    page.choose("Defense", "split")
    count = sum(one.cell.defense["name"] == "split" for one in FOUND)
    page.wait(f"document.getElementById('status').textContent.startsWith('{count} of ')")
    assert "defense=split" in page.run("document.querySelector('#pages [data-view=frontier]').hash")
    page.click(".filters .quiet-button")
    page.wait(f"document.querySelector('.total').textContent.startsWith('{len(FOUND)} of ')")


def test_words_are_searched_as_they_are_typed(page: Page, folder: Path) -> None:
    page.open(folder, "#/cells")
    page.run("document.querySelector('input[type=search]').focus()")
    page.call("Input.insertText", text="vocab split")
    count = sum(one.cell.defense["name"] == "split" and one.cell.attack["name"] == "vocab_matching" for one in FOUND)
    page.wait(f"document.querySelector('.total').textContent.startsWith('{count} of ')")
    assert page.run("document.querySelector('input[type=search]').value") == "vocab split"
    page.open(folder, page.run("location.hash"))
    assert page.text(".total").startswith(f"{count} of ")


def test_a_column_sorts(page: Page, folder: Path) -> None:
    page.open(folder, "#/cells?metric=token_accuracy&sort=value&down=1")
    assert page.run("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"
    first = page.text("main tbody tr td:last-child")
    best = max(one.metrics["token_accuracy"].mean for one in FOUND if "token_accuracy" in one.metrics)
    assert first.startswith(numbers.share(best))


def test_numbers_are_those_of_the_record(page: Page, folder: Path) -> None:
    page.open(folder, cell_address(ATTACKED))
    cells = "[row.dataset.metric, ...[...row.cells].map((one) => one.textContent)]"
    rows = page.run(f"[...document.querySelectorAll('tr[data-metric]')].map((row) => {cells})")
    assert {row[0] for row in rows} == set(ATTACKED.metrics)
    for name, _, mean, _, n, _ in rows:
        estimate, card = ATTACKED.metrics[name], CARDS[name]
        share, size = card.ceiling == 1.0, card.unit == "B"
        plain = f"{numbers.quantity(estimate.mean)} {card.unit}".rstrip()
        assert mean == (numbers.share(estimate.mean) if share else numbers.byte_count(estimate.mean) if size else plain)
        assert n == str(estimate.n)


def test_the_matrix_shows_the_strongest(page: Page, folder: Path) -> None:
    page.open(folder, "#/matrix?metric=span_exact&data=synthetic")
    shown = page.run(f"document.querySelector({PLACE}).textContent")
    alike = [one for one in FOUND if (one.cell.defense["name"], one.cell.attack["name"]) == ("dp_text", "bayes_token")]
    means = [one.metrics["span_exact"].mean for one in alike]
    assert shown.startswith(numbers.share(max(means)))
    page.choose("Of several cells", "mean")
    page.wait(f"document.querySelector({PLACE}).textContent.startsWith('{numbers.share(sum(means) / len(means))}')")


def test_the_matrix_ends_with_the_control(page: Page, folder: Path) -> None:
    page.open(folder, "#/matrix?metric=span_exact&data=synthetic&defense=dp_text")
    assert page.text(".matrix thead th:last-child") == "control"
    attacks = ("nearest_token", "bayes_token")
    alike = [one for one in FOUND if one.cell.defense["name"] == "dp_text" and one.cell.attack["name"] in attacks]
    most = max(one.metrics["control_span_exact"].mean for one in alike)
    assert page.text(".matrix tbody td:last-child").startswith(numbers.share(most))
    page.click(".matrix tbody td:last-child a")
    page.wait("document.querySelector('h1').textContent === 'Cells'")
    assert "metric=control_span_exact" in page.run("location.hash")


def test_many_rows_are_shown_on_request(page: Page, tmp_path: Path) -> None:
    write_board(sourced_of(many(90)), tmp_path / "board")
    page.open(tmp_path / "board", "#/matrix?rows=variant&metric=token_accuracy")
    assert page.run("document.querySelectorAll('.matrix tbody tr').length") == 40
    page.run("[...document.querySelectorAll('button')].find((one) => one.textContent === 'Show all 85 rows').click()")
    assert page.run("document.querySelectorAll('.matrix tbody tr').length") == 85


def test_numbers_are_written_as_in_tables(page: Page, folder: Path) -> None:
    page.open(folder, "#/tables")
    drawn = np.random.default_rng(0)
    shares = [*drawn.random(300).tolist(), *(i / 16 for i in range(17)), 0.0004, 0.9996, 0.005, 0.125, -0.2, -0.004]
    assert page.run(f"{json.dumps(shares)}.map(board.numbers.share)") == [numbers.share(one) for one in shares]
    amounts = [*(10 ** drawn.uniform(-12, 8, 300)).tolist(), 0.0, 0.25, 2.5, 1000.5, 1e-3, -3.25, 12345.5]
    assert page.run(f"{json.dumps(amounts)}.map((one) => board.numbers.quantity(one))") == [
        numbers.quantity(one) for one in amounts
    ]
    sizes = [one for one in (10 ** drawn.uniform(0, 8, 300)).tolist() if not _rounds_to_hundred(one)]
    assert page.run(f"{json.dumps(sizes)}.map(board.numbers.byteCount)") == [numbers.byte_count(one) for one in sizes]


def _rounds_to_hundred(size: float) -> bool:
    """Whether Python's two digits would be written 1e+02."""
    return 99.5 <= size / 1000 ** min(math.floor(math.log(size, 1000)), 2) < 100


def test_a_hostile_prompt_stays_text(page: Page, folder: Path) -> None:
    record = hostile_record()
    page.open(folder, cell_address(record))
    page.wait("document.querySelector('.tokens')")
    assert HOSTILE.replace("\u2028", " ") in page.text(".tokens")
    assert HOSTILE in page.text(".prompt h3")
    assert HOSTILE in page.text(".facts")
    assert page.run("document.querySelectorAll('main img, main script').length") == 0
    assert page.run("document.title").endswith("smd board")
    page.go("#/tables/summary")
    page.wait("document.querySelector('.claims')")
    assert page.run("document.querySelectorAll('img').length") == 0
    assert HOSTILE in page.text("h1")


def test_nothing_may_be_asked_of_a_network(page: Page, folder: Path) -> None:
    page.open(folder)
    page.run("window.refused = []; addEventListener('securitypolicyviolation', (one) => refused.push(one.blockedURI))")
    page.run("document.body.append(Object.assign(new Image(), { src: 'https://example.org/x.png' }))")
    assert page.run("fetch('https://example.org/y').then(() => 'answered', () => 'refused')") == "refused"
    page.wait("refused.length === 2")
    assert page.run("refused") == ["https://example.org/x.png", "https://example.org/y"]
    page.problems.clear()  # the browser said so as well
    page.requests.clear()  # it notes what it refused to ask


@pytest.mark.parametrize("address", [*VIEWS, cell_address(ATTACKED)])
def test_a_phone_never_scrolls_the_page_sideways(page: Page, folder: Path, address: str) -> None:
    page.resize(390, 844, phone=True)
    page.open(folder, address)
    page.wait("document.querySelector('main table, main ul, main canvas')")
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_a_keyboard_reaches_a_cell(page: Page, folder: Path) -> None:
    page.open(folder, "#/matrix?metric=token_accuracy&data=synthetic")
    for _ in range(40):
        page.press("Tab")
        if page.run("document.activeElement.matches('.matrix td a')"):
            break
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    first = page.run("document.activeElement.textContent")
    page.press("ArrowRight")
    assert page.run("document.activeElement.matches('.matrix td a')")
    assert page.run("document.activeElement.textContent") != first
    page.press("Enter")
    page.wait("document.activeElement.tagName === 'H1'")
    assert page.run("location.hash").startswith("#/cell")


def test_the_skip_link_leads_to_the_content(page: Page, folder: Path) -> None:
    page.open(folder, "#/cells")
    page.press("Tab")
    assert page.run("document.activeElement.id") == "skip"
    page.press("Enter")
    assert page.run("document.activeElement.id") == "main"
    assert page.run("location.hash") == "#/cells"


def test_light_and_dark(page: Page, folder: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page.open(folder, "#/frontier")
    light = page.run(ground)
    ink = page.run("board.chart.getOption().xAxis[0].axisLabel.color")
    page.prefer("dark")
    page.wait(f"{ground} !== {json.dumps(light)}")
    page.wait(f"board.chart.getOption().xAxis[0].axisLabel.color !== {json.dumps(ink)}")
    page.click("#theme")
    page.wait(f"{ground} === {json.dumps(light)}")
    assert page.text("#theme") == "Dark theme"
    page.run("localStorage.clear()")


def test_the_data_behind_a_page_is_a_button_away(page: Page, folder: Path) -> None:
    page.open(folder, "#/cells?defense=dp_text&metric=token_accuracy")
    page.run("window.saved = []; URL.createObjectURL = (blob) => { saved.push(blob); return 'data:,'; }")
    page.click(".buttons button:last-of-type")
    rows = json.loads(page.wait("saved[0].text()"))
    told = {
        one.cell.id: one.metrics["token_accuracy"].mean
        for one in FOUND
        if one.cell.defense["name"] == "dp_text" and one.metrics
    }
    assert {row["cell"]: row["mean"] for row in rows if row["mean"] is not None} == pytest.approx(told, rel=1e-6)
    page.click(".buttons button")
    heading, *lines = page.wait("saved[1].text()").splitlines()
    assert heading.startswith("cell,defense,attack")
    assert len(lines) == len(rows)


def test_what_was_not_recorded_is_said(page: Page, folder: Path) -> None:
    page.open(folder, cell_address(next(one for one in FOUND if not one.texts)))
    assert "record_texts=false" in page.wait("document.querySelector('.note')?.textContent")
    assert "name: 1 of 1 found" in page.text(".prompt")


def test_a_failed_cell_says_why(page: Page, folder: Path) -> None:
    page.open(folder, cell_address(next(one for one in FOUND if one.status is Status.FAILED)))
    assert page.text(".note").startswith("Failed: no luck")


def test_a_verdict_has_a_word_and_a_sign(page: Page, folder: Path) -> None:
    page.open(folder, "#/tables")
    assert page.text(".total-badges") == "All claims:✓ 1 holds✗ 1 does not? 1 undecided"
    page.click(".card")
    page.wait("document.querySelectorAll('.claims .badge').length === 3")
    page.click(".figures td a")
    page.wait("location.hash.startsWith('#/cell')")


def test_an_address_that_leads_nowhere_says_so(page: Page, folder: Path) -> None:
    page.open(folder, "#/cell/0000")
    assert page.text("h1") == "No such cell is on this board"
    page.go("#/tables/nothing")
    assert page.wait("document.querySelector('h1').textContent.includes('No table is named nothing')")
    page.go("#/elsewhere")
    page.wait("document.querySelector('.matrix')")
