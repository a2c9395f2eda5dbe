"""How long a filter of a board takes: ``python tests/reports/board/time_filters.py [CELLS]``, 5,000 by default.

Prints for each page the median and the longest of some filters, in milliseconds from the choice to the painted frame,
and the same of the time that the page's thread computed, which other work on the machine does not lengthen. Not a test:
it says nothing of another machine.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from browser import Page, opened  # noqa: E402
from made_board import many, sourced_of  # noqa: E402

from smd_research.reports.board import write_board  # noqa: E402

VIEWS = ("#/matrix", "#/matrix?rows=variant", "#/frontier?y=tpot_ms&show=every", "#/cells")
CHOICES = [("Model", one) for one in ("embedded", "smollm2", "")] + [
    ("Defense", one) for one in ("defense_3", "defense_11", "")
]


def main() -> None:
    """Make the board, open it, choose, and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "board"
        write_board(sourced_of(many(count)), out)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        print(f"{count} cells, {size / 1e6:.1f} MB")
        with opened(Path(place) / "profile") as page:
            page.resize(1280, 900)
            page.call("Performance.enable", timeDomain="threadTicks")
            for view in VIEWS:
                page.open(out, view)
                taken = [_taken(page, label, value) for _ in range(3) for label, value in CHOICES]
                told = (
                    f"median {statistics.median(one):4.0f}, longest {max(one):4.0f} ms"
                    for one in zip(*taken, strict=True)
                )
                print(f"{view:36} {'; computed '.join(told)}")


def _taken(page: Page, label: str, value: str) -> tuple[float, float]:
    """Milliseconds of a choice: on the clock, and computed by the page's thread."""
    before = _computed(page)
    clock = page.run(_timed(label, value))
    return clock, 1000 * (_computed(page) - before)


def _computed(page: Page) -> float:
    metrics = {one["name"]: one["value"] for one in page.call("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def _timed(label: str, value: str) -> str:
    """Choose, and give the milliseconds until the answer is painted."""
    return (
        "new Promise((done) => { const label = [...document.querySelectorAll('label')]"
        f".find((one) => one.textContent === {json.dumps(label)});"
        " const control = document.getElementById(label.htmlFor);"
        f" control.value = {json.dumps(value)}; const begun = performance.now();"
        " addEventListener('hashchange', () => requestAnimationFrame(() => setTimeout(() =>"
        " done(performance.now() - begun))), { once: true });"
        " control.dispatchEvent(new Event('change', { bubbles: true })); })"
    )


if __name__ == "__main__":
    main()
