"""A key is put into a model: its tables are shaken, then the rest is trained to work with them (reconstructed).

The phases are those of CypherTalk (arXiv 2403.07283), their details ours. Everything here runs at the client or at
whoever it trusts, on public text.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from smd_research.core.errors import ConfigError
from smd_research.core.whole_file import write_whole
from smd_research.mechanisms.shaking import Key, Substitution, affine, shake
from smd_research.mechanisms.shaking.streams import Floats
from smd_research.models.bundle import Bundle
from smd_research.models.structure import sharing_copy
from smd_research.models.tables import body_parameters, input_table, is_tied, output_head, with_tables, without_head
from smd_research.training.recovery import (
    FULL,
    FUNCTION,
    PRECISIONS,
    LossWeights,
    Phase,
    Precision,
    TrainingCost,
    packed,
    recover,
)

Head = Literal["shaken", "linear", "permuted", "drop"]
HEADS: tuple[Head, ...] = get_args(Head)

_WEIGHTS, _MARK = "implant.safetensors", "implant.json"


@dataclass(frozen=True)
class Recovery:
    """Recovery training.

    Attributes:
        awareness_steps: optimiser steps of awareness recovery.
        function_steps: of function recovery.
        batch: rows of a step.
        row_tokens: tokens of a row.
        learning_rate: peak of AdamW's.
        weights: of the losses of awareness recovery.
        freeze_tables: whether input table and head stay as they were shaken.
        precision: of the arithmetic, Lightning's name; None: ``32-true``.

    Raises:
        ConfigError: for a value out of range.
    """

    awareness_steps: int
    function_steps: int
    batch: int
    row_tokens: int
    learning_rate: float
    weights: LossWeights
    freeze_tables: bool
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if min(self.awareness_steps, self.function_steps) < 0:
            raise ConfigError("defense.awareness_steps and defense.function_steps count from 0")
        if self.batch < 1 or self.row_tokens < 2 or self.learning_rate <= 0:
            raise ConfigError("defense: batch is at least 1, row_tokens at least 2, learning_rate above 0")
        if min(asdict(self.weights).values()) < 0:
            raise ConfigError("defense: hidden_weight, logit_weight and text_weight are not negative")
        if self.precision not in (None, *PRECISIONS):
            raise ConfigError(f"defense.precision={self.precision} is unknown: use one of {', '.join(PRECISIONS)}")


def shaken(bundle: Bundle, key: Key, head: Head) -> Bundle:
    """The model with the key in its tables; all else is shared with the given one, which stays untouched.

    ============  =====================================================================================================
    ``shaken``    the head takes all vertical operators too: a tied one stays tied, another draws its own
    ``linear``    the head takes the matrix of the affine operators and no noise: whoever matches tables starts there
    ``permuted``  the head is permuted only: exact, and the public head to anybody who sorts its rows
    ``drop``      the provider gets no head: it classifies, and cannot generate
    ============  =====================================================================================================

    Without vertical operators the first three are one, and exact without any training.

    Args:
        bundle: the model that the key belongs to.
        key: the key.
        head: what becomes of the output head.

    Raises:
        UnsupportedModelError: for a model without a separable embedding or a linear head.
    """
    if head == "drop":
        return without_head(_tables(bundle, key, "permuted"))
    return _tables(bundle, key, head)


def _tables(bundle: Bundle, key: Key, head: Head) -> Bundle:
    plain_of = torch.from_numpy(Substitution.of(key, bundle.special_ids).plain_of)
    public, output = _floats(input_table(bundle)), output_head(bundle)
    rows, sigma = public[plain_of.numpy()], float(public.std())
    table = torch.from_numpy(shake(rows, key, sigma))
    bias = None if output.bias is None else output.bias.detach()[plain_of.to(output.bias.device)]
    if is_tied(bundle) and (head == "shaken" or not key.vertical):
        return with_tables(bundle, table, None, bias)
    weight = _floats(output.weight)[plain_of.numpy()]
    if head == "shaken":
        weight = shake(weight, key, float(weight.std()), "head")
    elif head == "linear":
        weight = weight @ affine(key, weight.shape[1], sigma)[0]
    return with_tables(bundle, table, torch.from_numpy(weight), bias)


def _floats(table: Tensor) -> Floats:
    values: Floats = table.detach().cpu().double().numpy()
    return values


def implanted(
    bundle: Bundle,
    key: Key,
    head: Head,
    recovery: Recovery,
    awareness_text: Sequence[Sequence[int]],
    function_text: Sequence[Sequence[int]],
    seed: int,
    folder: Path | None = None,
) -> tuple[Bundle, TrainingCost]:
    """The model with the key in it, recovered; and what the training took.

    Args:
        bundle: the public model, which is the teacher too.
        key: belongs to it.
        head: see ``shaken``.
        recovery: how it is trained; no steps train nothing.
        awareness_text: token ids of public text for awareness recovery.
        function_text: token ids of public text like the task's, for function recovery.
        seed: of the order of the text.
        folder: keeps checkpoints and the result, so that a training that was killed goes on with equal results and a
            finished one is not done again; None keeps nothing.

    Raises:
        ConfigError: for too little public text, or a folder that holds another implant.
        UnsupportedModelError: see ``shaken``.
    """
    if not recovery.awareness_steps + recovery.function_steps:
        return shaken(bundle, key, head), TrainingCost()
    # Without a head of the provider's the client's own judges the states: the public one, permuted like the ids.
    start = _tables(bundle, key, "permuted" if head == "drop" else head)
    student = _trainable(start, recovery)
    if folder is not None:
        rest = _digest(bundle.fingerprint(), head, asdict(recovery), awareness_text, function_text, seed)
        identity = {"key": key.name, "rest": rest}
        spent = _claim(folder, identity, student)
        if spent is None:
            spent = _train(student, bundle, key, recovery, awareness_text, function_text, seed, folder)
            _keep(folder, identity, student, spent)
    else:
        spent = _train(student, bundle, key, recovery, awareness_text, function_text, seed, None)
    done = _with_parameters(start, student)
    return (without_head(done) if head == "drop" else done), spent


def _trainable(start: Bundle, recovery: Recovery) -> PreTrainedModel:
    """A copy of its own in single precision, whose body, and perhaps tables, ask for a gradient."""
    student = copy.deepcopy(start.model).float().eval()  # no dropout: its teacher has none either
    student.requires_grad_(not recovery.freeze_tables)
    for parameter in body_parameters(student):
        parameter.requires_grad_(True)
    return student


def _with_parameters(start: Bundle, student: PreTrainedModel) -> Bundle:
    """The bundle with the student's parameters in its own precision; its buffers stay as they are."""
    model = copy.deepcopy(start.model)
    with torch.no_grad():
        for ours, theirs in zip(model.parameters(), student.parameters(), strict=True):
            ours.copy_(theirs)
    return replace(start, model=model)


