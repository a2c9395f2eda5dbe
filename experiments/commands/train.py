"""``smd train``: train the model that the lab ships, or one of another architecture like it; or continue."""

import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from experiments.composing import app


def task(cfg: DictConfig) -> None:
    """Train; what is wrong with the configuration was said before torch is loaded."""
    from experiments.commands.training import trained_as

    trained_as(cfg)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return app.launch(task, "train", "smd train", argv)


if __name__ == "__main__":
    sys.exit(main())
