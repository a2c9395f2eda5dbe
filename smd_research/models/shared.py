"""A bundle whose weights exist once in memory, for any number of processes.

They lie in one segment without a name (``boundary.segment``). A process that attaches rebuilds the module tree in about
a millisecond and points its tensors into a read-only mapping, so neither weights nor initialisation are ever paid for
privately.
"""

import contextlib
import mmap
import os
import pickle
import weakref
from multiprocessing.reduction import DupFd
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from smd_research.boundary.segment import Segment, SegmentSlot, fill
from smd_research.core.errors import ConfigError, UnsupportedModelError
from smd_research.models.bundle import Bundle


class SharedWeights:
    """The weights of a bundle in one read-only segment.

    Picklable to child processes, which inherit the descriptor and attach for themselves::

        weights = SharedWeights.of(bundle)
        context.Process(target=main, args=(weights,)).start()   # there: with weights as bundle: ...

    The bundle of ``attach`` is the same object over any number of detachments, and so is every structural copy made of
    it (``HookedModel``): between ``detach`` and ``attach`` its tensors are empty, and using them raises.
    A write to an attached tensor ends the process with SIGSEGV.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._close = weakref.finalize(self, os.close, segment.descriptor)
        self._slots: tuple[SegmentSlot, ...] = ()
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

        def takes(tensor: Tensor) -> bool:
            _check(bundle.name, tensor)
            return True

        try:
            return cls(Segment.of(bundle, takes))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise UnsupportedModelError(f"the module tree of {bundle.name} cannot be shared: {error}") from None

    @property
    def nbytes(self) -> int:
        """Bytes of the segment."""
        return self._segment.length

    @property
    def inode(self) -> int:
        """The segment's inode, by which ``/proc/PID/smaps`` names its mappings."""
        return os.fstat(self._segment.descriptor).st_ino

    @property
    def attached(self) -> bool:
        """Whether this process maps the segment."""
        return self._mapping is not None

    @torch.inference_mode(False)
    def attach(self) -> Bundle:
        """Map the segment, if it is not, and return the bundle whose tensors lie in it."""
        if self._mapping is None:
            self._mapping = self._segment.map(private=False)
            if self._bundle is None:
                self._bundle, self._slots, self._tensors = self._segment.rebuild(self._mapping)
            fill(self._slots, self._tensors, self._segment.bytes_of(self._mapping))
        assert self._bundle is not None
        return self._bundle

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
        return _receive, (DupFd(self._segment.descriptor), self._segment.length, self._segment.directory)


def _receive(descriptor: Any, length: int, directory: int) -> SharedWeights:
    return SharedWeights(Segment(descriptor.detach(), length, directory))


def _check(name: str, tensor: Tensor) -> None:
    if tensor.device.type != "cpu":
        raise ConfigError(f"the weights of {name} are on {tensor.device}: only those on device=cpu can be shared")
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
        raise UnsupportedModelError(
            f"{name} holds a {type(tensor).__name__} of layout {tensor.layout}: cannot share it"
        )
