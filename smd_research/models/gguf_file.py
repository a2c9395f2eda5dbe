"""A quantised GGUF file, dequantised once into a model folder of the user's cache.

Dequantising takes seconds and rounds to fp16, which is the type of the file's own scales; afterwards the folder is
loaded, and checked, like any other. It is keyed by the content of the file, so that a file that changes is another one.
"""

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from errno import ENOSPC
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from smd_research.core.errors import ConfigError
from smd_research.core.quoting import quoted
from smd_research.models.loading import quietly, reason_of
from smd_research.models.model_folder import check_folder

_MAGIC = b"GGUF"
_WAIT_S = 600.0  # for another process that dequantises the same file


def cache_home() -> Path:
    """The user's cache folder for models: ``smd-research/models`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "smd-research" / "models"


def dequantised(path: str) -> Path:
    """The model folder of a GGUF file: that of the cache, made now where it is not there or not whole.

    Args:
        path: of the file.

    Raises:
        ConfigError: for a file that is missing, no GGUF, cut short, of an architecture or with a tokenizer that
            transformers cannot read; without the package ``gguf``; without room in the cache folder.
    """
    file = Path(path).expanduser()
    folder = cache_home() / _checksum(file)
    if _whole(folder):
        return folder
    _check_readable(file)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=_WAIT_S):
            if not _whole(folder):
                _write(file, folder)
    except Timeout:
        raise ConfigError(f"{folder}.lock is held by another process: wait for it, or remove the lock") from None
    except OSError as error:
        raise ConfigError(
            f"cannot write {folder}: {error.strerror or error}; free space there, or set XDG_CACHE_HOME elsewhere"
        ) from None
    return folder


def _whole(folder: Path) -> bool:
    try:
        check_folder(str(folder))
    except ConfigError:
        return False
    return True


def _checksum(file: Path) -> str:
    """SHA-256 of a file that begins as GGUF does."""
    try:
        with file.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                raise ConfigError(f"{file} is no GGUF file: model.path= must name one (a folder: use model=local)")
            opened.seek(0)
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except IsADirectoryError:
        raise ConfigError(f"{file} is a folder: model.path= must name a GGUF file, or use model=local") from None
    except OSError as error:
        raise ConfigError(f"no model at {file}: {(error.strerror or str(error)).lower()}") from None


def _check_readable(file: Path) -> None:
    """Refuse a file whose tensors do not all lie within it, which readers of a mapped file find out by chance."""
    if find_spec("gguf") is None:
        raise ConfigError("reading a GGUF file needs the package gguf: pip install 'smd-research[gguf]'")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        end = max((int(one.data_offset + one.n_bytes) for one in reader.tensors), default=0)
    except Exception as error:  # a cut header surfaces as nearly any error of numpy
        raise ConfigError(f"{file} is damaged or cut short ({quoted(error)}): fetch the file again") from None
    if not end or end > file.stat().st_size:
        raise ConfigError(
            f"{file} is cut short: its tensors end at byte {end:,}, the file at {file.stat().st_size:,}; fetch it again"
        )


def _write(file: Path, folder: Path) -> None:
    """Dequantise into a folder beside, which takes its place when it is whole."""
    tokenizer, model = _read(file)
    free, needed = shutil.disk_usage(folder.parent).free, sum(one.nbytes for one in model.parameters())
    if free < needed:
        raise OSError(
            ENOSPC, f"{os.strerror(ENOSPC)}: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free"
        )
    beside = Path(tempfile.mkdtemp(prefix=f"{folder.name[:12]}-", dir=folder.parent))
    try:
        with _silently():
            model.save_pretrained(beside)
            tokenizer.save_pretrained(beside)
        shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)
    except SafetensorError as error:  # what a full disk raises there
        raise OSError(ENOSPC, str(error)) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _read(file: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and fp16 model of a file, as transformers reads them.

    Raises:
        ConfigError: for what it cannot read; names the tokenizer or the model.
    """
    where = {"gguf_file": file.name, "local_files_only": True}
    what = "tokenizer"
    try:
        with Console(stderr=True).status(f"dequantising {file.name}, once"), _silently():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
            what = "model"
            held = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float16, **where)
    except Exception as error:  # parsers and converters raise nearly any error of several libraries
        raise ConfigError(f"the {what} in {file} cannot be read: {reason_of(error)}") from None
    # A model that came from GGUF says in its configuration that it is quantised, and is then not saved.
    settings = {name: value for name, value in held.config.to_dict().items() if name != "quantization_config"}
    with torch.device("meta"):
        model = type(held)(type(held.config).from_dict(settings))
    model.load_state_dict(held.state_dict(), assign=True)
    model.tie_weights()
    return tokenizer, model


@contextmanager
def _silently() -> Iterator[None]:
    """The bars of transformers' reader and writer are drawn whatever stderr is; who waits is told in one line."""
    with quietly(), redirect_stderr(io.StringIO()):
        yield
