"""From configuration to cell: names, digests of files, versions."""

from pathlib import Path

from experiments.composing.cells import digest, named
from experiments.composing.versions import version_of


def test_a_part_is_named_by_its_option_and_what_tells_it_apart(tmp_path: Path) -> None:
    assert named({"_target_": "a.B"}, "smd")["name"] == "smd"
    assert named({"_target_": "a.B", "name": "gpt2"}, "hub")["name"] == "gpt2"
    assert named({"_target_": "a.B", "family": "qwen3"}, "random")["name"] == "random-qwen3"
    assert named({"_target_": "a.B", "path": str(tmp_path)}, "local")["name"] == f"local-{tmp_path.name}"


def test_a_moved_file_keeps_its_digest_and_a_changed_one_does_not(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text("same")
    second.write_text("same")
    assert digest(first) == digest(second) != ""
    second.write_text("other")
    assert digest(first) != digest(second)
    assert digest(tmp_path / "absent") == ""


def test_a_folder_is_known_by_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = digest(folder)
    (folder / "model.safetensors").write_bytes(b"weights")
    assert digest(folder) != before
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert digest(copy) == digest(folder)


def test_versions_are_read_without_importing(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    package = tmp_path / "somebodys"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "deep" / "__init__.py").write_text("from somebodys.deep.mine import Mine as Ours\n")
    (package / "deep" / "mine.py").write_text(
        "from typing import ClassVar\n\nclass Mine:\n    version: ClassVar[int] = 3\n\nclass Plain:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert version_of("somebodys.deep.mine.Mine") == 3
    assert version_of("somebodys.deep.Ours") == 3
    assert version_of("somebodys.deep.mine.Plain") == 1
    assert version_of("nobodys.Thing") == 1
    assert version_of(None) == 1


def test_versions_of_shipped_components_are_those_of_their_classes() -> None:
    from attacks.prompts.vocab_matching.attack import VocabMatching
    from smd_research.defenses.smd import Smd

    assert version_of("attacks.prompts.vocab_matching.attack.VocabMatching") == VocabMatching.version
    assert version_of("smd_research.defenses.smd.Smd") == Smd.version
