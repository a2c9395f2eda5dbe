"""The caller's own script, which a process of a party does not run again unless it needs something of it.

Python has every child that is not forked run the main script first, in case what it is sent is defined there; a script
that starts a party on its first level would start one in the child too. Hardly any party is defined in a script. So the
child begins without it, and runs it when it meets a name that only the script has.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import spawn

from smd_research.core.errors import ConfigError

Script = Mapping[str, str]
"""How a child would run the main script, in the words of :mod:`multiprocessing`; empty where there is none."""

_MAIN = ("init_main_from_name", "init_main_from_path")
_TELL: Sequence[str] = ("__file__", "__spec__")
"""What of the main module tells how to run it."""


def main_script() -> Script:
    """The main script of this process.

    Raises:
        ConfigError: when this is a child that runs the script.
    """
    try:
        told = spawn.get_preparation_data("script")
    except RuntimeError:
        raise ConfigError(
            "this script holds a class that the untrusted process needs, which runs the script for it: put what the "
            "script does under if __name__ == '__main__':"
        ) from None
    return {name: str(told[name]) for name in _MAIN if name in told}


@contextmanager
def without_script() -> Iterator[None]:
    """Processes that are started meanwhile do not run the main script."""
    main = sys.modules["__main__"]
    held = vars(main)
    hidden = {name: held[name] for name in _TELL if name in held}
    held.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        held.update(hidden)


def run_for(name: str, script: Script) -> None:
    """In a child: run the main script if it alone can have a name of ``__main__``."""
    if script and not hasattr(sys.modules["__main__"], name.partition(".")[0]):
        spawn.prepare(dict(script))
