"""One door to Hydra: where the configuration lies, how a command starts, and what a user reads when it cannot."""

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.composing import overrides
from experiments.composing.checking import check
from experiments.composing.smoke import bring_down
from experiments.composing.sweeps import Sweep, check_sweep
from smd_research.core.errors import LabError
from smd_research.core.paths import conf_dir

VERSION_BASE = "1.3"
RUN = "config"
WITH_CELLS = (RUN, "table", "worker")
"""Commands that run cells."""
USAGE = 2
FAILED = 1
INTERRUPTED = 130
COMMON = "common"
"""Attribute of the task that Hydra is given: what its jobs have in common with the command."""

_NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Errors of a folder that cannot be written."""


def launch(
    task: Callable[[DictConfig], None],
    config_name: str,
    program: str,
    argv: Sequence[str] | None,
    sweep: Callable[[Sweep], None] | None = None,
    common: object = None,
    *,
    own_modules: bool = True,
) -> int:
    """Run ``task`` on the configuration that ``argv`` composes, once or as a multirun.

    Args:
        task: called with each composed configuration.
        config_name: the primary configuration in ``conf/``.
        program: how the command calls itself in its help.
        argv: Hydra overrides and flags, unchanged; ``None`` takes the process's own.
        sweep: called with the cells of a multirun of ``smd run`` in place of ``task``, where they stay in this process.
        common: what jobs have in common with the command, for a launcher that runs them on other hosts.
        own_modules: whether what lies in the working directory can be imported.

    Returns:
        0; 1 when the task raised a ``LabError``; 2 when the command line could not be composed. Either is explained in
        one line on stderr. ``HYDRA_FULL_ERROR=1`` shows the stack trace instead.
    """
    arguments = overrides.gathered(sys.argv[1:] if argv is None else argv)
    wants_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"

    HydraConfig.instance().cfg = None  # of an earlier command of this process
    here = os.getpid()
    raised: list[Exception] = []
    begun: list[bool] = []

    def entry(cfg: DictConfig) -> Exception | None:
        begun.append(True)
        if raised:  # what stops one job stops the sweep
            return None
        try:
            cfg = bring_down(cfg)
            check(cfg)
            task(cfg)
        except (LabError, overrides.UsageError, OSError, OmegaConfBaseException) as error:
            if isinstance(error, OSError) and error.errno not in _NO_WRITING:
                raise
            if os.getpid() != here:
                raise  # Hydra hands it over to the command
            raised.append(error)  # kept, since Hydra would print its own account of it
            return error  # to a launcher, on another of whose hosts a process may have this one's number
        return None

    def swept(found: Sweep) -> None:
        begun.append(True)
        assert sweep is not None
        sweep(found)

    vars(entry)[COMMON] = common
    try:
        overrides.check_words(arguments, conf_dir())
        overrides.check_choices(arguments, conf_dir())
        _check_launcher(arguments, config_name)
        on_path = _working_directory_on_path() if own_modules else contextlib.nullcontext()
        with _arguments(program, arguments), _raised_errors(), on_path, _own_warnings_in_a_line():
            if config_name != RUN or not check_sweep(arguments, swept if sweep else None):
                hydra.main(version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=config_name)(entry)()
        if raised:
            raise raised[0]
    except SystemExit as leaving:  # --help and argparse's own refusals
        return leaving.code if isinstance(leaving.code, int) else USAGE
    except KeyboardInterrupt:
        return _refuse("interrupted; the same command continues", INTERRUPTED)
    except Exception as error:
        worded = None if wants_trace else _worded(error, arguments, config_name, begun=bool(begun))
        if worded is None:
            raise
        return _refuse(*worded)
    finally:
        GlobalHydra.instance().clear()
    return 0


def _check_launcher(arguments: Sequence[str], config_name: str) -> None:
    """Raise where a command without cells is given a launcher of cells, which Hydra would not know."""
    ours = {path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml")}
    for word in arguments:
        group, _, option = word.partition("=")
        if group == "hydra/launcher" and option in ours and config_name not in WITH_CELLS:
            raise overrides.UsageError(f"{word} takes the cells of smd run and smd table, and nothing else")


def _worded(error: Exception, arguments: Sequence[str], config_name: str, *, begun: bool) -> tuple[str, int] | None:
    """What a user reads of an error, and the exit code; None of one that nobody expected.

    Args:
        error: what was raised.
        arguments: the command line, flags first.
        config_name: the primary configuration.
        begun: whether the task was called.
    """
    match error:
        case overrides.UsageError() | HydraException() | OmegaConfBaseException():
            return overrides.explain(error, arguments, conf_dir(), config_name), USAGE
        case LabError():
            return str(error), FAILED
        case ValueError() if not begun:  # Hydra's, of a group's value that is no word
            return str(error), USAGE
        case BrokenProcessPool():
            return "the process of a job was killed, or memory was short; the same command continues", FAILED
        case OSError() if error.errno in _NO_WRITING:
            where = f" {error.filename}" if error.filename else ""
            return f"cannot write{where}: {error.strerror}; choose another folder with results_dir=DIR", FAILED
    return None


def _refuse(message: str, code: int) -> int:
    first, *listed = message.split("\n  ")
    print("\n  ".join([f"error: {' '.join(first.split())}", *listed]), file=sys.stderr)
    return code


@contextlib.contextmanager
def _arguments(program: str, arguments: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [program, *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _raised_errors() -> Iterator[None]:
    """Let Hydra raise, rather than print and leave, so that this module words the message."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextlib.contextmanager
def _own_warnings_in_a_line() -> Iterator[None]:
    """Say what the lab itself warns of as a user reads it: once, and without the line of source that Python adds."""
    before = warnings.formatwarning
    said: set[str] = set()

    def in_a_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if not category.__module__.startswith(("smd_research.", "experiments.")):
            return before(message, category, filename, lineno, line)
        text = f"warning: {message}\n"
        again = text in said  # Python's own memory of it is lost whenever somebody changes a filter
        said.add(text)
        return "" if again else text

    warnings.formatwarning = in_a_line
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextlib.contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """Let a user's own attack or defense module lie in the working directory, also under the ``smd`` command."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)
