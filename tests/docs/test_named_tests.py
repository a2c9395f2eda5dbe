"""Pages that name a test as the guard of something name one that there is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
NAMED = sorted({(page, name) for page, text in PAGES.items() for name in re.findall(r"`(test_\w+)`", text)})
DEFINED = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize(("page", "name"), NAMED)
def test_a_test_that_a_page_names_is_there(page: str, name: str) -> None:
    assert name in DEFINED, f"docs/{page}.md"


def test_flaws_of_released_code_have_their_tests() -> None:
    assert len([name for page, name in NAMED if page == "dp-noise"]) > 20
