"""``smd report``: what attacks made of each prompt, on the terminal and as one HTML page. It shows secrets in clear."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from experiments.composing.app import launch
from experiments.composing.overrides import nearest
from smd_research.core.errors import RecordError

if TYPE_CHECKING:
    from smd_research.records import Record


def chosen(results_dir: Path, wanted: str | None) -> list["Record"]:
    """The records to show: those whose folder name contains ``wanted``, else each defense under its best attack.

    Raises:
        RecordError: there are none.
    """
    from smd_research.records import Store, load, readable
    from smd_research.reports.batteries import batteries

    folders = {folder.name: folder for folder in Store(results_dir).filled()}
    if wanted:
        found = [folder for name, folder in folders.items() if wanted in name]
        if not found:
            raise RecordError(f"no record in {results_dir} is named '{wanted}': {nearest(wanted, folders)}")
        return [record for record in readable(found) if record.status == "ok"]
    best = [battery.best("token_accuracy") for battery in batteries(load(results_dir))]
    ids = {score.id for score in best if score}
    return list(readable(folder for name, folder in folders.items() if name.rpartition("-")[2] in ids))


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd report`` command."""

    def one(cfg: DictConfig) -> None:
        from experiments.commands.show import console
        from experiments.commands.sweep import title_of
        from smd_research.reports.render.page import write_report
        from smd_research.reports.render.prompt_view import show_prompts

        results_dir = Path(cfg.results_dir).expanduser()
        out = console()
        for record in chosen(results_dir, cfg.cell):
            out.rule(title_of(record.cell), align="left")
            if record.items.empty or not record.metrics.keys() & {"token_accuracy"}:
                out.print("nobody attacked here")
                continue
            try:
                show_prompts(record, out, cfg.prompts)
            except RecordError as error:  # of this record, which has no texts; the next ones are shown
                print(error)
        page = write_report(results_dir, Path(cfg.html) if cfg.html else results_dir / "report.html", cfg.prompts)
        print(f"page: {page}")

    return launch(one, "report", "smd report", argv)


if __name__ == "__main__":
    sys.exit(main())
