"""``smd demo`` is ``smd run experiment=demo``, with whatever is said besides."""

import pytest

from experiments.commands import run
from experiments.commands.cli import main as smd


def test_the_word_says_which_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(run, "main", lambda words: given.append(list(words)) or 3)
    assert smd(["demo", "n_prompts=1", "rerun=never"]) == 3
    assert given == [["experiment=demo", "n_prompts=1", "rerun=never"]]
