"""From configuration to cell: names and digests of files."""

from pathlib import Path

from experiments.composing.cells import command_of, digest, named


def test_a_part_is_named_by_its_option_and_what_tells_it_apart(tmp_path: Path) -> None:
    assert named({"_target_": "a.B"}, "smd")["name"] == "smd"
    assert named({"_target_": "a.B", "name": "gpt2"}, "hub")["name"] == "gpt2"
    assert named({"_target_": "a.B", "family": "qwen3"}, "random")["name"] == "random-qwen3"
    assert named({"_target_": "a.B", "path": str(tmp_path)}, "local")["name"] == f"local-{tmp_path.name}"


def test_a_recorded_command_leaves_out_where_its_record_went() -> None:
    words = ["defense=smd", "results_dir=/home/somebody/study", "attack.judges=[likelihood,random]"]
    assert command_of(words) == "smd run defense=smd 'attack.judges=[likelihood,random]'"


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
