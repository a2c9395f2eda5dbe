"""Rounds of simultaneous requests, as the benches of the service measure them."""

import pytest

from experiments.benches import _users
from experiments.benches.case import Settings
from smd_research.models import sources


def test_nobody_is_started_for_a_case_that_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_users, "Crowd", lambda *_: pytest.fail("parties were started"))
    settings = Settings(only="users=8")
    assert not list(_users.interleaved(sources.embedded(), "embedded", ("smd",), 2, 8, 2, 1, settings))
