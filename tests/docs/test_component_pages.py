"""Every defense, attack and tuning is named on a page that says what it is."""

import re
from pathlib import Path

import pytest

from experiments.composing.overrides import groups
from smd_research.core.paths import conf_dir

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("threat-model", "serving", "weights", "keyed-shaking", "dp-noise", "reading-results")
TEXT = "\n".join((DOCS / f"{page}.md").read_text(encoding="utf-8") for page in PAGES)
NAMED = {word for code in re.findall(r"`([^`\n]+)`", TEXT) for word in re.findall(r"\w+", code)}


@pytest.mark.parametrize("group", ["defense", "attack", "tuning"])
def test_a_page_says_what_it_is(group: str) -> None:
    assert set(groups(conf_dir())[group]) - NAMED == set()
