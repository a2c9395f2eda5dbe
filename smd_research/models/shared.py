"""A bundle whose weights exist once in memory, for any number of processes.

All distinct tensors of the model lie in one segment without a name (a sealed memfd where the system has them, else an
unlinked file), each at an aligned offset; behind them lies the module tree, pickled with numbers in place of tensors.
A process that attaches rebuilds the tree in about a millisecond and points its tensors into a read-only mapping, so
neither weights nor initialisation are ever paid for privately.
"""

import contextlib
import fcntl
import io
import mmap
import os
import pickle
import tempfile
import warnings
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from smd_research.core.errors import ConfigError, UnsupportedModelError
from smd_research.models.bundle import Bundle

ALIGNMENT = 64
NAME = "smd-weights"


@dataclass(frozen=True)
class _Slot:
    """Where a tensor lies in the segment; ``span`` is the elements from its first to its last."""

    offset: int
    span: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    parameter: bool

    def view(self, segment: Tensor) -> Tensor:
        """The tensor, of bytes ``segment``."""
        stretch = segment[self.offset : self.offset + self.span * self.dtype.itemsize].view(self.dtype)
        return stretch.as_strided(self.shape, self.stride)

    def placeholder(self) -> Tensor:
        """A tensor of this kind without content."""
        empty = torch.empty(0, dtype=self.dtype)
        return nn.Parameter(empty, requires_grad=False) if self.parameter else empty


class SharedWeights:
    """The weights of a bundle in one read-only segment.

    Picklable to child processes, which inherit the descriptor and attach for themselves::

        weights = SharedWeights.of(bundle)
        context.Process(target=main, args=(weights,)).start()   # there: with weights as bundle: ...

    The bundle of ``attach`` is the same object over any number of detachments, and so is every structural copy made of
    it (``HookedModel``): between ``detach`` and ``attach`` its tensors are empty, and using them raises.
    A write to an attached tensor ends the process with SIGSEGV.
    """

    def __init__(self, descriptor: int, length: int, directory: int) -> None:
        self._descriptor = descriptor
        self._length = length
        self._directory = directory
        self._close = weakref.finalize(self, os.close, descriptor)
        self._slots: tuple[_Slot, ...] = ()
        self._tensors: tuple[Tensor, ...] = ()
        self._bundle: Bundle | None = None
        self._mapping: mmap.mmap | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> "SharedWeights":
        """Copy a bundle's parameters and buffers into a segment, tied ones once.

        Raises:
            ConfigError: when the weights are not in this machine's main memory.
            UnsupportedModelError: when the module tree cannot be pickled, or a tensor is not a plain strided one.
        """
        tree = io.BytesIO()
        pickler = _TreePickler(tree)
        try:
            pickler.dump(bundle)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise UnsupportedModelError(f"the module tree of {bundle.name} cannot be shared: {error}") from None
        for tensor in pickler.tensors:
            _check(bundle.name, tensor)
        slots, contents = _arrange(pickler.tensors)
        directory = _aligned(max((slot.offset + view.nbytes for slot, view in contents), default=0))
        blobs: list[tuple[int, Any]] = [(slot.offset, view.numpy().data) for slot, view in contents]
        blobs.append((directory, pickle.dumps((slots, tree.getvalue()), pickle.HIGHEST_PROTOCOL)))
        return cls(_segment(blobs), directory + len(blobs[-1][1]), directory)

    @property
    def nbytes(self) -> int:
        """Bytes of the segment."""
        return self._length

    @property
    def inode(self) -> int:
        """The segment's inode, by which ``/proc/PID/smaps`` names its mappings."""
        return os.fstat(self._descriptor).st_ino

    @property
    def attached(self) -> bool:
        """Whether this process maps the segment."""
        return self._mapping is not None

    @torch.inference_mode(False)
    def attach(self) -> Bundle:
        """Map the segment, if it is not, and return the bundle whose tensors lie in it."""
        if self._mapping is None:
            self._mapping = mmap.mmap(self._descriptor, self._length, mmap.MAP_SHARED, mmap.PROT_READ)
            if self._bundle is None:
                self._bundle = self._rebuild(self._mapping)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a buffer that is not writable, which is the purpose
                segment = torch.frombuffer(self._mapping, dtype=torch.uint8, count=self._directory)
            for slot, tensor in zip(self._slots, self._tensors, strict=True):
                tensor.data = slot.view(segment)
        assert self._bundle is not None
        return self._bundle

    def _rebuild(self, mapping: mmap.mmap) -> Bundle:
        self._slots, tree = pickle.loads(memoryview(mapping)[self._directory :])
        self._tensors = tuple(slot.placeholder() for slot in self._slots)
        bundle = _TreeUnpickler(io.BytesIO(tree), self._tensors).load()
        assert isinstance(bundle, Bundle)
        return bundle

    @torch.inference_mode(False)
    def detach(self) -> None:
        """Unmap the segment and leave the bundle's tensors empty; ``attach`` brings them back.

        Raises:
            RuntimeError: when a view of a weight is still held somewhere, which keeps the mapping.
        """
        if self._mapping is None:
            return
        for tensor in self._tensors:
            tensor.data = tensor.new_empty(0)
        mapping = weakref.ref(self._mapping)
        self._mapping = None
        if mapping() is not None:
            raise RuntimeError("weights detached while a view of one is still held: they stay mapped until it goes")

    def __enter__(self) -> Bundle:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.detach()
            return
        with contextlib.suppress(RuntimeError):  # frames of the error may hold a view
            self.detach()

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (DupFd(self._descriptor), self._length, self._directory)


