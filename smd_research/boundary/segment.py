"""Tensors for other processes, all in one piece of memory and one descriptor, however many they are.

All distinct tensors of an object lie in one segment without a name (a sealed memfd where the system has them, else a
file that is unlinked before it is filled), each at an aligned offset; behind them lies the object, pickled with numbers
in place of tensors. Tensors that overlap in memory (tied weights, views of one another) overlap in the segment, and
what no tensor of the object shows is not copied. Nothing is left behind when a process is killed.
"""

import fcntl
import io
import mmap
import os
import pickle
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

import torch
from torch import Tensor, nn

from smd_research.boundary.script import Script, run_for

ALIGNMENT = 64
NAME = "smd-weights"


@dataclass(frozen=True)
class SegmentSlot:
    """Where a tensor lies in the segment; ``span`` is the elements from its first to its last."""

    offset: int
    span: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    parameter: bool
    requires_grad: bool

    def view(self, segment: Tensor) -> Tensor:
        """The tensor, of bytes ``segment``."""
        stretch = segment[self.offset : self.offset + self.span * self.dtype.itemsize].view(self.dtype)
        return stretch.as_strided(self.shape, self.stride)

    def placeholder(self) -> Tensor:
        """A tensor of this kind without content."""
        empty = torch.empty(0, dtype=self.dtype)
        if self.parameter:
            return nn.Parameter(empty, requires_grad=self.requires_grad)
        return empty.requires_grad_(self.requires_grad)


@dataclass(frozen=True)
class Segment:
    """The segment.

    Attributes:
        descriptor: a read-only one; whoever holds the segment closes it.
        length: bytes in all.
        directory: where the tensors end and the pickled object begins.
    """

    descriptor: int
    length: int
    directory: int

    @classmethod
    def of(cls, root: object, takes: Callable[[Tensor], bool]) -> "Segment":
        """Copy an object and its tensors into a segment.

        Args:
            root: the object.
            takes: whether a tensor goes into the segment; others are pickled as they always are.

        Raises:
            PicklingError, TypeError, AttributeError: when the object cannot be pickled.
        """
        tree = io.BytesIO()
        pickler = _TreePickler(tree, takes)
        pickler.dump(root)
        slots, contents, end = _arrange(pickler.tensors)
        directory = _aligned(end)
        contents.append((directory, pickle.dumps((slots, tree.getvalue()), pickle.HIGHEST_PROTOCOL)))
        return cls(_file(contents), directory + len(contents[-1][1]), directory)

    def map(self, *, private: bool) -> mmap.mmap:
        """Map it into this process: read-only, or ``private``, where a write is seen by nobody else."""
        if private:
            return mmap.mmap(self.descriptor, self.length, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        return mmap.mmap(self.descriptor, self.length, mmap.MAP_SHARED, mmap.PROT_READ)

    def bytes_of(self, mapping: mmap.mmap) -> Tensor:
        """All tensors' bytes ``[directory]`` in a mapping, which lives as long as any view of them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a buffer that is not writable, which is the purpose
            return torch.frombuffer(mapping, dtype=torch.uint8, count=self.directory)

    def rebuild(
        self,
        mapping: mmap.mmap,
        script: Script = {},  # noqa: B006 (never written to)
    ) -> tuple[Any, tuple[SegmentSlot, ...], tuple[Tensor, ...]]:
        """The object with tensors that are empty yet, and what each of them has to become.

        Args:
            mapping: of the segment.
            script: the sender's own, run where the object needs something of it.
        """
        slots: tuple[SegmentSlot, ...]
        slots, tree = pickle.loads(memoryview(mapping)[self.directory :])
        tensors = tuple(slot.placeholder() for slot in slots)
        return _TreeUnpickler(io.BytesIO(tree), tensors, script).load(), slots, tensors


@torch.inference_mode(False)
def fill(slots: Iterable[SegmentSlot], tensors: Iterable[Tensor], segment: Tensor) -> None:
    """Point tensors at their content."""
    for slot, tensor in zip(slots, tensors, strict=True):
        tensor.data = slot.view(segment)


class Parcel:
    """An object on its way to a process that is being started; it arrives as the object itself.

    There its tensors lie in the segment, which both processes share until one is written to.

    Args:
        content: what is sent; tensors in main memory go in one segment, others as torch sends them.
        script: the sender's own, which the process runs only where the object needs something of it.
    """

    def __init__(self, content: object, script: Script = {}) -> None:  # noqa: B006 (never written to)
        self._content, self._script = content, script

    def __reduce__(self) -> tuple[Any, ...]:
        segment = Segment.of(self._content, _plain)
        weakref.finalize(self, os.close, segment.descriptor)  # it leaves after this returns, while the process starts
        return _unpack, (DupFd(segment.descriptor), segment.length, segment.directory, self._script)


def _plain(tensor: Tensor) -> bool:
    """Whether a tensor is bytes in main memory and nothing more."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and (tensor.is_leaf or not tensor.requires_grad)
    )


