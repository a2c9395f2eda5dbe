"""A run in shards trains the model that one device does, hands it over whole, and shares its checkpoint."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import sharded_run
import torch
from sharded_run import RUN, kept
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import LlamaForCausalLM

from smd_research.core.errors import ConfigError
from smd_research.models.sources import embedded_tokenizer
from smd_research.training.architecture import Architecture, Gpt2
from smd_research.training.causal_lm import Optimisation
from smd_research.training.loop import train
from smd_research.training.sharded import ShardedLM

ROOT = Path(__file__).resolve().parents[2]


def weights(file: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(file)
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    return found


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one device: its checkpoint after 8 steps, and the weights of one that went on to 16."""
    folder = tmp_path_factory.mktemp("alone")
    kept(folder, 8, 1, "auto")
    shutil.copytree(folder, folder / "half")
    kept(folder, 16, 1, "auto")
    return folder


@pytest.fixture
def group() -> Iterator[None]:
    """Lightning makes a process group and never takes it down, so that other tests would be its member."""
    with mock.patch.dict(os.environ):
        yield
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_one_shard_is_the_whole(alone: Path, tmp_path: Path) -> None:
    """Trained, shown after each epoch, asked for again, and gone on with from a checkpoint of no shards."""
    anew = kept(tmp_path, 8, 1, "fsdp")
    assert anew is not None
    assert type(anew.model) is LlamaForCausalLM
    assert anew.model.get_input_embeddings().weight is anew.model.get_output_embeddings().weight
    for step in (4, 8):
        assert difference(weights(tmp_path / f"{step}.pt"), weights(alone / f"{step}.pt")) == 0
    again = kept(tmp_path, 8, 1, "fsdp")
    assert again is not None
    assert difference(again.model.state_dict(), anew.model.state_dict()) == 0
    on = shutil.copytree(alone / "half", tmp_path / "on")
    kept(on, 16, 1, "fsdp")
    assert difference(weights(on / "16.pt"), weights(alone / "16.pt")) == 0


SHAPES = [
    (RUN.architecture, "model.layers"),
    (Gpt2(hidden_size=32, layers=2, heads=2, intermediate_size=64, vocabulary=511, context=128), "transformer.h"),
]


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(("architecture", "blocks"), SHAPES)
def test_blocks_are_cut_each_by_itself_and_tied_matrices_stay_one(architecture: Architecture, blocks: str) -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    module = ShardedLM(architecture.build(embedded_tokenizer()), Optimisation(1e-3, 1, 1))
    module._device_mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
    module.configure_model()
    cut = [name for name, part in module.model.named_modules() if isinstance(part, FSDPModule)]
    assert cut == ["", f"{blocks}.0", f"{blocks}.1"]
    assert module.model.get_input_embeddings().weight is module.model.get_output_embeddings().weight
    assert all(isinstance(parameter, DTensor) for parameter in module.parameters())


@pytest.mark.slow
def test_two_shards_train_what_one_device_does_and_either_goes_on_from_the_other(alone: Path, tmp_path: Path) -> None:
    """Up to the order in which gradients are added."""
    anew, on = tmp_path / "anew", tmp_path / "on"
    shutil.copytree(alone / "half", on)
    done = subprocess.run(
        [sys.executable, sharded_run.__file__, anew, "8", on, "16"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for step in (4, 8):
        assert difference(weights(anew / f"{step}.pt"), weights(alone / f"{step}.pt")) < 1e-5
    assert difference(weights(anew / "end.pt"), weights(anew / "8.pt")) == 0
    assert difference(weights(on / "end.pt"), weights(alone / "16.pt")) < 1e-5
    kept(anew, 16, 1, "auto")
    assert difference(weights(anew / "16.pt"), weights(alone / "16.pt")) < 1e-5


def test_fp16_in_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"precision=16-mixed: strategy=fsdp .* take precision=bf16-mixed or 32-true"):
        train(replace(RUN, precision="16-mixed"), tmp_path, "cpu", devices=2, strategy="fsdp")
