"""A model whose residual stream is permuted: the same function on permuted hidden states.

With ``h' = h[perm]`` a matrix that reads the stream permutes its input columns, one that writes to it its output rows,
and a norm its gains (the permutation schemes of STIP and of PermLLM/Centaur-like systems). That the outcome is the same
function is checked before it is served.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.families import family_of, matrix_names, part_of
from smd_research.models.self_check import tolerance
from smd_research.models.stretch import Stretch
from smd_research.models.structure import blocks_of, final_norm_of

_WRITERS = ("o", "down")
"""Roles of the matrices that write to the residual stream."""
_INNER = ("q_b", "kv_b")
"""Roles of those that neither read nor write it; all others read it."""
_ROWS = 16
"""Tokens of the check."""


def permuted(bundle: Bundle, order: Tensor, first: int) -> Bundle:
    """The bundle with blocks ``first ..``, final norm and head acting on ``h[order]``.

    Args:
        bundle: stays untouched.
        order: a permutation of the width ``[width]``.
        first: index of the first block that is permuted.

    Raises:
        UnsupportedModelError: for a family with a matrix of unknown role, or that is another function afterwards.
    """
    model = copy.deepcopy(bundle.model)
    head = model.get_output_embeddings()
    if head is None:
        raise UnsupportedModelError(f"family '{bundle.family}' has no output head to permute")
    head.weight = nn.Parameter(head.weight[:, order].clone(), requires_grad=False)
    _permute_norm(final_norm_of(model, bundle.geometry.layers), order)
    for block in list(blocks_of(model, bundle.geometry.layers))[first:]:
        for path, module in block.named_modules():
            _permute_module(path, module, order, bundle)
    served = replace(bundle, model=model)
    _check_same(bundle, served, order, first)
    return served


def _permute_module(path: str, module: nn.Module, order: Tensor, bundle: Bundle) -> None:
    *_, name = words = path.split(".")
    if isinstance(module, nn.Linear | Conv1D):
        role = _role(words, bundle)
        # Conv1D stores [in, out], Linear [out, in]
        reads, writes = (0, 1) if isinstance(module, Conv1D) else (1, 0)
        if role not in _INNER:
            module.weight.data = module.weight.data.index_select(writes if role in _WRITERS else reads, order)
        if role in _WRITERS and module.bias is not None:
            module.bias.data = module.bias.data[order]
        return
    own = dict(module.named_parameters(recurse=False))
    if any(parameter.dim() > 1 for parameter in own.values()):
        for key, parameter in own.items():
            _permute_experts(words if key in ("weight", "bias") else [*words, key], parameter, order, bundle)
    elif name not in family_of(bundle.family).head_norms and "weight" in own and own["weight"].shape == order.shape:
        _permute_norm(module, order)


def _permute_experts(words: list[str], parameter: nn.Parameter, order: Tensor, bundle: Bundle) -> None:
    """Weights ``[experts, ...]`` of a mixture's experts or router, in whichever orientation the family keeps them."""
    name = words[-1].removesuffix("_bias")
    role = _role([*words[:-1], name], bundle)
    if name != words[-1] or parameter.dim() == 1:
        axes = [parameter.dim() - 1] if role in _WRITERS else []
    else:
        # [.., out, in] as in nn.Linear where both sizes are the width; else the axis that has it
        axes = [axis for axis in range(-2, 0) if parameter.shape[axis] == len(order)]
        axes = axes[:1] if role in _WRITERS else axes[-1:]
    for axis in axes:
        parameter.data = parameter.data.index_select(axis, order)


def _role(words: list[str], bundle: Bundle) -> str:
    role = matrix_names(part_of(words)).get(words[-1])
    if role is None:
        raise UnsupportedModelError(
            f"permute=hidden does not know matrix '{words[-1]}' of family '{bundle.family}': does it read or write?"
        )
    return role


def _permute_norm(norm: nn.Module, order: Tensor) -> None:
    for parameter in norm.parameters(recurse=False):
        parameter.data = parameter.data[order]


def _check_same(bundle: Bundle, served: Bundle, order: Tensor, first: int) -> None:
    """Refuse a permuted model that is not the same function.

    Raises:
        UnsupportedModelError: with the error.
    """
    device = bundle.device
    positions = torch.arange(min(_ROWS, bundle.geometry.context), device=device)
    ids = (positions * 7919 % bundle.geometry.vocab)[None]
    hidden = Stretch(bundle, None, first).forward(LocalAttention(), positions, ids=ids)
    right = Stretch(bundle, first).forward(LocalAttention(), positions, hidden=hidden).float()
    ours = Stretch(served, first).forward(LocalAttention(), positions, hidden=hidden[..., order]).float()
    error = float((ours - right).abs().max() / right.std())
    if not error <= tolerance(bundle.dtype):
        raise UnsupportedModelError(
            f"permute=hidden is not exact for family '{bundle.family}': logits are {error:.2g} standard deviations off"
        )
