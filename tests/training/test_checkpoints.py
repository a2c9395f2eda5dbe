from pathlib import Path

import pytest
import torch

from smd_research.core.errors import ConfigError
from smd_research.training.checkpoints import load, resumable


class _Code:
    """What a checkpoint from elsewhere could run when it is read as code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


def test_weights_and_plain_values_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, tmp_path / "last.ckpt")
    assert load(tmp_path / "last.ckpt")["epoch"] == 3
    assert resumable(tmp_path / "last.ckpt") == tmp_path / "last.ckpt"
    assert resumable(tmp_path / "none.ckpt") is None
    assert resumable(None) is None


@pytest.mark.parametrize("kind", ["code", "half", "empty", "no checkpoint"])
def test_anything_else_is_refused_with_the_remedy(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"code": _Code(), "w": torch.ones(200)}, path)
    content = path.read_bytes()
    changed = {"code": content, "half": content[: len(content) // 2], "empty": b"", "no checkpoint": b"text"}
    path.write_bytes(changed[kind])
    with pytest.raises(ConfigError, match=r"last\.ckpt cannot be read as weights alone .*delete it") as caught:
        resumable(path)
    assert "\n" not in str(caught.value)
    assert "it ran" not in capsys.readouterr().out
