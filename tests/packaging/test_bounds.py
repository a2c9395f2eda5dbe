"""The two environments that the lab is tested in hold to the bounds that it declares."""

import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
TESTED_WITH = ("pytest", "pytest-xdist", "hypothesis")
UNLOCKED = {"notebook"}
"""Brings Jupyter to people who look at notebooks; no test needs more than the kernel, which ``dev`` has."""


def _pins(name: str) -> dict[str, Version]:
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(len(one.specifier) == 1 and "==" in str(one.specifier) for one in found)
    return {canonicalize_name(one.name): Version(next(iter(one.specifier)).version) for one in found}


def _declared(*extras: str) -> list[Requirement]:
    return [Requirement(text) for text in [*PROJECT["dependencies"], *(t for extra in extras for t in EXTRAS[extra])]]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_pins_every_dependency_within_its_bounds(python: str) -> None:
    pins = _pins("constraints.txt")
    for one in _declared(*(EXTRAS.keys() - UNLOCKED)):
        if one.marker is None or one.marker.evaluate({**default_environment(), "python_version": python}):
            assert pins[canonicalize_name(one.name)] in one.specifier, one


def test_torch_is_the_same_in_both() -> None:
    assert _pins("constraints.txt")["torch"] == _pins(".ci/constraints-lowest.txt")["torch"] == Version("2.13.0")


def test_the_lowest_environment_is_at_every_lower_bound() -> None:
    pins = _pins(".ci/constraints-lowest.txt")
    tools = [one for one in _declared("dev") if one.name in TESTED_WITH]
    for one in [*_declared("joblib"), *tools]:
        bounds = {part.operator: Version(part.version) for part in one.specifier}
        lowest = bounds.get("==") or bounds[">="]
        assert pins[canonicalize_name(one.name)] == lowest or one.name == "torch", one
