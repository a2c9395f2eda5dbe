import importlib
import json
import socket
from pathlib import Path

import pytest

from smd_research.records import environment


def test_it_says_what_a_timing_needs() -> None:
    here = environment(wall_s={"attack": 1.23456})
    assert here["packages"]["torch"]
    assert here["cpu"]["cores"] >= 1
    assert here["torch_threads"] >= 1
    assert here["wall_s"] == {"attack": 1.2346}


def test_it_names_no_person_and_no_machine() -> None:
    text = json.dumps(environment())
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert socket.gethostname() not in text


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = importlib.import_module("smd_research.records.environment")
    monkeypatch.setattr(asking, "_git", asking._git.__wrapped__)  # which keeps its first answer otherwise
    monkeypatch.setenv("PATH", "")
    assert environment()["git"] is None
