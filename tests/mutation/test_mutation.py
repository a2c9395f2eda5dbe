"""The tool that looks for gaps in the tests: what it changes, which tests it asks, that it leaves no trace."""

import ast
from pathlib import Path

import pytest
from concern import Concern
from mutants import Mutant, draw, mutants_of
from trying import Tree, affordable

ROOT = Path(__file__).resolve().parents[2]
MODULE = '''"""Text."""

LIMIT: int = 3


def share(hits: int, of: int, *, least: float = 0.0) -> float:
    """More text."""
    assert of > 0
    if of < LIMIT and hits:
        raise ValueError(f"too few: {of + 1}")
    found = max(hits / of, least)
    print(found, of)
    return round(found, ndigits=2)
'''
KINDS = {
    "LIMIT: int = (?)4": "constant",
    "of <= LIMIT": "comparison",
    "hits * of": "arithmetic",
    "or hits": "condition",
    "pass": "dropped statement",
    "max(least, hits / of)": "arguments",
    "return round(found)": "arguments",
    "return None": "return value",
    "return found": "dropped call",
}


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    return path


def test_a_mutant_of_each_kind_is_made_in_one_place_and_is_python(module: Path) -> None:
    found = mutants_of(module)
    for mutant in found:
        ast.parse(mutant.text())
        changed = [line for line in mutant.diff().splitlines()[2:] if line.startswith(("-", "+"))]
        assert len(changed) == 2, mutant
    assert {mutant.kind for mutant in found} == {*KINDS.values()}
    for text, kind in KINDS.items():
        wanted = text.replace("(?)", "")
        assert any(wanted in mutant.text() for mutant in found if mutant.kind == kind), text


def test_texts_annotations_assertions_and_what_an_error_says_are_left_alone(module: Path) -> None:
    kept = ['"""Text."""', "LIMIT: int", '"""More text."""', "assert of > 0", 'raise ValueError(f"too few: {of + 1}")']
    assert all(line in mutant.text() for mutant in mutants_of(module) for line in kept)


def test_a_seed_draws_the_same_mutants_and_each_folder_has_its_share() -> None:
    folders = [ROOT / "smd_research" / name for name in ("metrics", "records")]
    drawn = draw(folders, 7, seed=3)
    assert drawn == draw(folders, 7, seed=3) != draw(folders, 7, seed=4)
    assert [sum(mutant.path.is_relative_to(folder) for mutant in drawn) for folder in folders] == [4, 3]
    with pytest.raises(ValueError, match="nothing that can be mutated"):
        draw([ROOT / "docs" / "static"], 1, seed=0)


def test_the_nearest_tests_of_the_mirrored_folder_concern_a_module() -> None:
    concern = Concern(ROOT)
    interval = concern.tests_of(Path("smd_research/metrics/interval.py"))
    assert interval == [Path("tests/metrics/test_interval.py")]
    # imported by another module alone, and exported by the package under its name
    reader = concern.tests_of(Path("smd_research/mechanisms/decoys/prompt_reader.py"))
    assert reader == [Path("tests/mechanisms/test_quantised_sampling.py")]
    assert Path("tests/records/test_store.py") in concern.tests_of(Path("smd_research/records/store.py"))
    # found by its place: every test of its folder
    assert set(interval) < set(concern.tests_of(Path("smd_research/metrics/effort.py")))
    assert len(concern.tests_of(Path("smd_research/metrics/estimate.py"), everywhere=True)) > 5


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A lab of one function."""
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["slow"]\n')
    (tmp_path / "half.py").write_text("def half(x: int) -> int:\n    while x > 9:\n        x -= 1\n    return x // 2\n")
    (tmp_path / "test_half.py").write_text(
        "from half import half\n\n\ndef test_half() -> None:\n    assert half(12) == 4\n"
    )
    return Tree(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "grace_s", "killed"),
    [("x // 2", "x * 2", 60, True), ("x -= 1", "pass", 3, True), ("x > 9", "x >= 10", 60, False)],
)
def test_a_mutant_is_killed_by_a_failure_or_the_clock_and_the_file_is_put_back(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, old: str, new: str, grace_s: float, killed: bool
) -> None:
    monkeypatch.setattr("trying.GRACE_S", grace_s)
    monkeypatch.chdir(tree.root)
    source = (tree.root / "half.py").read_text()
    start = source.index(old)
    mutant = Mutant(Path("half.py"), start, start + len(old), new, "by hand")
    assert tree.kills(mutant, [Path("test_half.py")], seconds=0.1) == killed
    assert (tree.root / "half.py").read_text() == source


def test_the_quickest_tests_come_first_and_none_beyond_what_is_affordable() -> None:
    taken = {Path("a"): 5.0, Path("b"): 1.0, Path("c"): 30.0}
    assert affordable(taken, taken, 10) == [Path("b"), Path("a")]
    assert affordable([Path("c")], taken, 10) == [Path("c")]
