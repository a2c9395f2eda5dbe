import re
import shutil
import subprocess
from pathlib import Path

import pytest
from grid import records
from hypothesis import given
from hypothesis import strategies as st

from smd_research.records import frame_of
from smd_research.reports.render.latex import _SPECIAL, escaped, latex
from smd_research.reports.tables.leak_matrix import leak_matrix
from smd_research.reports.tables.summary import summary
from smd_research.reports.tables.table import Column, Table, TableEntry

HOSTILE = Table(
    r"50 % of \input{x} & $more$",
    (Column("a_b", "kB", align="left"), Column("[c]", "#")),
    ((TableEntry("x^2 ~ {y}"), TableEntry("1", "0–2")), (TableEntry("[first]"), TableEntry("…"))),
    ("A note with 100 % & a # \\",),
    sample="n = 5, seed 0",
    command="smd table table=a_b defense.name='x'",
)


def plain(text: str) -> str:
    """The inverse of escaping: what LaTeX sets."""
    back = {value: key for key, value in _SPECIAL.items()}
    pattern = "|".join(re.escape(value) for value in sorted(back, key=len, reverse=True))
    return re.sub(pattern, lambda found: back[found.group()], text)


@given(st.text())
def test_escaping_loses_nothing_and_leaves_no_command(text: str) -> None:
    shown = escaped(text)
    assert plain(shown) == "".join(c if c.isprintable() else " " for c in text)
    rest = re.sub("|".join(re.escape(v) for v in sorted(_SPECIAL.values(), key=len, reverse=True)), "", shown)
    assert not set(rest) & set("\\{}$&#%_^~\n\r\t\0")


@given(st.lists(st.text(), min_size=4, max_size=4))
def test_any_texts_give_the_rows_and_columns_of_the_table(texts: list[str]) -> None:
    table = Table(texts[0], (Column(texts[1]), Column("b")), ((TableEntry(texts[2]), TableEntry(texts[3])),))
    body = latex(table).split("\\midrule")[1].split("\\bottomrule")[0].strip()
    assert len(re.findall(r"(?<!\\)&", body)) == 1
    assert body.endswith(r"\\")
    assert "\n" not in body


def test_braces_and_environments_balance() -> None:
    for table in (HOSTILE, summary(frame_of(records())), leak_matrix(frame_of(records())), summary(frame_of([]))):
        text = latex(table)
        bare = re.sub(r"\\[\\{}]", "", text)
        assert bare.count("{") == bare.count("}")
        assert re.findall(r"\\begin\{(\w+)", text) == re.findall(r"\\end\{(\w+)", text)[::-1]


def test_the_caption_says_what_it_rests_on_and_what_makes_it() -> None:
    text = latex(HOSTILE)
    (caption,) = re.findall(r"\\caption\{(.*)\}\n", text)
    assert "n = 5, seed 0." in caption
    assert r"Made by \texttt{smd table table=a\_b" in caption


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_it_compiles(tmp_path: Path) -> None:
    tables = latex(HOSTILE) + latex(summary(frame_of(records())))
    head = "\\documentclass{article}\\usepackage{booktabs,textcomp}\\usepackage[T1]{fontenc}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{head}{tables}\\end{{document}}\n", encoding="utf-8")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)
