"""Every block of docs/python.md and the first of README runs as it is printed, in an empty folder."""

import re
from pathlib import Path

import pytest

from experiments.lab import Lab

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str) -> list[str]:
    """The Python blocks of a page that open the laboratory."""
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in found if "import Lab" in block]


PAGE, README = blocks("docs/python.md"), blocks("README.md")


def test_readme_shows_the_five_lines_of_the_page() -> None:
    (shown,) = README
    assert PAGE[0].startswith(shown.partition("print")[0])


def test_every_secret_has_its_lines() -> None:
    text = "".join(PAGE)
    for word in ('defense="smd"', 'defense="po"', 'defense="slip"', 'defense="shaking"', 'defense="dp_text"'):
        assert word in text


@pytest.mark.slow
@pytest.mark.parametrize("block", [*PAGE, *README], ids=lambda block: block.splitlines()[2][:60])
def test_a_block_runs_as_printed(block: str, in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, object] = {}
    exec(compile(block, "block", "exec"), scope)
    assert any(isinstance(one, Lab) for one in scope.values())
    assert capsys.readouterr().out.strip()
    assert not [*in_folder.iterdir()]
