"""A changed place of a table is named by its row and column, whichever it is."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from smd_research.reports.differing import differing_csv, differing_text
from smd_research.reports.render.text import comma_separated, markdown
from smd_research.reports.tables.table import Column, Table, TableEntry

TABLE = Table(
    "A title",
    (Column("defense", align="left"), Column("tokens", "recovered"), Column("kl", "nats")),
    tuple(
        (TableEntry(name), TableEntry(f"{share:.0%}", "0 to 1", share, 0.0, 1.0, 5, ("ab",)), TableEntry("0 | 1"))
        for name, share in (("smd", 0.25), ("po", 0.5), ("split", 1.0))
    ),
    ("A footnote | with a bar.",),
    "5 prompts a cell",
    "smd table table=x",
)


def test_the_same_does_not_differ() -> None:
    assert not list(differing_csv("t.csv", comma_separated(TABLE), comma_separated(TABLE)))
    assert not list(differing_text("t.md", markdown(TABLE), markdown(TABLE)))


@given(st.integers(1, 3), st.integers(0, 6))
def test_each_place_of_a_csv_is_named(row: int, column: int) -> None:
    made = comma_separated(TABLE)
    rows = list(csv.reader(io.StringIO(made)))
    rows[row][column] += "7"
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    (line,) = differing_csv("t.csv", buffer.getvalue(), made)
    label = ("smd", "po", "split")[row - 1]
    assert line.startswith(f"t.csv: row {row} ({label}), column '{rows[0][column]}': '{rows[row][column]}'")


def test_numbers_added_up_in_another_order_are_the_same() -> None:
    assert not list(differing_csv("t.csv", "a\n0.30000000000000004\n", "a\n0.3\n"))
    assert list(differing_csv("t.csv", "a\n0.3000001\n", "a\n0.3\n"))


def test_rows_and_columns_that_were_put_in_or_left_out_are_counted() -> None:
    made = comma_separated(TABLE)
    lines = made.splitlines()
    assert list(differing_csv("t", "\n".join(lines[:-1]), made)) == ["t: 2 rows, its records make 3"]
    assert list(differing_csv("t", made.replace("tokens", "words", 1), made)) == [
        "t: its columns are not those that its records make"
    ]
    (line,) = differing_csv("t", made.replace("po,", "po,1,", 1), made)
    assert "has 8 columns, its records make 7" in line
    (line,) = differing_csv("t", 'a\n"' + "x" * 200_000 + '"\n', made)
    assert "no CSV" in line


def test_a_place_of_a_markdown_table_is_named_with_what_stands_there() -> None:
    made = markdown(TABLE)
    assert list(differing_text("t.md", made.replace("50%", "5%"), made)) == [
        "t.md: row 2 (po), column 'tokens (recovered)': '5% (0 to 1)', its records make '50% (0 to 1)'"
    ]
    (line,) = differing_text("t.md", made.replace("A footnote", "No footnote"), made)
    assert line.startswith("t.md: line 9 is '- No footnote")
    (line,) = differing_text("t.md", made + "more\n", made)
    assert line == "t.md: goes on at line 12"
    (line,) = differing_text("t.md", "### A title\n", made)
    assert line == "t.md: ends early at line 2"


def test_what_a_stranger_wrote_is_shown_on_one_printable_line() -> None:
    (line,) = differing_csv("t", "a\n\x1b[2Jx\n", "a\n0.3\n")
    assert line.isprintable()
