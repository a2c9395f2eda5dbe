"""Does a prompt explain the replies it was read from? The released code's fakes do not.

There, tokens after a secret keep the keys and values that the real secret gave them (arXiv 2409.19134, v2's code). From
layer 1 on, a fake prompt that is prefilled in full disagrees with its own stream's transcript; the real one does not.
"""

import torch
from torch import Tensor

from attacks.decoys.lineup import Lineup
from attacks.transcript import Exchanges, exchanges, public_prefix
from smd_research.boundary import AdversaryView
from smd_research.mechanisms.partial_attention import partial_attention
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention, visible
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel

# Relative error of a replayed reply that rounding explains, by the coarser of the wire's and the model's type.
ROUNDING = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
# How many independent deviations a whole transcript counts for: enough that an order of magnitude decides.
_DEVIATIONS = 8


class Consistency:
    """Prefills every prompt of a line-up and asks it the queries that its stream was asked.

    Args:
        bundle: the public model.
        layers: blocks replayed; layer 0 depends on no context, so at least two.
    """

    def __init__(self, bundle: Bundle, layers: int) -> None:
        self._bundle = bundle
        self._layers = max(2, min(layers, bundle.geometry.layers))
        self._model = HookedModel(bundle, None, self._layers)

    def weights(self, lineup: Lineup, view: AdversaryView) -> Tensor:
        """Log weights ``[streams]``: equal where all prompts explain their replies up to rounding.

        The error's scale is unknown and profiled out, but it is never below rounding.
        """
        seen = [exchanges(view.stream(stream)) for stream in range(lineup.size)]
        layers = [layer for layer in seen[0] if 0 < layer < self._layers]
        if not layers:
            return torch.zeros(lineup.size)
        kinds = (self._bundle.dtype, seen[0][layers[0]].a.dtype)
        rounding = max(ROUNDING.get(kind, ROUNDING[torch.float32]) for kind in kinds)
        misfit = self._misfit(lineup, {layer: [of[layer] for of in seen] for layer in layers}, public_prefix(view))
        return -_DEVIATIONS * (misfit / rounding).clamp_min(1).log()

    @torch.inference_mode()
    def _misfit(self, lineup: Lineup, seen: dict[int, list[Exchanges]], public: int) -> Tensor:
        """Relative error of each prompt's replies, mean over layers ``[streams]``."""
        attention = LocalAttention(KVStore(capacity=lineup.ids.shape[1]))
        device = self._bundle.device
        self._model.forward(attention, torch.arange(lineup.ids.shape[1], device=device), ids=lineup.ids.to(device))
        errors = [
            _error(attention.store, layer, attention.specs[layer], found, public) for layer, found in seen.items()
        ]
        return torch.stack(errors).mean(0)


def _error(store: KVStore, layer: int, spec: AttentionSpec, seen: list[Exchanges], public: int) -> Tensor:
    """Relative error of ``A`` plus mean error of ``m + log g``, for each stream."""
    k, v, key_positions = store.get(layer)
    q = torch.stack([of.q for of in seen]).to(k).transpose(1, 2)
    mask = visible(seen[0].positions.to(k.device), key_positions[public:], spec.window)
    ours = partial_attention(q, k[:, :, public:], v[:, :, public:], spec.scale, spec.softcap, mask)
    theirs = torch.stack([of.a.float() for of in seen]).transpose(1, 2)
    masses = torch.stack([of.log_weight for of in seen]).transpose(1, 2)
    off_mass = (ours.m.double().cpu() + ours.g.double().log().cpu() - masses).nan_to_num(nan=0.0).abs()
    off = (ours.a.float().cpu() - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1).clamp_min(1e-12)
    error: Tensor = off + off_mass.flatten(1).mean(1).float()
    return error
