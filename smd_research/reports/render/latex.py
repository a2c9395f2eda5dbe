"""Tables as LaTeX, for a paper that loads ``booktabs``; text is escaped, so that any record can be typeset."""

from smd_research.reports.tables.table import Column, Table, TableEntry

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "{-}",
    "[": "{[}",
    "]": "{]}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "µ": r"\ensuremath{\mu}",
}
"""What each character becomes. Hyphens and quotes would join to dashes and other quotes; a bracket after ``\\`` or a
rule would be read as its option."""

_PREAMBLE = "% Needs \\usepackage{booktabs}, \\usepackage{textcomp}, \\usepackage[T1]{fontenc}; UTF-8.\n"


def escaped(text: str) -> str:
    """A text that LaTeX sets as it reads; line breaks and control characters become spaces."""
    return "".join(_SPECIAL.get(c, c if c.isprintable() else " ") for c in text)


def latex(table: Table) -> str:
    """A table as a LaTeX float: caption with title, sample and command; headings, rows, footnotes.

    Intervals stand small after their value.
    """
    sides = "".join("l" if column.align == "left" else "r" for column in table.columns)
    caption = " ".join(f"{escaped(part.rstrip('.'))}." for part in (table.title, table.sample) if part)
    made = rf" Made by \texttt{{{escaped(table.command)}}}." if table.command else ""
    lines = [
        _PREAMBLE + r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{caption}{made}}}",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        *_heading(table.columns),
        r"\midrule",
        *(_row([_entry(cell) for cell in row]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    lines += [rf"\par\smallskip{{\footnotesize {escaped(note)}\par}}" for note in table.footnotes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _heading(columns: tuple[Column, ...]) -> list[str]:
    lines = [_row([escaped(column.title) for column in columns])]
    if any(column.unit for column in columns):
        lines.append(_row([rf"{{\scriptsize {escaped(column.unit)}}}" if column.unit else "" for column in columns]))
    return lines


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _entry(cell: TableEntry) -> str:
    return escaped(cell.text) + (rf" {{\scriptsize ({escaped(cell.interval)})}}" if cell.interval else "")
