"""Canaries betray a training that promises nothing, and not one that keeps a small epsilon."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from test_private import SGD, model, texts

from smd_research.core.errors import ConfigError
from smd_research.data.texts import Texts
from smd_research.mechanisms.privacy.one_run_audit import CanaryAudit, audit_canaries
from smd_research.training.canaries import CanaryGame, drawn_canaries, play
from smd_research.training.methods import Full, Tuning

pytest.importorskip("opacus", reason="opacus is not installed: pip install 'smd-research[dp]'")

OPEN = Full(
    **{one.name: getattr(SGD, one.name) for one in fields(Full)}
    | {"steps": 160, "batch": 32, "learning_rate": 4e-3, "checks": 1}
)
CANARIES = drawn_canaries(160, 8, range(10, 90), 2, 0)


def played(folder: Path, tuning: Tuning) -> tuple[CanaryGame, CanaryAudit]:
    game = play(model(), texts(32, 0), texts(8, 1), CANARIES, tuning, classes=2, seed=1, folder=folder)
    return game, audit_canaries(game.included, game.scores, 1.0, game.delta)


def test_a_training_that_learns_them_by_heart_is_refuted(tmp_path: Path) -> None:
    """No claim of epsilon 1 would survive what a training without noise remembers."""
    game, audit = played(tmp_path, OPEN)
    assert game.epsilon == np.inf
    assert 0.3 < game.included.mean() < 0.7
    assert not audit.holds
    assert audit.advantage_low > 0.1


def test_a_small_epsilon_is_not_refuted(tmp_path: Path) -> None:
    game, audit = played(tmp_path, replace(SGD, epsilon=1.0, steps=20, checks=1))
    assert 0.99 < game.epsilon <= 1
    assert 0 < game.delta < 0.01
    assert audit.holds
    assert audit.advantage_low < 0.1


def test_the_same_seed_draws_the_same_canaries_of_the_pool_alone() -> None:
    assert drawn_canaries(160, 8, range(10, 90), 2, 0) == CANARIES
    assert drawn_canaries(4, 8, range(10, 90), 2, 1) != drawn_canaries(4, 8, range(10, 90), 2, 0)
    assert {token for text in CANARIES.ids for token in text} <= set(range(10, 90))
    assert set(CANARIES.labels) == {0, 1}
    assert drawn_canaries(2, 3, [7], 0, 0) == Texts(((7, 7, 7),) * 2)


def test_a_game_without_canaries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs some"):
        play(model(), texts(4, 0), texts(4, 1), Texts(()), SGD, classes=2, seed=0, folder=tmp_path)