def _train(
    student: PreTrainedModel,
    bundle: Bundle,
    key: Key,
    recovery: Recovery,
    awareness_text: Sequence[Sequence[int]],
    function_text: Sequence[Sequence[int]],
    seed: int,
    folder: Path | None,
) -> TrainingCost:
    code = Substitution.of(key, bundle.special_ids)
    homophones = torch.from_numpy(code.homophones)
    # Its own module tree: transformers leaves hooks behind where hidden states were asked for.
    half = bundle.dtype != torch.float32
    teacher = copy.deepcopy(bundle.model).float() if half else sharing_copy(bundle.model)
    spent = TrainingCost()
    for name, text, weights, steps in (
        ("awareness", awareness_text, recovery.weights, recovery.awareness_steps),
        ("function", function_text, FUNCTION, recovery.function_steps),
    ):
        if steps:
            rows = packed(text, min(recovery.row_tokens, bundle.geometry.context), bundle.end_id)
            phase = Phase(
                name, weights, steps, recovery.batch, recovery.learning_rate, seed, recovery.precision or FULL
            )
            spent += recover(student, teacher, rows, phase, code.encode, homophones, folder)
    return spent


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _claim(folder: Path, identity: Mapping[str, str], student: PreTrainedModel) -> TrainingCost | None:
    """Mark a folder as that of one implant, named by its key and by all else; load a finished one, say what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / _MARK
    if not mark.is_file():
        write_whole(mark, json.dumps(identity).encode())
        return None
    try:
        held = json.loads(mark.read_text(encoding="utf-8"))
        key, rest = str(held["key"]), str(held["rest"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{mark} is damaged: remove the folder (or rerun=always), the implant is made again"
        ) from None
    if key != identity["key"]:
        raise ConfigError(
            f"the implant in {folder} belongs to another key ({key}, not {identity['key']}): use that key, or remove "
            "the folder (or rerun=always)"
        )
    if rest != identity["rest"]:
        raise ConfigError(f"{folder} holds the implant of another model, text or training: remove it (or rerun=always)")
    if "spent" not in held:
        return None
    parameters = dict(student.named_parameters())
    with torch.no_grad():
        for name, values in load_file(folder / _WEIGHTS).items():
            parameters[name].copy_(values)
    return TrainingCost(**held["spent"])


def _keep(folder: Path, identity: Mapping[str, str], student: PreTrainedModel, spent: TrainingCost) -> None:
    """Weights first, then the word that they are whole; then the checkpoints have done their service."""
    part = folder / f"{_WEIGHTS}.part"
    save_file({name: one.detach().cpu().contiguous() for name, one in student.named_parameters()}, part)
    part.replace(folder / _WEIGHTS)
    write_whole(folder / _MARK, json.dumps({**identity, "spent": asdict(spent)}).encode())
    for checkpoint in folder.glob("*.ckpt"):
        checkpoint.unlink()
