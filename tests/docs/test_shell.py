"""Commands that pages show can be pasted into a shell: it would stop at a bracket that is not quoted."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(?:sh|bash|shell)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    \S.*\n(?:^      .*\n)*)+", re.MULTILINE)
SHELL = shutil.which("bash")


def blocks(page: Path) -> list[str]:
    """Blocks of a page that begin with a command of the laboratory, and those that say that they are of a shell."""
    text = page.read_text(encoding="utf-8")
    return [*FENCED.findall(text), *(one for one in INDENTED.findall(text) if re.search(r"^ +smd ", one, re.MULTILINE))]


@pytest.mark.skipif(SHELL is None, reason="there is no bash")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_shell_reads_every_command_of_a_page(page: Path) -> None:
    for block in blocks(page):
        done = subprocess.run([str(SHELL), "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{block}"


def test_commands_are_found() -> None:
    assert {page.stem for page in PAGES if blocks(page)} >= {"README", "clusters", "submitting"}
