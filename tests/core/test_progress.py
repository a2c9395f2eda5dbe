"""What a log holds of long work."""

import sys

import pytest

from smd_research.core import progress
from smd_research.core.progress import Beat, duration, track


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)


def test_a_log_gets_a_line_a_minute_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    beat = Beat("attack", clock)
    for done in range(0, 40):
        clock.now = done * 10.0
        beat.tell(done, 40)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  attack: 6 of 40, 6 min left"
    assert [line.split(":")[1].split(" of")[0] for line in lines] == [f" {done}" for done in (6, 12, 18, 24, 30, 36)]
    assert lines[-1] == "  attack: 36 of 40, 40 s left"


def test_short_work_says_nothing_and_every_item_comes_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([3, 1, 2], "x")) == [3, 1, 2]
    assert list(track(iter("ab"), "x")) == ["a", "b"]
    with progress.steps("x") as tell:
        tell(1, 2)
    assert capsys.readouterr().err == ""


def test_work_of_unknown_length_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    assert list(track(iter("ab"), "read")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["  read: 0", "  read: 1"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (40.4, "40 s"), (61, "1 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_a_duration_is_said_as_a_person_says_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_terminal_gets_a_bar_once_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.steps("train") as tell:
        tell(1, 2)
    assert "train" not in capsys.readouterr().err
    monkeypatch.setattr(progress, "PATIENCE_S", -1.0)
    with progress.steps("train") as tell:
        tell(1, 2)
    assert "train" in capsys.readouterr().err
