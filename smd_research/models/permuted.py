"""A model whose residual stream is permuted: the same function on permuted hidden states.

With ``h' = h[perm]`` a matrix that reads the stream permutes its input columns, one that writes to it its output rows,
and a norm its gains (the permutation schemes of STIP and of PermLLM/Centaur-like systems).
"""

import copy
from dataclasses import replace

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.bundle import Bundle
from smd_research.models.families import family_of, matrix_names, part_of
from smd_research.models.hooked import blocks_of, final_norm_of

_WRITERS = ("o", "down")
"""Roles of the matrices that write to the residual stream; all others read it."""


def permuted(bundle: Bundle, order: Tensor, first: int) -> Bundle:
    """The bundle with blocks ``first ..``, final norm and head acting on ``h[order]``.

    Args:
        bundle: stays untouched.
        order: a permutation of the width ``[width]``.
        first: index of the first block that is permuted.

    Raises:
        UnsupportedModelError: for a family with a matrix of unknown role.
    """
    if any(parameter.dim() > 2 for parameter in bundle.model.parameters()):
        raise UnsupportedModelError(f"permute=hidden does not know the experts of family '{bundle.family}'")
    model = copy.deepcopy(bundle.model)
    head = model.get_output_embeddings()
    if head is None:
        raise UnsupportedModelError(f"family '{bundle.family}' has no output head to permute")
    head.weight = nn.Parameter(head.weight[:, order].clone(), requires_grad=False)
    _permute_norm(final_norm_of(model, bundle.geometry.layers), order)
    for block in list(blocks_of(model, bundle.geometry.layers))[first:]:
        for path, module in block.named_modules():
            _permute_module(path, module, order, bundle)
    return replace(bundle, model=model)


def _permute_module(path: str, module: nn.Module, order: Tensor, bundle: Bundle) -> None:
    *_, name = words = path.split(".")
    if isinstance(module, nn.Linear | Conv1D):
        # Conv1D stores [in, out], Linear [out, in]
        reads, writes = (0, 1) if isinstance(module, Conv1D) else (1, 0)
        role = matrix_names(part_of(words)).get(name)
        if role is None:
            raise UnsupportedModelError(
                f"permute=hidden does not know matrix '{name}' of family '{bundle.family}': is it a reader or a writer?"
            )
        module.weight.data = module.weight.data.index_select(writes if role in _WRITERS else reads, order)
        if role in _WRITERS and module.bias is not None:
            module.bias.data = module.bias.data[order]
    elif name not in family_of(bundle.family).head_norms and not list(module.children()):
        weight = getattr(module, "weight", None)
        if weight is not None and weight.shape == order.shape:
            _permute_norm(module, order)


def _permute_norm(norm: nn.Module, order: Tensor) -> None:
    for parameter in norm.parameters(recurse=False):
        parameter.data = parameter.data[order]
