"""What a model's folder has to hold before anything is loaded from it: real files, whole, that name each other rightly.

Libraries answer a damaged folder with many kinds of error, or with a default that they make up; these checks name the
file.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING

from smd_research.core.errors import ConfigError
from smd_research.core.quoting import quoted

# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SETTINGS = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_VOCABULARY = ("added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "chat_template.jinja")
_FETCH = "fetch the file again"


def check_folder(path: str) -> Path:
    """The folder of a model, whose files are found to be whole; the weights themselves are not read.

    Raises:
        ConfigError: for a folder that is missing or no folder, without configuration or weights, or with a file that
            is empty, cut off, a pointer to another store, no JSON, or that names files which are not there.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "it is a file" if folder.exists() else "there is no such folder"
        raise ConfigError(f"no model at {path}: {what}; model.path= must name a folder with a config.json")
    try:
        _check_config(folder)
        for file in _beside(folder):
            _check_whole(file)
            if file.suffix == ".json":
                _mapping(file)
        for file in weight_files(folder):
            _check_whole(file)
            if file.suffix == ".safetensors":
                _check_header(file)
    except OSError as error:
        raise ConfigError(f"the model at {path} cannot be read: {error.strerror or error} ({error.filename})") from None
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checked folder's weights, one or several shards.

    Raises:
        ConfigError: when there are none, or an index names one that is not there.
    """
    named = _mapping(folder / "config.json").get("transformers_weights")
    order = (str(named),) if named else WEIGHTS
    chosen = next((folder / name for name in order if (folder / name).is_file()), None)
    if chosen is None:
        raise ConfigError(
            f"no weights at {folder}: it needs {order[0]}, or an index with all its shards{_found_instead(folder)}"
        )
    if chosen.suffix != ".json":
        return [chosen]
    _check_whole(chosen)
    shards = _mapping(chosen).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise ConfigError(f"{chosen} is no index of weights: its weight_map names no files; {_FETCH}")
    files = [folder / name for name in sorted(set(shards.values()))]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise ConfigError(f"{chosen} names files that are not there ({_some(absent)}): fetch what is missing")
    return files


def tensor_names(folder: Path) -> set[str]:
    """Names of the tensors in a checked folder, as far as its files have headers (pickled ones do not).

    Raises:
        ConfigError: when two files hold a tensor of one name.
    """
    names: set[str] = set()
    for file in weight_files(folder):
        if file.suffix != ".safetensors":
            continue
        with safe_open(file, framework="pt") as opened:
            own = set(opened.keys())
        if names & own:
            raise ConfigError(f"{file} holds {_some(sorted(names & own))}, as another file does: keep one")
        names |= own
    return names


def _check_config(folder: Path) -> None:
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"no model at {folder}: model.path= must name a folder with a config.json{_found_instead(folder)}"
        )
    _check_whole(file)
    if (folder / "adapter_config.json").exists():
        raise ConfigError(f"{folder} holds an adapter: merge it into its model (merge_and_unload) and save that")
    config = _mapping(file)
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise ConfigError(f"{file} has no model_type: add the name of its family, e.g. llama")
    if kind in CONFIG_MAPPING:
        return
    if "auto_map" in config:
        raise ConfigError(
            f"the model at {folder} brings its own code (auto_map, model_type '{quoted(kind)}'), which is never run: "
            "use a model of a family that transformers has"
        )
    raise ConfigError(
        f"{file} names model_type '{quoted(kind)}', a family that transformers {transformers.__version__} does not have"
    )


def _beside(folder: Path) -> Iterator[Path]:
    """The files that are read beside configuration and weights, as far as they are there."""
    names = {*_SETTINGS, *_VOCABULARY, *(file.name for kind in ("*.model", "*.tiktoken") for file in folder.glob(kind))}
    for file in (folder / name for name in sorted(names)):
        if file.is_symlink() and not file.exists():
            raise ConfigError(f"{file} is a link to a file that is not there; {_FETCH}")
        if file.is_file():
            yield file


def _check_whole(file: Path) -> None:
    """Refuse a file that is empty, or that only says where its content is."""
    with file.open("rb") as opened:
        head = opened.read(200)
    if not head:
        raise ConfigError(f"{file} is empty: {_FETCH}")
    if head.startswith(b"version https://git-lfs"):
        raise ConfigError(f"{file} is a git-lfs pointer, not the file: run 'git lfs pull' in its folder")
    if b"/annex/objects/" in head:
        raise ConfigError(f"{file} is a git-annex pointer, not the file: run 'git annex get' in its folder")


def _mapping(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no JSON ({quoted(error)}): {_FETCH}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds a {type(content).__name__}, not an object with named values: {_FETCH}")
    return content


def _check_header(file: Path) -> None:
    """Refuse weights that are cut off, or no real numbers: those of a quantised model, whose values lie elsewhere."""
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            slices = {name: opened.get_slice(name) for name in names if name.endswith("weight")}
            matrices = {name: part for name, part in slices.items() if len(part.get_shape()) > 1}
            whole = [name for name, part in matrices.items() if not part.get_dtype().startswith(("F", "BF"))]
    except SafetensorError as error:
        raise ConfigError(f"{file} is damaged or cut off ({quoted(error)}): {_FETCH}") from None
    if not names:
        raise ConfigError(f"{file} holds no weights: {_FETCH}")
    if whole and "quantization_config" not in _mapping(file.parent / "config.json"):
        raise ConfigError(
            f"{file} holds weights that are no real numbers ({_some(whole)}): use the model before its quantisation"
        )


def _found_instead(folder: Path) -> str:
    """What lies in the folder that may be meant, for a message."""
    names = sorted(f"{one.name} (a link to nothing)" if not one.exists() else one.name for one in folder.iterdir())
    return f" (it holds {_some(names)})" if names else " (it is empty)"


def _some(names: list[str], limit: int = 3) -> str:
    more = len(names) - limit
    return quoted(", ".join(names[:limit]) + (f" and {more} more" if more > 0 else ""))
