"""``smd board``: records as one folder of pages, opened without a server. It shows secrets in clear."""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from experiments.composing.app import launch
from experiments.composing.overrides import UsageError
from smd_research.core.errors import RecordError


def make_board(place: Path, out: Path, *, texts: bool = True) -> Path:
    """Write the board of a results folder, a folder of packed records, or one packed file, with the tables made of it.

    Returns:
        The page to open.

    Raises:
        RecordError: there are no records, or the board cannot be written.
    """
    from experiments.composing.known_tables import known_tables
    from smd_research.reports.board import free_for_board, packed_files, sourced, write_board

    free_for_board(out)
    files = packed_files(place)
    found = sourced(place, files)
    return write_board(found, out, known_tables(place, files), texts=texts)


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd board`` command.

    Returns:
        0; 2 where there are no records, or the folder of the pages is taken or cannot be written.
    """

    def one(cfg: DictConfig) -> None:
        place = Path(cfg.results_dir).expanduser()
        beside = place.parent if place.is_file() else place
        try:
            page = make_board(place, Path(cfg.out).expanduser() if cfg.out else beside / "board", texts=cfg.texts)
        except RecordError as error:
            raise UsageError(str(error)) from error
        print(f"page: {page}")

    return launch(one, "board", "smd board", argv)


if __name__ == "__main__":
    sys.exit(main())
