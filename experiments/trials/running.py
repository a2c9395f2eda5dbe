"""Run one cell, or reuse its record: nothing heavy is imported for a cell that is known."""

import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.trials.plan import Plan
from smd_research.core.errors import LabError, MachineError, NotApplicableError
from smd_research.core.progress import say

if TYPE_CHECKING:
    from experiments.trials.workbench import Workbench
    from smd_research.records import Record, Store
    from smd_research.records.lease import Lease


class Runner:
    """Runs the cells of one process, which share what they can: a model is loaded, a defense lived through, once."""

    def __init__(self) -> None:
        self._workbench: Workbench | None = None

    def run(self, plan: Plan, busy: "Callable[[Lease | None], object] | None" = None) -> tuple["Record | None", bool]:
        """Run one cell, or reuse its record.

        Args:
            plan: of the cell.
            busy: told who has the cell, before that record is waited for; what it raises ends this. None says so.

        Returns:
            The record, None when the cell is unknown and ``rerun=never``; and whether it was reused.

        Raises:
            RecordError: when the results folder cannot be written, or holds a corrupt record of this cell.
            MachineError: when something is not there that the cell needs; nothing is recorded.
        """
        from smd_research.records import Store, decide
        from smd_research.records.lease import Leases

        store = Store(plan.results_dir)
        known = store.lookup(plan.cell) if plan.rerun != "always" else None
        if decide(known, plan.rerun) != "run":
            return known and _as_asked(store, plan, known), known is not None
        store.prepare()

        with Leases(plan.results_dir).held(plan.cell, busy or _say_who_has_it) as waited:
            known = store.lookup(plan.cell) if waited or plan.rerun != "always" else None
            if known is not None and (waited or decide(known, plan.rerun) != "run"):
                return _as_asked(store, plan, known), True  # another run had the cell meanwhile
            record = store.write(_kept(plan, self._try(plan)))

        from experiments.trials.sinks import log

        log(plan.logger, record, plan.results_dir)
        return record, False

    def _try(self, plan: Plan) -> "Record":
        """The record of a cell that is run now, whatever becomes of it.

        Raises:
            MachineError: when something is not there that the cell needs.
        """
        from smd_research.boundary.addresses import knock

        if plan.address is not None:
            knock(plan.address)  # before the model is loaded and runs unprotected: who is not there costs no time

        from experiments.trials.trial import trial
        from experiments.trials.workbench import Workbench
        from smd_research.records import Record, Status

        self._workbench = self._workbench or Workbench()
        try:
            return trial(plan, self._workbench, lambda other: self.run(replace(other, campaign=plan.campaign))[0])
        except MachineError:
            raise
        except NotApplicableError as reason:
            return Record(Status.NOT_APPLICABLE, plan.cell, str(reason))
        except Exception as error:
            if not isinstance(error, LabError):  # those that the lab raises on purpose say enough by themselves
                _show(error, with_message=plan.record_texts)
            return Record(Status.FAILED, plan.cell, one_line(error, with_message=plan.record_texts))


def _kept(plan: Plan, record: "Record") -> "Record":
    """What is written of a record."""
    from smd_research.records import without_texts

    noted = plan.campaign.noted(record) if plan.campaign else record
    return noted if plan.record_texts else without_texts(noted)


def _as_asked(store: "Store", plan: Plan, known: "Record") -> "Record":
    """A known record; its texts are taken out of it where they are not to be kept."""
    from smd_research.records import without_texts

    return known if plan.record_texts or not known.texts else store.write(without_texts(known))


def _show(error: Exception, *, with_message: bool) -> None:
    if with_message:
        traceback.print_exception(error)
    else:
        traceback.print_tb(error.__traceback__)
        say(one_line(error, with_message=False))


def _say_who_has_it(lease: "Lease | None") -> None:
    where = "another run" if lease is None else f"process {lease.pid}" if lease.here else "another machine"
    say(f"  {where} is busy with this cell: waiting for its record")


def one_line(error: Exception, *, with_message: bool = True) -> str:
    """An error as the reason of a failed cell.

    Args:
        error: what was raised.
        with_message: whether a message that is not the lab's own, which may quote what was worked on, is kept.
    """
    if not (with_message or isinstance(error, LabError)):
        return f"{type(error).__name__} (with record_texts=false its message is not kept)"
    text = " ".join(str(error).split())
    return text if isinstance(error, LabError) and text else f"{type(error).__name__}: {text}"
