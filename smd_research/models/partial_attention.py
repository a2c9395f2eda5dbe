"""Attention over a shard of the keys, and the exact merge of shards.

Theorem 1 of arXiv 2409.19134: softmax attention over the union of two key sets is the mean of the two partial
attentions, weighted by their softmax denominators. With the row maximum ``m`` and ``g = sum exp(s - m)`` the log weight
of a shard is ``l = m + log g``; the merge holds for any number of shards in any order, empty ones included.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

NEGATIVE_INFINITY = float("-inf")
_FUSED = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
"""Attention and the logarithm of its softmax denominators in one pass over the keys."""


class Partial(NamedTuple):
    """Attention over one shard: ``m``, ``g`` are ``[..., heads, rows]`` (fp32), ``a`` is ``[..., heads, rows, dv]``."""

    m: Tensor
    g: Tensor
    a: Tensor

    @classmethod
    def summed(cls, log_weight: Tensor, a: Tensor) -> "Partial":
        """A shard known by its log weight ``l`` alone: ``m`` stands for ``l``, ``g`` is one."""
        return cls(log_weight, torch.ones_like(log_weight), a)

    @property
    def log_weight(self) -> Tensor:
        """``l = m + log g``; minus infinity for an empty shard."""
        return self.m + self.g.log()


def scores(q: Tensor, k: Tensor, scale: float, softcap: float | None = None) -> Tensor:
    """Scaled, optionally soft-capped scores; grouped-query heads share their key head.

    Args:
        q: queries ``[batch, heads, rows, d]``.
        k: keys ``[batch, kv_heads, keys, d]``.
        scale: factor on the dot product.
        softcap: ``cap * tanh(s / cap)`` when given (Gemma-2).

    Returns:
        Scores ``[batch, kv_heads, group * rows, keys]``, query heads of one group stacked along the rows.
    """
    batch, heads, rows, d = q.shape
    kv_heads = k.shape[1]
    grouped = (q * scale).reshape(batch, kv_heads, heads // kv_heads * rows, d)
    s = torch.matmul(grouped, k.transpose(-1, -2))
    return softcap * torch.tanh(s / softcap) if softcap else s


def partial_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None = None, visible: Tensor | None = None
) -> Partial:
    """Attention of queries over one shard of keys.

    Args:
        q: queries ``[batch, heads, rows, d]``.
        k: keys ``[batch, kv_heads, keys, d]``.
        v: values ``[batch, kv_heads, keys, dv]``.
        scale: factor on the dot product.
        softcap: see ``scores``.
        visible: boolean ``[rows, keys]`` or ``[batch, rows, keys]``, False where a query must not see a key; None means
            all.

    Returns:
        The shard's partial attention; a row that sees no key has ``m = -inf``, ``g = 0``, ``a = 0``.
    """
    batch, heads, rows, _ = q.shape
    if k.shape[2] == 0:
        empty = torch.full((batch, heads, rows), NEGATIVE_INFINITY, dtype=torch.float32, device=q.device)
        return Partial(empty, torch.zeros_like(empty), v.new_zeros(batch, heads, rows, v.shape[-1]))
    s = scores(q, k, scale, softcap)
    if s.dtype != torch.float32:
        s = s.float()
    if visible is not None:
        hidden = ~visible if visible.dim() == 3 else ~visible[None]
        hidden = hidden.repeat(1, heads // k.shape[1], 1).unsqueeze(1)
        s = s.masked_fill(hidden, NEGATIVE_INFINITY)
    m = s.amax(-1, keepdim=True)
    safe = m if visible is None else m.clamp(min=torch.finfo(torch.float32).min)
    p = s.sub_(safe).exp_()
    g = p.sum(-1, keepdim=True)
    # dividing d values a row instead of one a key; an empty row stays zero
    a = torch.matmul(p.to(v.dtype), v) / (g if visible is None else g.clamp(min=torch.finfo(torch.float32).tiny))
    a = a.to(v.dtype)
    return Partial(m.view(batch, heads, rows), g.view(batch, heads, rows), a.view(batch, heads, rows, v.shape[-1]))


def summed_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None = None, bias: Tensor | None = None
) -> Partial:
    """Attention of queries over one shard, of which each sees a key, in one call of torch's own kernel.

    The kernel serves on the CPU, where scores are not capped and values as wide as keys; else ``partial_attention``.

    Args:
        q: queries ``[batch, heads, rows, d]``.
        k: keys ``[batch, kv_heads, keys, d]``.
        v: values ``[batch, kv_heads, keys, dv]``.
        scale: factor on the dot product.
        softcap: see ``scores``.
        bias: added to the scores ``[batch, 1, 1, keys]``: zero, or minus infinity for a key that is not to be seen.

    Returns:
        The shard's partial attention, known by its log weight.
    """
    batch, heads, rows, d = q.shape
    if _FUSED is None or softcap or v.shape[-1] != d or q.device.type != "cpu":
        shard = partial_attention(
            q, k, v, scale, softcap, None if bias is None else (bias[:, 0] == 0).expand(-1, rows, -1)
        )
        return Partial.summed(shard.log_weight, shard.a)
    grouped = q.reshape(batch, k.shape[1], -1, d)
    a, log_weight = _FUSED(grouped, k, v, 0.0, False, attn_mask=bias, scale=scale)
    return Partial.summed(log_weight.reshape(batch, heads, rows), a.reshape(batch, heads, rows, d))


def merge(shards: Sequence[Partial]) -> Tensor:
    """Attention over the union of the shards' keys, ``[batch, heads, rows, d]`` in fp32 arithmetic.

    Raises:
        ValueError: without any shard.
    """
    if not shards:
        raise ValueError("merge needs at least one shard")
    if len(shards) == 1:
        return shards[0].a
    if len(shards) == 2:
        return _merge_two(*shards)
    logs = torch.stack([shard.log_weight for shard in shards])
    weights = torch.softmax(logs, dim=0)
    parts = torch.stack([shard.a.float() for shard in shards])
    return (weights.unsqueeze(-1) * parts).sum(0)


def join(shards: Sequence[Partial]) -> Partial:
    """Attention over the union of the shards' keys as one shard, known by its log weight; never empty throughout.

    Raises:
        ValueError: without any shard.
    """
    whole = merge(shards)
    return Partial.summed(torch.stack([shard.log_weight for shard in shards]).logsumexp(0), whole)


def _merge_two(one: Partial, two: Partial) -> Tensor:
    # sigmoid of the difference of log weights: well conditioned, and an empty side (l = -inf) gets weight exactly 0
    weight = torch.sigmoid((one.m - two.m) + (one.g / two.g).log()).unsqueeze(-1)
    return torch.lerp(two.a.float(), one.a.float(), weight)
