"""The settings that commands share, and what each takes; those of a part stand in its own YAML."""

from collections.abc import Mapping, Sequence

from experiments.composing.declared import SIZES
from experiments.composing.values import Takes, takes

_DTYPES = "fp32 | fp16 | bf16"

SETTINGS: Mapping[str, Takes] = {
    "n_prompts": takes("int", "1 to 1000000"),
    "prompt_tokens": takes("int | None", "1 to CONTEXT"),
    "max_new_tokens": takes("int", "0 or more, below CONTEXT"),
    "held_out": takes("int | None", "1 or more"),
    "seed": takes("int", "0 or more"),
    "transport": takes("str", "inproc | process | tcp"),
    "address": takes("str | None", "HOST:PORT, or the path of a socket"),
    "dtype": takes("str", _DTYPES),
    "wire_dtype": takes("str", _DTYPES),
    "device": takes("str"),
    "threads": takes("int", "1 to 4096"),
    "results_dir": takes("str"),
    "record_texts": takes("bool"),
    "rerun": takes("str", "failed | missing | always | never"),
    "repeats": takes("int", "1 to 1000000"),
    "size": takes("str", " | ".join(SIZES)),
    # smd serve
    "tap": takes("bool"),
    "connections": takes("int | None", "0 or more"),
    "timeout_s": takes("float", "above 0"),
    "idle_s": takes("float", "above 0"),
    # smd train
    "register": takes("str", "clinical | financial | personal | mixed | reference"),
    "row_tokens": takes("int", "2 or more"),
    "batch": takes("int", "1 or more"),
    "steps": takes("int", "1 or more"),
    "epoch_steps": takes("int", "1 or more"),
    "learning_rate": takes("float", "above 0"),
    "warmup": takes("int", "0 or more"),
    "clip": takes("float", "above 0"),
    "tokenizer_documents": takes("int", "1 or more"),
    "precision": takes("str", "32-true | bf16-mixed | 16-mixed"),
    "devices": takes("int", "1 or more"),
    "strategy": takes("str", "auto | ddp | fsdp"),
    "compile": takes("bool"),
    "progress": takes("bool"),
    "trigram_tokens": takes("int | None", "1 or more"),
    "export_every": takes("int", "0 or more"),
    # smd report
    "prompts": takes("int", "1 or more"),
    "cell": takes("str | None"),
    "html": takes("str | None"),
    # smd board
    "out": takes("str | None"),
    "texts": takes("bool"),
}
"""What each of them takes, whatever command has it."""

NEEDS: Mapping[str, Sequence[str]] = {"address": ["transport=tcp", "task=null"]}
"""What goes together, as ``needs`` of a part. A task is tuned in the provider's folder, which is on this machine."""

ONLY: Mapping[str, str] = {
    **dict.fromkeys(("n_prompts", "prompt_tokens", "max_new_tokens", "held_out", "data.chat"), "task=null"),
    **dict.fromkeys(("tuning", "trainer"), "task"),
}
"""When they count, as ``only`` of a part."""
