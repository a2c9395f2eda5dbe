"""A tuned model in a folder: the same request is not tuned twice, another one starts over."""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from smd_research.core.whole_file import write_whole
from smd_research.data.texts import Readable
from smd_research.training.classifier import Classifier
from smd_research.training.methods import Tuning
from smd_research.training.tuning import Tuned, TuningOutcome, module_of

WEIGHTS = "tuned.safetensors"
_REQUEST, _OUTCOME = "request", "outcome.json"
_HEAD = "readout."


@dataclass(frozen=True, repr=False)
class TuningRequest:
    """All that decides the result of a tuning run.

    Attributes:
        fingerprint: of the model that it starts from.
        training: texts to train on.
        held_out: texts that decide which state is best.
        tuning: how.
        classes: number of classes; 0 tunes the next token.
        words: token id that stands for each class, or empty.
        seed: of initialisation, order and dropout.
    """

    fingerprint: str
    training: Readable
    held_out: Readable
    tuning: Tuning
    classes: int
    words: Tensor
    seed: int

    @property
    def digest(self) -> str:
        """SHA-256 of everything."""
        texts = [[part.content, part.labels] for part in (self.training, self.held_out)]
        method = {"method": type(self.tuning).__name__, **asdict(self.tuning)}
        rest = [self.fingerprint, texts, method, self.classes, self.words.tolist(), self.seed]
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def tuned_once(request: TuningRequest, start: PreTrainedModel, folder: Path, run: Callable[[], Tuned]) -> Tuned:
    """The result that ``folder`` holds of a request; else that of ``run``, which finds its own checkpoints there.

    Args:
        request: what is asked for.
        start: the model that the tuning starts from.
        folder: emptied when it belongs to another request.
        run: tunes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / _REQUEST
    if not mark.is_file() or mark.read_text() != request.digest:
        shutil.rmtree(folder)
        folder.mkdir()
        write_whole(mark, request.digest.encode())
    if (folder / _OUTCOME).is_file():
        return _load(request, start, folder)
    tuned = run()
    _save(tuned, folder)
    return tuned


def tuned_weights(folder: Path) -> dict[str, Tensor]:
    """The tuned model's weights by the names of its ``state_dict``; the head, which is no part of it, left out."""
    return {name: value for name, value in load_file(folder / WEIGHTS).items() if not name.startswith(_HEAD)}


def _save(tuned: Tuned, folder: Path) -> None:
    whole = tuned.model.state_dict()
    first = {value.data_ptr(): name for name, value in reversed(whole.items())}  # tied matrices are stored once
    kept = {name: whole[name] for name in first.values()}
    if isinstance(tuned.module, Classifier) and tuned.module.readout is not None:
        kept |= {f"{_HEAD}{name}": value for name, value in tuned.module.readout.state_dict().items()}
    part = folder / "part"
    save_file({name: value.detach().cpu().contiguous() for name, value in kept.items()}, part)
    part.replace(folder / WEIGHTS)
    write_whole(folder / _OUTCOME, json.dumps(asdict(tuned.outcome)).encode())
    for checkpoint in folder.glob("*.ckpt"):
        checkpoint.unlink()


def _load(request: TuningRequest, start: PreTrainedModel, folder: Path) -> Tuned:
    model = copy.deepcopy(start).float()
    model.load_state_dict(tuned_weights(folder), strict=False)
    with torch.random.fork_rng():
        module = module_of(model, request.tuning, request.classes, request.words)
    if isinstance(module, Classifier) and module.readout is not None:
        stored = load_file(folder / WEIGHTS)
        module.readout.load_state_dict({name: stored[_HEAD + name] for name in module.readout.state_dict()})
    model.eval().requires_grad_(False)
    return Tuned(model, module.eval(), TuningOutcome(**json.loads((folder / _OUTCOME).read_text())))
