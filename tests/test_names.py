"""One name, one class; every module of an attack folder is an attack that the configuration names."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("smd_research", "attacks", "experiments")
SECRETS = ("baselines", "prompts", "substitutions", "attributes", "guarantees", "weights")


def classes() -> dict[str, list[str]]:
    """Public classes by name, with the modules that define one of that name."""
    found = defaultdict(list)
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_no_class_name_stands_twice() -> None:
    assert {name: places for name, places in classes().items() if len(places) > 1} == {}


@pytest.mark.parametrize("secret", SECRETS)
def test_an_attack_folder_holds_attacks(secret: str) -> None:
    """The tree says which modules are attacks: helpers of one lie in its package, shared ones beside ``base``."""
    options = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "conf" / "attack").glob("*.yaml")]
    named = {str(one["_target_"]).rpartition(".")[0] for one in options if one["_target_"]}
    folder = ROOT / "attacks" / secret
    entries = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    modules = {f"attacks.{secret}.{path.stem}" for path in entries if path.stem != "__init__"}
    assert modules
    assert modules <= named
