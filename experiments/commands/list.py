"""``smd list``: the configuration groups and what each option is."""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.composing.overrides import groups, nearest
from smd_research.core.paths import conf_dir


def description(option: Path) -> str:
    """The first comment line of a configuration file."""
    for line in option.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Print every group, or those named, with one line for each option."""
    wanted = list(sys.argv[1:] if argv is None else argv)
    if wanted and wanted[0] in ("-h", "--help"):
        print("smd list [GROUP ...]: the options of each configuration group")
        return 0
    folder = conf_dir()
    known = groups(folder)
    for name in wanted:
        if name not in known:
            print(f"error: unknown group '{name}': {nearest(name, known)}", file=sys.stderr)
            return 2
    for name in wanted or known:
        print(f"{name}=")
        for option in known[name]:
            print(f"  {option:<28} {description(folder / name / f'{option}.yaml')}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
