"""What becomes of somebody's own documents is said, and where they are too few."""

import json
from pathlib import Path

import pytest

from experiments.trials.workbench import _say_what_becomes_of
from smd_research.data.sources import Jsonl


def test_prompts_and_public_documents_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps({"text": f"note {i}"}) + "\n" for i in range(40)))
    source = Jsonl(str(file), prompt_share=0.5)
    parts = source.division()
    there, public = len(parts.evaluation), len(parts.train)
    _say_what_becomes_of(source, 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"3 prompts, of {there} in data.prompt_share=0.5; {public} other documents are public text" in line
    _say_what_becomes_of(source, 100)
    counted, warned = capsys.readouterr().err.splitlines()
    assert f"{there} prompts, of {there}" in counted
    assert warned == f"warning: n_prompts=100, but there are {there}: raise data.prompt_share, or give more documents"
