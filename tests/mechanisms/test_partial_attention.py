"""Theorem 1 of arXiv 2409.19134: merging shards equals attention over all keys."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_research.models import partial_attention as module
from smd_research.models.partial_attention import Partial, merge, partial_attention, summed_attention


def _whole(q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1).double(), v.repeat_interleave(group, 1).double()
    s = q.double() @ k.transpose(-1, -2) * scale
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    return torch.softmax(s, -1) @ v


@given(
    seed=st.integers(0, 1000),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    cuts=st.lists(st.integers(0, 24), max_size=4),
    magnitude=st.sampled_from([1.0, 30.0, 1000.0]),
    softcap=st.sampled_from([None, 5.0]),
    rows=st.integers(1, 3),
)
@settings(deadline=None, max_examples=80)
def test_merged_shards_equal_attention_over_all_keys(
    seed: int, heads: tuple[int, int], cuts: list[int], magnitude: float, softcap: float | None, rows: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, heads[0], rows, 8, generator=generator) * magnitude
    k, v = (torch.randn(2, heads[1], 24, 8, generator=generator) for _ in range(2))
    edges = [0, *sorted(cuts), 24]
    shards = [partial_attention(q, k[:, :, a:b], v[:, :, a:b], 8**-0.5, softcap) for a, b in pairwise(edges)]
    expected = _whole(q, k, v, 8**-0.5, softcap)
    tolerance = {"atol": 1e-5 * max(1.0, magnitude / 10), "rtol": 1e-4}
    torch.testing.assert_close(merge(shards).double(), expected, **tolerance)
    torch.testing.assert_close(merge(shards[::-1]).double(), expected, **tolerance)


def test_a_row_that_sees_nothing_weighs_nothing() -> None:
    q, k, v = torch.randn(1, 2, 2, 4), torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    seen = torch.tensor([[True, True, True], [False, False, False]])
    blind = partial_attention(q, k, v, 0.5, visible=seen)
    assert blind.m[..., 1].eq(float("-inf")).all()
    assert blind.g[..., 1].eq(0).all()
    assert blind.a[..., 1, :].eq(0).all()
    other = partial_attention(q, k, v, 0.5)
    torch.testing.assert_close(merge([blind, other])[:, :, 1], other.a[:, :, 1])


def test_dropping_a_shard_is_noticed() -> None:
    q, k, v = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    half = partial_attention(q, k[:, :, :3], v[:, :, :3], 0.5)
    assert (half.a - _whole(q, k, v, 0.5, None)).abs().max() > 1e-2


def test_no_shard_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        merge([])


def test_half_precision_keys_keep_statistics_in_fp32() -> None:
    q, k, v = (torch.randn(1, 2, 1, 8, dtype=torch.bfloat16) for _ in range(3))
    shard = partial_attention(q, k, v, 1.0)
    assert isinstance(shard, Partial)
    assert (shard.m.dtype, shard.g.dtype, shard.a.dtype) == (torch.float32, torch.float32, torch.bfloat16)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_shard_known_by_its_log_weight_merges_alike(
    fused: bool, softcap: float | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(module, "_FUSED", None)
    torch.manual_seed(0)
    q = torch.randn(2, 4, 3, 8).to(dtype) * 3
    k, v = (torch.randn(2, 2, 9, 8).to(dtype) for _ in range(2))
    bias = torch.zeros(2, 1, 1, 6, dtype=dtype)
    bias[1, ..., 4:] = float("-inf")  # the second stream has two keys fewer
    theirs = partial_attention(q, k[:, :, 6:], v[:, :, 6:], 0.4, softcap)
    got = merge([theirs, summed_attention(q, k[:, :, :6], v[:, :, :6], 0.4, softcap, bias)])
    kept = torch.tensor([0, 1, 2, 3, 6, 7, 8])
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(got[:1].double(), _whole(q[:1], k[:1], v[:1], 0.4, softcap), **tolerance)
    expected = _whole(q[1:], k[1:, :, kept], v[1:, :, kept], 0.4, softcap)
    torch.testing.assert_close(got[1:].double(), expected, **tolerance)
