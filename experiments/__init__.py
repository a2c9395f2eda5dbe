"""What runs experiments: the commands of ``smd``, and ``from experiments import Lab``, the door from Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.lab import Lab

__all__ = ["Lab"]


def __getattr__(name: str) -> Any:
    """The laboratory, when it is asked for: it takes seconds to import, and no command needs it."""
    if name == "Lab":
        from experiments.lab import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
