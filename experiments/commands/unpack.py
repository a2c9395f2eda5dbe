"""``smd unpack``: the records that a table was made of, from the file packed beside it into a results folder."""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from experiments.composing.app import launch


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd unpack`` command."""

    def one(cfg: DictConfig) -> None:
        from smd_research.records import Store, unpack

        store = Store(Path(cfg.results_dir).expanduser())
        written, kept = unpack(Path(cfg.packed).expanduser(), store)
        there = f"; {len(kept)} were there before and stay" if kept else ""
        print(f"{len(written)} records into {store.cells}{there}")

    return launch(one, "unpack", "smd unpack", argv)


if __name__ == "__main__":
    sys.exit(main())
