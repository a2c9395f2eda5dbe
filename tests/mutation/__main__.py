"""``python tests/mutation``: change the code in many places, one at a time, and list what no test notices."""

import argparse
import sys
import tempfile
from pathlib import Path

from concern import Concern
from mutants import Mutant, draw
from trying import TestsFailError, Tree, affordable, preload

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("smd_research/mechanisms", "smd_research/metrics", "smd_research/records")


def main() -> int:
    """Try the mutants that were asked for; 0 when each was killed, 1 when some survive."""
    options = _options()
    preload()
    mutants = dict(enumerate(draw([Path(folder) for folder in options.folders], options.count, options.seed), start=1))
    wanted = options.only or list(mutants)
    concern = Concern(ROOT)
    tests = {number: concern.tests_of(mutants[number].path, options.everywhere) for number in wanted}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Tree.copied(ROOT, Path(folder))
        every = sorted({test for chosen in tests.values() for test in chosen})
        print(f"{len(every)} test files concern them; how long do they take?", flush=True)
        taken = tree.seconds(every)
        survivors = []
        for number in wanted:
            chosen = affordable(tests[number], taken, options.seconds)
            killed = tree.kills(mutants[number], chosen, sum(taken[test] for test in chosen))
            print(f"{number:3} {'killed  ' if killed else 'survives'} {_place(mutants[number])}", flush=True)
            if not killed:
                survivors.append(number)
    for number in survivors:
        print(f"\n# {number}: survives {', '.join(map(str, affordable(tests[number], taken, options.seconds)))}")
        print(mutants[number].diff(), end="")
    print(f"\n{len(wanted) - len(survivors)} of {len(wanted)} mutants killed")
    return 1 if survivors else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/mutation", description=__doc__)
    parser.add_argument("folders", nargs="*", default=FOLDERS, help=f"what is mutated (default: {' '.join(FOLDERS)})")
    parser.add_argument("--count", type=int, default=60, help="how many mutants, as many of each folder (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    parser.add_argument("--only", type=int, nargs="+", help="try these of them alone, by number")
    parser.add_argument("--everywhere", action="store_true", help="with tests of other folders than the module's too")
    parser.add_argument("--seconds", type=float, default=60, help="the most that a mutant's tests take (default: 60)")
    return parser.parse_args()


def _place(mutant: Mutant) -> str:
    line = mutant.path.read_bytes()[: mutant.start].count(b"\n") + 1
    return f"{mutant.path}:{line} {mutant.kind}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (TestsFailError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
