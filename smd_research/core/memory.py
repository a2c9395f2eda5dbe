"""A bound on what is taken while a file of somebody else is read: a small one may say that it is a large one."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def at_most(nbytes: int) -> Iterator[None]:
    """Give this process no more memory than it holds and so much, or than is free; beyond, there is a MemoryError.

    Where the system keeps no such limit (all but Linux), nothing is bounded.

    Args:
        nbytes: that may come to what is held now.
    """
    held = getattr(psutil.Process().memory_info(), "data", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = held + min(nbytes, psutil.virtual_memory().available)
    if held and (soft == resource.RLIM_INFINITY or bound < soft):
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
