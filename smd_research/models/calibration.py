"""What an honest decode looks like, from public text: its queries, and the sizes of what answers them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smd_research.core.errors import ConfigError
from smd_research.models.attention import AttentionSpec, KVStore
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel

DOCUMENTS, TOKENS = 96, 96


@dataclass(frozen=True, repr=False)
class Calibration:
    """Statistics of a model's attention on public text; no prompt that is to be protected enters.

    Attributes:
        queries: queries, rotated, of all positions ``[layers, heads, rows, head_dim]`` (fp32).
        value_norm: largest Euclidean norm of a value vector ``[layers]``.
        log_weight: largest absolute value of ``l = m + log g`` ``[layers]``, in nats.
    """

    queries: Tensor
    value_norm: Tensor
    log_weight: Tensor


class _Watched:
    """Causal attention that keeps every query and the sizes of values and weights."""

    def __init__(self) -> None:
        self._store = KVStore()
        self.queries: list[Tensor] = []
        self.value_norm: list[Tensor] = []
        self.log_weight: list[Tensor] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self._store.append(layer, k, v, positions)
        shard = self._store.partial(layer, q, positions, spec)
        self.queries.append(q[0].float())
        self.value_norm.append(v.float().norm(dim=-1).amax())
        self.log_weight.append((shard.m + shard.g.log()).abs().amax())
        return shard.a


@torch.inference_mode()
def calibrate(bundle: Bundle, corpus: Sequence[Sequence[int]]) -> Calibration:
    """Run public documents through a model and keep what its attention asks and is answered.

    Args:
        bundle: the model.
        corpus: token ids of public documents; the first ``DOCUMENTS`` count, with ``TOKENS`` tokens each.

    Raises:
        ConfigError: without public text.
    """
    documents = [document for document in corpus[:DOCUMENTS] if document]
    if not documents:
        raise ConfigError("calibration on honest queries needs public text: the data source gives no train split")
    model, runs = HookedModel(bundle), []
    for document in documents:
        watched = _Watched()
        ids = torch.tensor([list(document[:TOKENS])], device=bundle.device)
        model.forward(watched, torch.arange(ids.shape[1], device=bundle.device), ids=ids, last_only=True)
        runs.append(watched)
    return Calibration(
        queries=torch.cat([torch.stack(run.queries) for run in runs], 2).cpu(),
        value_norm=torch.stack([torch.stack(run.value_norm) for run in runs]).amax(0).cpu(),
        log_weight=torch.stack([torch.stack(run.log_weight) for run in runs]).amax(0).cpu(),
    )
