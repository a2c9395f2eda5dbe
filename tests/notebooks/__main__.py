"""``python tests/notebooks [NAME ...]``: run notebooks and commit to what they show now; tells the seconds of each."""

import sys

from executing import NOTEBOOKS, execute, written


def main(names: list[str]) -> None:
    """Execute those notebooks whose names hold one of some words, or all, and write their outputs into them."""
    for path in NOTEBOOKS:
        if not names or any(name in path.name for name in names):
            done = execute(path)
            written(path, done.notebook)
            print(f"{path.name}: {done.cpu_s:.1f} s of one core", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
