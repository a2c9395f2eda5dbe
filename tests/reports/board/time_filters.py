"""How long a filter of a board takes: ``python tests/reports/board/time_filters.py [CELLS]``, 5,000 by default.

Prints for each page the median and the longest of some filters, in milliseconds from the choice to the painted frame.
Not a test: it needs a quiet machine, and says nothing of another one.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from browser import opened  # noqa: E402
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
            for view in VIEWS:
                page.open(out, view)
                taken = [page.run(_timed(label, value)) for _ in range(3) for label, value in CHOICES]
                print(f"{view:36} median {statistics.median(taken):5.0f} ms, longest {max(taken):5.0f} ms")


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
