"""``smd score``: what is a function of the items of a record is computed anew: scores, controls, means, intervals."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from experiments.composing.app import launch
from smd_research.core.progress import track


def score(results_dir: Path) -> Counter[str]:
    """Score every record of a folder anew and write what changed.

    Returns:
        How many records were scored anew, were up to date, or have an obstacle, by its words.

    Raises:
        RecordError: there are none, or one cannot be written.
    """
    from experiments.trials.rescoring import obstacle, rescored
    from smd_research.records import Store, readable
    from smd_research.records.record import metrics_document

    store = Store(results_dir)
    folders = store.filled()
    counted: Counter[str] = Counter()
    for record in readable(track(folders, "score")):
        if why := obstacle(record):
            counted[f"not scored anew: {why}"] += 1
            continue
        found = rescored(record)
        same = metrics_document(found) == metrics_document(record)
        if not same:
            store.write(found)
        counted["up to date" if same else "scored anew"] += 1
    return counted


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd score`` command."""

    def one(cfg: DictConfig) -> None:
        from smd_research.metrics import SCORES

        for what, count in score(Path(cfg.results_dir).expanduser()).most_common():
            print(f"{count} record{'s' * (count != 1)} {what}")
        print(f"version of the scores: {SCORES}")

    return launch(one, "score", "smd score", argv)


if __name__ == "__main__":
    sys.exit(main())
