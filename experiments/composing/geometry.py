"""Layers, context and chat template of a model, where its files lie at hand: no model is loaded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smd_research.core.paths import PACKAGE

EMBEDDED = PACKAGE / "models" / "embedded"
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_CONTEXT = ("max_position_embeddings", "n_positions")
_TOKENIZER, _TEMPLATE = "tokenizer_config.json", "chat_template"


def folder_of(model: Mapping[str, Any]) -> Path | None:
    """Where the files of a model lie, as its options name it; None for one of the hub or of random weights."""
    if str(model.get("_target_", "")).endswith(".embedded"):
        return EMBEDDED
    return Path(str(model["path"])).expanduser() if model.get("path") else None


def bounds(model: Mapping[str, Any]) -> dict[str, int]:
    """``LAYERS`` and ``CONTEXT`` of a model, as far as they are known before it is loaded."""
    folder = folder_of(model)
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):
        said = {}  # what is wrong with a folder is said when it is loaded
    names = {"LAYERS": _LAYERS, "CONTEXT": _CONTEXT}
    found = {word: next((said[key] for key in keys if key in said), None) for word, keys in names.items()}
    return {word: value for word, value in found.items() if isinstance(value, int)}


def chats(model: Mapping[str, Any]) -> bool | None:
    """Whether the tokenizer of a model has a chat template; None where that is not known before it is loaded."""
    shipped = str(model.get("_target_", "")).endswith(".random")
    folder = EMBEDDED if shipped else folder_of(model)
    if folder is None or not (folder / _TOKENIZER).is_file():
        return None
    try:
        said = json.loads((folder / _TOKENIZER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # what is wrong with a folder is said when it is loaded
    return bool(said.get(_TEMPLATE)) or any(folder.glob(f"{_TEMPLATE}.*"))
