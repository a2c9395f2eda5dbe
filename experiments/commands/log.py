"""``smd log``: send records that exist to a logger, as they would have been when their cells were run."""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.composing.app import launch
from experiments.composing.cells import values_of
from experiments.composing.overrides import UsageError, nearest
from experiments.trials.sinks import log, sync_command
from smd_research.core.errors import LabError, RecordError
from smd_research.core.progress import track


def chosen(results_dir: Path, wanted: Sequence[str]) -> list[Path]:
    """The folders of records whose names contain one of some texts; of none given, all.

    Raises:
        RecordError: there are none, or none with one of the texts.
    """
    from smd_research.records import Store

    folders = Store(results_dir).filled()
    for text in wanted:
        if not any(text in folder.name for folder in folders):
            near = nearest(text, (folder.name for folder in folders))
            raise RecordError(f"no record in {results_dir} is named '{text}': {near}")
    return [folder for folder in folders if not wanted or any(text in folder.name for text in wanted)]


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd log`` command.

    Returns:
        0; 1 when a record could not be sent; 2 for a command line that cannot be composed.
    """

    def one(cfg: DictConfig) -> None:
        from smd_research.records import readable

        logger, results_dir = values_of(cfg.logger), Path(cfg.results_dir).expanduser()
        if logger["name"] == "none":
            raise UsageError("logger=none sends nothing: choose logger=wandb or logger=csv")
        cells = cfg.cells if OmegaConf.is_list(cfg.cells) else [] if cfg.cells is None else [cfg.cells]
        folders = chosen(results_dir, [str(text) for text in cells])
        sent = [log(logger, record, results_dir) for record in readable(track(folders, "log"))]
        print(f"{sum(sent)} of {len(folders)} records sent to {logger['name']}")
        if any(sent) and (command := sync_command(logger, results_dir)):
            print(f"Send the runs to Weights & Biases: {command}")
        if sum(sent) < len(folders):
            raise LabError(
                f"{len(folders) - sum(sent)} of {len(folders)} records were not sent: see the warnings above"
            )

    return launch(one, "log", "smd log", argv)


if __name__ == "__main__":
    sys.exit(main())
