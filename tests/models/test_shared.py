"""Weights exist once: attached bundles compute the same bits, cannot be written, and can be let go."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_research.boundary.segment import NAME
from smd_research.core.errors import ConfigError, UnsupportedModelError
from smd_research.metrics import mapped, private_bytes, shared_once
from smd_research.models import Bundle, sources
from smd_research.models.attention import LocalAttention
from smd_research.models.families import FAMILIES
from smd_research.models.hooked import HookedModel
from smd_research.models.shared import SharedWeights
from smd_research.models.structure import sharing_copy

MEGABYTE = 2**20


def _ids() -> Tensor:
    return torch.randint(5, 4000, (1, 24), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def _logits(bundle: Bundle) -> Tensor:
    logits: Tensor = bundle.model(input_ids=_ids()).logits
    return logits


def _hooked(bundle: Bundle) -> Tensor:
    return HookedModel(bundle).forward(LocalAttention(), torch.arange(24), ids=_ids())


def _in_maps() -> bool:
    return NAME in Path("/proc/self/maps").read_text()


def _serve(job: Callable[..., Any], weights: SharedWeights, pipe: Connection) -> None:
    torch.set_num_threads(1)
    pipe.send(job(weights))
    pipe.poll(60)


class Child:
    """A child of a fork server that runs one job on the weights and stays until it is let go."""

    def __init__(self, job: Callable[..., Any], weights: SharedWeights) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "transformers", "smd_research.models.shared"])
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(job, weights, other), daemon=True)
        self.process.start()
        other.close()

    def answer(self) -> Any:
        assert self.pipe.poll(60)
        return self.pipe.recv()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def end(self) -> int | None:
        self.pipe.close()
        self.process.join(20)
        return self.process.exitcode


def _both(weights: SharedWeights) -> tuple[bytes, bytes, str]:
    with weights as bundle:
        logits, hooked = _logits(bundle), _hooked(bundle)
        return logits.numpy().tobytes(), hooked.numpy().tobytes(), bundle.fingerprint()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_attached_bundle_computes_the_same_bits(family: str) -> None:
    bundle = sources.random(family)
    weights = SharedWeights.of(bundle)
    with weights as attached:
        assert torch.equal(_logits(attached), _logits(bundle))
        assert torch.equal(_hooked(attached), _hooked(bundle))
        assert attached.fingerprint() == bundle.fingerprint()
        assert (attached.weight_bytes, attached.geometry, attached.name) == (
            bundle.weight_bytes,
            bundle.geometry,
            bundle.name,
        )
        assert [name for name, _ in attached.model.named_buffers()] == [
            name for name, _ in bundle.model.named_buffers()
        ]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_other_dtypes_are_shared_as_they_are(dtype: str) -> None:
    bundle = sources.random("llama", dtype=dtype)
    with SharedWeights.of(bundle) as attached:
        assert attached.dtype == bundle.dtype
        assert torch.equal(_logits(attached), _logits(bundle))


def test_another_process_computes_the_same_bits() -> None:
    bundle = sources.embedded()
    child = Child(_both, SharedWeights.of(bundle))
    logits, hooked, fingerprint = child.answer()
    assert logits == _logits(bundle).numpy().tobytes()
    assert hooked == _hooked(bundle).numpy().tobytes()
    assert fingerprint == bundle.fingerprint()
    assert child.end() == 0


def test_every_tensor_lies_once_in_the_segment_and_aligned() -> None:
    bundle = sources.random("llama")
    weights = SharedWeights.of(bundle)
    with weights as attached:
        tensors = [*attached.model.parameters(), *attached.model.buffers()]
        pointers = [tensor.data_ptr() for tensor in tensors]
        assert max(pointers) - min(pointers) < weights.nbytes
        assert not any(pointer % 64 for pointer in pointers)
        assert attached.model.lm_head.weight is attached.model.get_input_embeddings().weight
    tree = 200_000  # of which the tokenizer is the most
    assert bundle.weight_bytes <= weights.nbytes < bundle.weight_bytes + 64 * len(tensors) + tree


def _write(weights: SharedWeights) -> None:
    weights.attach().embedding[0, 0] = 1.0


def test_a_write_to_a_weight_ends_the_process() -> None:
    bundle = sources.random("llama")
    weights = SharedWeights.of(bundle)
    child = Child(_write, weights)
    child.process.join(20)
    assert child.process.exitcode == -signal.SIGSEGV
    with weights as attached:
        assert attached.fingerprint() == bundle.fingerprint()


def test_nobody_can_reopen_the_segment_for_writing() -> None:
    weights = SharedWeights.of(sources.random("llama"))
    with weights, pytest.raises(PermissionError):
        os.write(os.open(f"/proc/self/fd/{weights._segment.descriptor}", os.O_RDWR), b"x")


def test_detached_weights_are_gone_and_come_back() -> None:
    bundle = sources.random("qwen3")
    weights = SharedWeights.of(bundle)
    assert not _in_maps()
    attached = weights.attach()
    model = HookedModel(attached)
    expected = model.forward(LocalAttention(), torch.arange(24), ids=_ids())
    assert _in_maps()
    weights.detach()
    assert not _in_maps()
    assert not weights.attached
    with pytest.raises(RuntimeError):
        model.forward(LocalAttention(), torch.arange(24), ids=_ids())
    assert weights.attach() is attached
    assert torch.equal(model.forward(LocalAttention(), torch.arange(24), ids=_ids()), expected)
    weights.detach()
    assert not _in_maps()


def test_a_view_that_is_still_held_is_reported_and_stays_valid() -> None:
    weights = SharedWeights.of(sources.random("llama"))
    row = weights.attach().embedding[7]
    before = row.clone()
    with pytest.raises(RuntimeError, match="still held"):
        weights.detach()
    assert torch.equal(row, before)
    del row
    assert not _in_maps()


def test_an_error_inside_is_not_replaced_by_one_about_the_mapping() -> None:
    weights = SharedWeights.of(sources.random("llama"))

    def fail() -> None:
        with weights as attached:
            held = attached.embedding[0]
            raise KeyError(held.shape)

    with pytest.raises(KeyError):
        fail()


def test_a_copy_of_the_tree_brings_no_copy_of_the_segment() -> None:
    with SharedWeights.of(sources.embedded()) as bundle:
        copied = sharing_copy(bundle.model)
        for buffer, own in zip(bundle.model.buffers(), copied.buffers(), strict=True):
            assert own.untyped_storage().nbytes() == own.nbytes < buffer.untyped_storage().nbytes()
            assert torch.equal(own, buffer)
        del buffer, own, copied


def _use(weights: SharedWeights) -> None:
    _logits(weights.attach())


def test_further_processes_hold_no_weights_of_their_own() -> None:
    config = sources.random("llama").model.config
    config.update({"hidden_size": 512, "intermediate_size": 2048, "vocab_size": 16384, "head_dim": 128})
    big = Bundle.of("big", type(sources.random("llama").model)(config), sources.embedded_tokenizer())
    weights = SharedWeights.of(big)
    small = Child(_use, SharedWeights.of(sources.random("llama")))
    children = [Child(_use, weights) for _ in range(2)]
    for child in (small, *children):
        child.answer()  # both have touched every weight before anything is measured
    plain, *private = [private_bytes(child.pid) for child in (small, *children)]
    pids = [child.pid for child in children]
    assert big.weight_bytes > 60 * MEGABYTE
    once = shared_once(pids, weights.inode, NAME)
    assert 0.9 * weights.nbytes < once <= weights.nbytes + 4096
    assert all(mapped(pid, weights.inode, NAME).rss > 0.9 * big.weight_bytes for pid in pids)
    assert all(mapped(pid, weights.inode, NAME).private < 0.1 * big.weight_bytes for pid in pids)
    assert max(private) - plain < 0.2 * big.weight_bytes
    for child in (small, *children):
        child.end()


@pytest.mark.parametrize("family", ["llama", pytest.param("100m", marks=pytest.mark.slow)])
def test_attaching_takes_milliseconds(family: str) -> None:
    weights = SharedWeights.of(sources.random(family))
    began = time.perf_counter()
    with weights:
        assert time.perf_counter() - began < 0.5
    began = time.perf_counter()
    with weights:
        assert time.perf_counter() - began < 0.1


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        square = torch.arange(12.0).reshape(3, 4)
        self.turned = nn.Parameter(square.t(), requires_grad=False)
        self.spread = square.expand(2, 3, 4)
        self.column = square[:, 1]
        self.register_buffer("empty", torch.empty(0, 5))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("count", torch.tensor(7))


def test_strides_plain_attributes_and_empty_tensors_survive() -> None:
    odd = Odd()
    bundle = sources.random("llama")
    bundle.model.odd = odd
    with SharedWeights.of(bundle) as attached:
        twin = attached.model.odd
        for name in ("turned", "spread", "column", "empty", "flags", "count"):
            ours, theirs = getattr(odd, name), getattr(twin, name)
            assert torch.equal(ours, theirs), name
            assert ours.stride() == theirs.stride() or not ours.numel(), name
            assert ours.dtype == theirs.dtype, name
        del twin, ours, theirs


def test_what_cannot_be_shared_is_refused_in_one_line() -> None:
    bundle = sources.random("llama")
    bundle.model.register_buffer("far", torch.empty(1, device="meta"))
    with pytest.raises(ConfigError, match="on meta"):
        SharedWeights.of(bundle)
    bundle = sources.random("llama")
    bundle.model.register_buffer("holes", torch.eye(3).to_sparse())
    with pytest.raises(UnsupportedModelError, match="sparse"):
        SharedWeights.of(bundle)
    bundle = sources.random("llama")
    bundle.model.local = lambda: None
    with pytest.raises(UnsupportedModelError, match="cannot be shared"):
        SharedWeights.of(bundle)


def test_without_memfd_an_unlinked_file_does_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bundle = sources.random("llama")
    with SharedWeights.of(bundle) as attached:
        assert torch.equal(_logits(attached), _logits(bundle))
    assert not list(tmp_path.iterdir())
