"""``smd demo``: the main job, ``smd run experiment=demo``, in one word that any runner of packages can give."""

import sys
from collections.abc import Sequence

from experiments.commands import run


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd demo`` command; what is said besides goes to ``smd run``."""
    return run.main(["experiment=demo", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