def _receive(descriptor: Any, length: int, directory: int) -> SharedWeights:
    return SharedWeights(descriptor.detach(), length, directory)


class _TreePickler(pickle.Pickler):
    """Pickles a module tree with numbers in place of its tensors, which it collects."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, item: object) -> int | None:
        if not isinstance(item, Tensor):
            return None
        if id(item) not in self._numbers:
            self._numbers[id(item)] = len(self.tensors)
            self.tensors.append(item)
        return self._numbers[id(item)]


class _TreeUnpickler(pickle.Unpickler):
    """Puts tensors back where the pickler left their numbers."""

    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, number: int) -> Tensor:
        return self._tensors[number]


def _check(name: str, tensor: Tensor) -> None:
    if tensor.device.type != "cpu":
        raise ConfigError(f"the weights of {name} are on {tensor.device}: only those on device=cpu can be shared")
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
        raise UnsupportedModelError(
            f"{name} holds a {type(tensor).__name__} of layout {tensor.layout}: cannot share it"
        )


def _arrange(tensors: Iterable[Tensor]) -> tuple[tuple[_Slot, ...], list[tuple[_Slot, Tensor]]]:
    """A slot for each tensor, and the bytes ``[nbytes]`` of each distinct one with its slot."""
    slots: list[_Slot] = []
    contents: dict[tuple[Any, ...], tuple[_Slot, Tensor]] = {}
    end = 0
    for tensor in tensors:
        data = tensor.detach()
        shape, stride = tuple(data.shape), data.stride()
        span = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if data.numel() else 0
        key = (data.data_ptr(), data.dtype, shape, stride)
        if span and key in contents:
            offset = contents[key][0].offset
        else:
            offset = _aligned(end)
            end = offset + span * data.dtype.itemsize
        slot = _Slot(offset, span, data.dtype, shape, stride, isinstance(tensor, nn.Parameter))
        slots.append(slot)
        if span:
            contents.setdefault(key, (slot, data.as_strided((span,), (1,)).view(torch.uint8)))
    return tuple(slots), list(contents.values())


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _segment(blobs: Iterable[tuple[int, Any]]) -> int:
    """Read-only descriptor of a nameless file with each of ``blobs`` at its offset."""
    if hasattr(os, "memfd_create"):
        writable = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        path = f"/proc/self/fd/{writable}"
    else:
        writable, path = tempfile.mkstemp(prefix=NAME)
    with open(writable, "wb") as file:  # noqa: PTH123 (a descriptor)
        try:
            for offset, blob in blobs:
                file.seek(offset)
                file.write(blob)
            file.flush()
            if hasattr(os, "memfd_create"):
                seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
                fcntl.fcntl(writable, fcntl.F_ADD_SEALS, seals)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            if not path.startswith("/proc/"):
                os.unlink(path)  # noqa: PTH108
