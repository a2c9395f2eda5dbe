"""Write a trained model as a folder that transformers reads: fp16 weights, tokenizer, configuration."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Export to ``folder``; each file is replaced at once, so that a reader never sees half of one.

    The tied output matrix is stored once. Loading with ``AutoModelForCausalLM.from_pretrained(folder,
    dtype=torch.float32)`` gives fp32 weights that are exactly representable in fp16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    tied = set(model.all_tied_weights_keys)
    weights = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": [type(model).__name__], **model.config.to_diff_dict(), "dtype": "float16"}
    (part / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer.save_pretrained(part)
    for written in part.iterdir():
        written.chmod(0o644)  # safetensors writes for the owner alone; what ships is for everybody
        written.replace(folder / written.name)
    part.rmdir()
