"""``smd compare A B``: paired differences over the same prompts, and the prompts on which two sides differ.

A side is a cell (its id, or a part of its folder's name), labels joined by commas (``defense=smd,attack=prior``;
``seed=0,seed=1`` is either), or a results folder or a file of packed records.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.text import Text

from experiments.commands.show import HEADLINE, console
from experiments.composing.app import launch
from experiments.composing.overrides import UsageError, is_value
from smd_research.core.errors import RecordError
from smd_research.core.paths import conf_dir

if TYPE_CHECKING:
    from smd_research.records.options import Label
    from smd_research.reports.comparing import Compared, Met
    from smd_research.reports.sides import Side


_ROWS = 24
"""Rows that are all shown; of more, those in which a prompt differs."""


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name a side, and those that are values of the command or flags."""
    own = set(OmegaConf.load(conf_dir() / "compare.yaml"))
    sides = [
        word
        for word in words
        if not word.startswith("-") and not is_value(word, words) and re.split(r"[=.]", word)[0] not in own
    ]
    return sides, [word for word in words if word not in sides]


def side(word: str) -> "Side":
    """A side as it is said: labels where there is ``=``, else the name of a cell.

    Raises:
        UsageError: a label lacks its name or value.
    """
    if "=" not in word:
        return word
    labels: dict[str, list[Label]] = {}
    for condition in word.split(","):
        name, _, value = condition.partition("=")
        if not name or not value:
            raise UsageError(f"'{condition}' in '{word}' is no label: write NAME=VALUE, joined by commas")
        labels.setdefault(name, []).append(_value(value))
    return {name: values if len(values) > 1 else values[0] for name, values in labels.items()}


def _value(text: str) -> "Label":
    """Numbers, true, false and null as what they are; everything else is a word."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, int | float) else text


def met(words: Sequence[str], results_dir: Path) -> tuple[list["Met"], tuple[int, int]]:
    """The pairs of cells of two sides with their prompts, and how many cells of either side have none beside them.

    Raises:
        UsageError: there are not two sides, or one is a folder and the other is not.
        RecordError: they have no cells, or none that stand beside each other.
    """
    from smd_research.reports.comparing import meet
    from smd_research.reports.sides import Cells, beside, matching

    if len(words) != 2:
        raise UsageError(f"two sides are needed, not {len(words)} ({', '.join(words) or 'none'}): smd compare A B")
    folders = [("=" not in word and Path(word).expanduser().exists()) for word in words]
    if any(folders) and not all(folders):
        raise UsageError(f"{' and '.join(words)}: one is a folder, the other is not; compare two folders, or two cells")
    if all(folders):
        if Path(words[0]).resolve() == Path(words[1]).resolve():
            raise UsageError(f"{words[0]} and {words[1]} are the same: there is nothing to compare")
        one, other = (Cells.at(Path(word).expanduser()).measured() for word in words)
        found = matching(one, other, (), (words[0], words[1]))
    else:
        cells, sides = Cells.at(results_dir), (side(words[0]), side(words[1]))
        one, other = (cells.meant(said) for said in sides)
        found = beside(one, other, sides)
    return [meet(one, other, pair) for pair in found.pairs], found.alone


def chosen(asked: Any, pairs: Sequence["Met"]) -> list[str]:
    """The metrics to compare: those asked for, else the main ones that a pair holds prompt by prompt."""
    if asked is not None:
        return [str(one) for one in asked] if OmegaConf.is_list(asked) else [str(asked)]
    held = {name for pair in pairs for name in pair.held}
    main = [name for names in HEADLINE.values() for name in names]
    return [name for name in main if name in held] or sorted(held) or main


def say(found: Sequence["Compared"], title: str, prompts: int) -> None:
    """Print the prompts that differ in the first metric, pair by pair, and the table of all."""
    from smd_research.reports.render.comparison_view import show_flips
    from smd_research.reports.render.text import show
    from smd_research.reports.sides import in_common
    from smd_research.reports.tables.compared import comparison_table

    out = console()
    first = [one for one in found if one.metric == found[0].metric]
    for one, told in zip(first, in_common([one.cells for one in first]), strict=True):
        if told and one.flips:
            out.rule(Text(" ".join(f"{name}={text}" for name, text in told.items())), align="left")
        if one.flips or not told:
            show_flips(one, out, prompts)
    if equal := sum(not one.flips for one in first) if len(first) > 1 else 0:
        print(f"In {equal} of {len(first)} pairs of cells no prompt differs.")
    shown = found if len(found) <= _ROWS else [one for one in found if one.flips]
    if len(shown) < len(found):
        print(f"Rows in which no prompt differs, left out: {len(found) - len(shown)} of {len(found)}")
    if shown:
        show(comparison_table(shown, title), out)


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd compare`` command."""
    sides, rest = parted(list(sys.argv[1:] if argv is None else argv))

    def one(cfg: DictConfig) -> None:
        from smd_research.reports.comparing import compare_pairs

        try:
            pairs, alone = met(sides, Path(cfg.results_dir).expanduser())
            found = compare_pairs(pairs, chosen(cfg.metric, pairs))
        except RecordError as error:  # what was asked for is not there: the words are to blame, not a run
            raise UsageError(str(error)) from error
        say(found, f"A: {sides[0]}, B: {sides[1]}", cfg.prompts)
        for name, count in zip("AB", alone, strict=True):
            if count:
                print(f"Cells of {name} without one beside them: {count}")

    return launch(one, "compare", "smd compare", rest)


if __name__ == "__main__":
    sys.exit(main())
