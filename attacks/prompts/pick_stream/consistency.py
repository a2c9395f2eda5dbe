"""Does a prompt explain the replies it was read from? The released code's fakes do not.

There, tokens after a secret keep the keys and values that the real secret gave them (arXiv 2409.19134, v2's code), so
that from layer 1 on a fake prompt that is prefilled in full disagrees with its own stream's transcript. Which prompt is
real is then tried out: the whole construction is replayed under each supposition and compared with all transcripts.
"""

import torch
from torch import Tensor

from attacks.prompts.pick_stream.lineup import Lineup
from attacks.transcript import Exchanges, exchanges, public_prefix
from smd_research.boundary import AdversaryView
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention, visible
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import partial_attention

# Relative error of a replayed reply that rounding explains, by the coarser of the wire's and the model's type.
ROUNDING = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
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
        """Log weights ``[streams]``: equal where each prompt by itself explains its replies up to rounding.

        The error's scale is unknown and profiled out, but it is never below rounding.
        """
        seen = [exchanges(view.stream(stream)) for stream in range(lineup.size)]
        layers = [layer for layer in seen[0] if 0 < layer < self._layers]
        if not layers:
            return torch.zeros(lineup.size)
        kinds = (self._bundle.dtype, seen[0][layers[0]].a.dtype)
        rounding = max(ROUNDING.get(kind, ROUNDING[torch.float32]) for kind in kinds)
        asked = {layer: [of[layer] for of in seen] for layer in layers}
        public = public_prefix(view)
        alone = self._misfit(lineup, asked, public, LocalAttention(KVStore(capacity=lineup.ids.shape[1])))
        if bool((alone <= rounding).all()):
            return torch.zeros(lineup.size)
        shared = [
            self._misfit(lineup, asked, public, _Multiplexed(lineup, authentic, self._bundle.device)).mean()
            for authentic in range(lineup.size)
        ]
        return -_DEVIATIONS * (torch.stack(shared) / rounding).clamp_min(1).log()

    @torch.inference_mode()
    def _misfit(
        self, lineup: Lineup, seen: dict[int, list[Exchanges]], public: int, attention: LocalAttention
    ) -> Tensor:
        """Relative error of each stream's replies under an attention, mean over layers ``[streams]``."""
        device = self._bundle.device
        self._model.forward(attention, torch.arange(lineup.ids.shape[1], device=device), ids=lineup.ids.to(device))
        errors = [
            _error(attention.store, layer, attention.specs[layer], found, public) for layer, found in seen.items()
        ]
        return torch.stack(errors).mean(0)


class _Multiplexed(LocalAttention):
    """The released construction, supposing which prompt is real.

    Common text attends to that prompt's secrets, for all streams; a secret attends to common text and to itself.
    """

    def __init__(self, lineup: Lineup, authentic: int, device: torch.device) -> None:
        super().__init__(KVStore(capacity=lineup.ids.shape[1]))
        self._real = slice(authentic, authentic + 1)
        secret = torch.zeros(lineup.ids.shape[1], dtype=torch.long, device=device)
        for number, (start, end) in enumerate(lineup.spans, start=1):
            secret[start:end] = number
        self._common = (secret == 0)[:, None]
        self._apart = (secret[None] == 0) | (secret[None] == secret[:, None])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.specs[layer] = spec
        self.store.append(layer, k, v, positions)
        causal = visible(positions, positions, spec)
        causal = torch.ones_like(self._apart) if causal is None else causal
        real = self._real
        common = partial_attention(q[real], k[real], v[real], spec.scale, spec.softcap, causal).a
        own = partial_attention(q, k, v, spec.scale, spec.softcap, causal & self._apart).a
        return torch.where(self._common, common, own)


def _error(store: KVStore, layer: int, spec: AttentionSpec, seen: list[Exchanges], public: int) -> Tensor:
    """Relative error of ``A`` plus mean error of ``m + log g``, for each stream."""
    k, v, key_positions = store.get(layer)
    q = torch.stack([of.q for of in seen]).to(k).transpose(1, 2)
    mask = visible(seen[0].positions.to(k.device), key_positions[public:], spec)
    ours = partial_attention(q, k[:, :, public:], v[:, :, public:], spec.scale, spec.softcap, mask)
    theirs = torch.stack([of.a.float() for of in seen]).transpose(1, 2)
    masses = torch.stack([of.log_weight for of in seen]).transpose(1, 2)
    off_mass = (ours.m.double().cpu() + ours.g.double().log().cpu() - masses).nan_to_num(nan=0.0).abs()
    off = (ours.a.float().cpu() - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1).clamp_min(1e-12)
    error: Tensor = off + off_mass.flatten(1).mean(1).float()
    return error
