"""``smd list``: the configuration groups, what each option is, and the values that one takes."""

import sys
from collections.abc import Sequence

from experiments.composing.catalogue import columns, description, explained
from experiments.composing.overrides import UsageError, folders, groups, nearest
from smd_research.core.paths import conf_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Print every group, or those named, with one line for each option; of ``GROUP=OPTION`` its values."""
    wanted = list(sys.argv[1:] if argv is None else argv)
    if wanted and wanted[0] in ("-h", "--help"):
        print("smd list [-cd DIR] [GROUP | GROUP=OPTION ...]: what there is to choose from; of an option, its values")
        return 0
    places = [conf_dir(), *folders(wanted)]
    words = [word for word in wanted if word not in ("-cd", "--config-dir") and "-dir=" not in word]
    words = [word for word in words if word not in map(str, places)]
    known: dict[str, list[str]] = {}
    for place in places:
        for group, options in groups(place).items():
            known[group] = sorted({*known.get(group, []), *options})
    try:
        for word in words or known:
            group, _, option = word.partition("=")
            if group not in known:
                raise UsageError(f"unknown group '{group}': {nearest(group, known)}")
            if option and option not in known[group]:
                raise UsageError(f"unknown {group} '{option}': {nearest(option, known[group])}")
            files = {
                name: next(path for place in places[::-1] if (path := place / group / f"{name}.yaml").exists())
                for name in ([option] if option else known[group])
            }
            if not option:
                print(f"{group}=\n{columns((name, description(file)) for name, file in files.items())}")
                continue
            print(f"{word}: {description(files[option])}")
            print(columns((f"{group}.{name}={value}", said) for name, value, said in explained(files[option])))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
