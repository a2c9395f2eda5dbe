"""A constructor's parameters are read from its source as Python itself reads them, and nothing is imported for it."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from experiments.composing.overrides import UsageError
from experiments.composing.signatures import kind_of, parameters
from smd_research.core.paths import conf_dir

NODES = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(conf_dir().glob("*/*.yaml"))]
TARGETS = sorted({str(one["_target_"]) for node in NODES for one in (node, node.get("architecture") or {}) if one.get("_target_")})  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("target", TARGETS)
def test_it_is_the_signature(target: str) -> None:
    module, _, name = target.rpartition(".")
    signature = inspect.signature(getattr(import_module(module), name))
    named = {p.name: p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
    found = parameters(target)
    assert found is not None
    assert {name: found[name].required for name in named} == {
        name: one.default is one.empty for name, one in named.items()
    }
    assert len(named) == len(signature.parameters) or set(found) > set(named), "what **more passes on is found too"
    assert set(found) == set(named) or len(named) < len(signature.parameters)
    assert all(one.kind.types for one in found.values()), "an annotation that is not understood"


def test_nothing_is_imported() -> None:
    code = (
        "import sys\nfrom experiments.composing.signatures import parameters\n"
        f"assert all(parameters(target) is not None for target in {TARGETS!r})\n"
        "print([name for name in ('torch', 'transformers', 'attacks', 'smd_research.data') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere.at_all.X", "there is no module 'nowhere.at_all'"),
        ("smd_research.defenses.nothing.X", "there is no module"),
        ("smd_research.defenses.split.Splt", "has no 'Splt': did you mean 'Split'?"),
        ("X", "there is no module ''"),
    ],
)
def test_what_does_not_exist_is_named(target: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parameters(target)


def test_code_of_ones_own_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_to_read").mkdir()
    (tmp_path / "mine_to_read" / "a.py").write_text(
        "from typing import Literal, Optional\nfrom .b import Base as Above\nWord = Literal['x', 'y']\n"
        "class A(Above):\n"
        "    def __init__(self, word: Word, often: 'int' = 3, *, odd: Optional[Unknown] = None, **more): ..."
    )
    (tmp_path / "mine_to_read" / "b.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n@dataclass\nclass Base:\n"
        "    kind: ClassVar[str]\n    size: int\n    share: float = 0.5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = parameters("mine_to_read.a.A")
    assert found is not None
    assert {name: one.required for name, one in found.items()} == {
        "size": True, "share": False, "word": True, "often": False, "odd": False,
    }  # fmt: skip
    assert found["word"].kind.words == ("x", "y")
    assert found["often"].kind == kind_of("int")
    assert not found["odd"].kind.types
    assert "mine_to_read" not in sys.modules


def test_a_compiled_module_tells_nothing() -> None:
    assert parameters("math.sqrt") is None