def _unpack(descriptor: Any, length: int, directory: int, script: Script) -> object:
    segment = Segment(descriptor.detach(), length, directory)
    try:
        mapping = segment.map(private=True)
    finally:
        os.close(segment.descriptor)
    content, slots, tensors = segment.rebuild(mapping, script)
    if directory:
        fill(slots, tensors, segment.bytes_of(mapping))
    return content


class _TreePickler(ForkingPickler):
    """Pickles an object with numbers in place of its tensors, which it collects."""

    def __init__(self, file: io.BytesIO, takes: Callable[[Tensor], bool]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []
        self._takes = takes
        self._numbers: dict[int, int] = {}

    def persistent_id(self, item: object) -> int | None:
        if not isinstance(item, Tensor) or not self._takes(item):
            return None
        if id(item) not in self._numbers:
            self._numbers[id(item)] = len(self.tensors)
            self.tensors.append(item)
        return self._numbers[id(item)]


class _TreeUnpickler(pickle.Unpickler):
    """Puts tensors back where the pickler left their numbers."""

    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor], script: Script) -> None:
        super().__init__(file)
        self._tensors, self._script = tensors, script

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == "__main__":
            run_for(global_name, self._script)
        return super().find_class(module_name, global_name)

    def persistent_load(self, number: int) -> Tensor:
        return self._tensors[number]


def _arrange(tensors: Sequence[Tensor]) -> tuple[tuple[SegmentSlot, ...], list[tuple[int, Any]], int]:
    """A slot for each tensor, the bytes to write with their offsets, and where they end."""
    spans = [_span(tensor) for tensor in tensors]
    offsets = [0] * len(tensors)
    contents: list[tuple[int, Any]] = []
    begins = finishes = end = 0
    # in order of their addresses; what overlaps goes in one stretch
    for index in sorted(range(len(tensors)), key=lambda i: (tensors[i].data_ptr(), -spans[i])):
        data = tensors[index].detach()
        first, nbytes = data.data_ptr(), spans[index] * data.dtype.itemsize
        if not nbytes:
            continue
        if first >= finishes:
            begins, finishes, end = first, first, _aligned(end)
            base = end
        offsets[index] = base + first - begins
        if first + nbytes > finishes:
            contents.append((offsets[index], data.as_strided((spans[index],), (1,)).view(torch.uint8).numpy().data))
            finishes = first + nbytes
            end = base + finishes - begins
    slots = tuple(
        SegmentSlot(
            offset,
            span,
            tensor.dtype,
            tuple(tensor.shape),
            tensor.stride(),
            isinstance(tensor, nn.Parameter),
            tensor.requires_grad,
        )
        for offset, span, tensor in zip(offsets, spans, tensors, strict=True)
    )
    return slots, contents, end


def _span(tensor: Tensor) -> int:
    if not tensor.numel():
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _file(contents: Iterable[tuple[int, Any]]) -> int:
    """Read-only descriptor of a nameless file with each of ``contents`` at its offset."""
    sealed = hasattr(os, "memfd_create")
    if sealed:
        writable = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        readable = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    else:
        writable, path = tempfile.mkstemp(prefix=NAME)
        readable = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.unlink(path)  # noqa: PTH108 (before it holds anything: a kill leaves nothing)
    try:
        with open(writable, "wb") as file:  # noqa: PTH123 (a descriptor)
            for offset, content in contents:
                file.seek(offset)
                file.write(content)
            file.flush()
            if sealed:
                seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
                fcntl.fcntl(writable, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(readable)
        raise
    return readable
