"""The laboratory: a model under a defense, two live parties, and whatever an attack makes of what crossed."""

import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import torch

from attacks.base import Attack, Public
from experiments.composing.overrides import UsageError
from experiments.lab.answers import LabAnswer
from experiments.lab.asking import prompt_of
from experiments.lab.guesses import LabGuess, LabOutcome
from experiments.lab.planning import Options, attack_of, called
from experiments.lab.targets import Attacked, others_of, seen_of, targets_of
from experiments.lab.tuned import LabTuning
from experiments.trials.impersonating import replay
from experiments.trials.lives import life_of
from experiments.trials.plain import Plain, plain_answers
from experiments.trials.plan import Plan
from experiments.trials.pursuing import admit, pursue
from experiments.trials.pursuit import Pursuit
from experiments.trials.seen import SERVE
from experiments.trials.serving import opening_of, serve_one
from experiments.trials.trial import knowledge, trial
from experiments.trials.workbench import Workbench
from smd_research.boundary import AdversaryView
from smd_research.core.errors import LabError, NotApplicableError, PromptError
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Defense, Deployment, Prepared
from smd_research.models.bundle import Bundle
from smd_research.records import Record

Asked = str | Prompt


class Lab:
    """A model under a defense, to ask and to attack.

    What it does is what ``smd run`` does, part by part: the same defense is prepared from the same public text, the
    same two parties serve, the same attack gets the same view. What it leaves is no record: nothing is written, and one
    prompt is no measurement.

    Options are those of the command line, as words or by name, with the same defaults but one: a prompt is whole,
    unless ``prompt_tokens`` cuts it::

        Lab(defense="smd")
        Lab("defense.survival=0.5", defense="dp_text", seed=1, max_new_tokens=16)
        Lab(model=lab.bundle, defense=MyDefense())

    Two parties are started with the first question and stay until :meth:`close`, or the end of the ``with`` block, of
    the object, or of the process. Requests are numbered from 0, and what the defense draws hangs on that number, as it
    hangs on a prompt's place in a cell.

    Args:
        words: options as on the command line, ``"defense.survival=0.5"``.
        model: name of the model, or one that is loaded.
        defense: name of the defense, or one that is made.
        options: other options by name: ``seed=1, max_new_tokens=16, data="clinical", transport="process"``.

    Raises:
        UsageError: for an option or value that there is not, in one line with the near miss.
        ConfigError: for options that do not go together.
    """

    def __init__(
        self, *words: str, model: str | Bundle | None = None, defense: str | Defense | None = None, **options: Any
    ) -> None:
        self._options = Options(words, model, defense, options)
        self._plan = self._options.plan()
        self._life = life_of(self._plan)
        self._made = self._plan.parts.defense()
        self._shows = self._life.shows(self._made, self._plan)
        self._workbench = Workbench()
        self._requests = 0
        self._texts = 0
        self._name = object()
        self._live: tuple[Deployment, ExitStack] | None = None
        self._held = ExitStack()
        self._closing = weakref.finalize(self, self._held.close)

    # What there is

    @cached_property
    def bundle(self) -> Bundle:
        """The user's model; hand it to another laboratory to load it once."""
        with self._at_work():
            return self._workbench.bundle(self._plan)

    @property
    def defense(self) -> Defense:
        """The defense."""
        return self._made

    @cached_property
    def prepared(self) -> Prepared:
        """What the defense made of the model before anything private was sent: served, shown, published, promised."""
        with self._at_work():
            return self._life.prepare(self._kept, self._workbench, self._made)

    @property
    def public(self) -> Public:
        """What an attacker knows besides the view: the model, public text, the defense's public parameters."""
        with self._at_work():
            return knowledge(self._plan, self._workbench, seen_of(self.prepared, []))

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The evaluation prompts of the data, ``n_prompts`` of them, as a cell asks them."""
        with self._at_work():
            return self._workbench.prompts(self._plan)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._closing.alive

    def command(self, attack: str = "none", **options: Any) -> str:
        """The command that runs these options, with an attack, as a cell over the data's own prompts.

        Raises:
            UsageError: where an object was given in the place of a name.
        """
        if not self._options.named:
            raise UsageError("an object has no name on the command line: make the lab of names")
        return self._options.plan(attack, options).cell.command

    # What it does

    @overload
    def ask(self, what: Asked) -> LabAnswer: ...  # type: ignore[overload-overlap]

    @overload
    def ask(self, what: Sequence[Asked]) -> list[LabAnswer]: ...

    def ask(self, what: Asked | Sequence[Asked]) -> LabAnswer | list[LabAnswer]:
        """Send a prompt, or several, through the defense.

        Args:
            what: a text, in which secrets may be marked as in data (``<redacted>[name] Ms. Lee</redacted>``; where none
                is, rules find some); or a prompt, e.g. of another answer: the same prompt under two defenses.

        Returns:
            An answer, or one for each.

        Raises:
            PromptError: for a text that is empty or too long for the model.
            RefusedError: for a prompt that the defense will not serve.
            LabError: for whatever stops a party; the next question starts two new ones.
        """
        with self._at_work():
            if self._life.name != SERVE:
                raise UsageError(f"a lab with a task tunes: lab.tune(); to ask, leave task={self._task} out")
            several = isinstance(what, Sequence) and not isinstance(what, str)
            asked: Sequence[Any] = what if several else [what]  # type: ignore[assignment]
            prompts = self.prepared.stage([self._prompt(one) for one in asked])
            plain = plain_answers(self.bundle, prompts, self._plan.cell.max_new_tokens)
            answers = [self._ask(prompt, one) for prompt, one in zip(prompts, plain, strict=True)]
        return answers if several else answers[0]

    def tune(self) -> LabTuning:
        """Tune the model on the private texts of the task, under the defense, and use it.

        Raises:
            UsageError: where there is no task.
            ConfigError: for a task that this model cannot take.
        """
        with self._at_work():
            if self._life.name == SERVE:
                raise UsageError('a lab without a task serves: to tune, name one, e.g. task="note_type"')
            seen = self._life.live(self._kept, self._workbench, self.prepared)
            return LabTuning(seen, self._plan.parts.link(), self._name)

    @overload
    def attack(self, attack: str | Attack, what: Attacked, *, seed: int | None = ..., **options: Any) -> LabGuess: ...

    @overload
    def attack(
        self, attack: str | Attack, what: Sequence[Attacked], *, seed: int | None = ..., **options: Any
    ) -> list[LabGuess]: ...

    @overload
    def attack(
        self, attack: str | Attack, what: LabTuning | None = ..., *, seed: int | None = ..., **options: Any
    ) -> LabOutcome: ...

    def attack(
        self,
        attack: str | Attack,
        what: Attacked | Sequence[Attacked] | LabTuning | None = None,
        *,
        seed: int | None = None,
        **options: Any,
    ) -> LabGuess | list[LabGuess] | LabOutcome:
        """Attack what was seen.

        An attack gets views and what is public, and nothing else: of an answer its view alone. It may be given a view
        that was changed, or messages of your own; what it draws then has another name than the prompt's. An active
        attack asks each prompt of the answers once more, in the honest provider's place.

        Args:
            attack: its name, or one that is made.
            what: an answer, a view, several of these, or what tuning left; nothing for an attack on weights or promises
                that looks at no request.
            seed: of the attack's randomness; None takes the laboratory's.
            options: of the attack, by name.

        Returns:
            A guess at each prompt; for an attack that looks for no single prompt, its outcome.

        Raises:
            UsageError: for an attack or option that there is not, or what is not this laboratory's to attack.
            NotApplicableError: for an attack that needs what the defense does not show, in one line.
        """
        with self._at_work():
            plan, made = attack_of(self._options, attack, options)
            name = attack if isinstance(attack, str) else called(attack)
            targets = targets_of(name, made, what, self._name, self._life.name != SERVE)
            admit(made, self._life.name, self._shows)
            seen = what.seen if isinstance(what, LabTuning) else seen_of(self.prepared, targets)
            public = knowledge(plan, self._workbench, seen)
            answers = [one for one in targets if isinstance(one, LabAnswer)]
            again = None if self._life.replay is None else partial(replay, draws=[one.draw for one in answers])
            if again and made.impostor(public) is not None and (not answers or len(answers) < len(targets)):
                raise NotApplicableError(f"{name} asks again in the provider's place: give it an answer, and no view")
            findings = pursue(made, Pursuit(plan, self._workbench, seen, public, again, self._record_of, seed))
            if (targets and not findings.prompts) or isinstance(what, LabTuning | None):
                return LabOutcome(name, findings.metrics, findings.items)
            guesses = [
                LabGuess(found.guess, name, asked, self.bundle, found.scores, self._others)
                for found, one in zip(findings.prompts, targets, strict=True)
                for asked in [one.prompt if isinstance(one, LabAnswer) else None]
            ]
        return guesses[0] if isinstance(what, LabAnswer | AdversaryView) else guesses

    def close(self) -> None:
        """End the parties and forget what is kept; once more does nothing. What was answered and guessed stays."""
        self._retire()
        self._closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        model, defense = (self._plan.cell.model["name"], self._plan.cell.defense["name"])
        return f"Lab(model={str(model)!r}, defense={str(defense)!r}, requests={self._requests}, closed={self.closed})"

    # How

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Torch has the laboratory's threads, as in a cell, and the caller's afterwards.

        Raises:
            LabError: after it was closed.
        """
        if self.closed:
            raise LabError("this lab is closed: make another, Lab(...)")
        before = torch.get_num_threads()
        torch.set_num_threads(self._plan.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @cached_property
    def _kept(self) -> Plan:
        """The plan with a folder where phases of tuning keep their state: one that passes, unless one was given."""
        if "results_dir" in self._options.keys or self._life.name == SERVE:
            return self._plan
        folder = self._held.enter_context(tempfile.TemporaryDirectory(prefix="smd-lab-"))
        return replace(self._plan, results_dir=Path(folder))

    @property
    def _task(self) -> str:
        return str((self._plan.cell.task or {}).get("name"))

    def _prompt(self, what: Asked) -> Prompt:
        if isinstance(what, Prompt):
            return what
        if not isinstance(what, str):
            raise UsageError(f"a {type(what).__name__} cannot be asked: give a text or a prompt")
        chat = bool(self._plan.parts.data().chat)
        read = prompt_of(what, f"asked-{self._texts}", self.bundle, self._plan.cell.prompt_tokens, chat)
        self._texts += 1
        return read

    def _ask(self, prompt: Prompt, plain: Plain) -> LabAnswer:
        draw, plan = self._requests, self._plan
        deployment = self._deployment()
        self._requests += 1
        try:
            served = serve_one(deployment, prompt, plain, plan.cell.max_new_tokens, draw)
        except PromptError:
            raise
        except BaseException:
            self._retire()  # who was interrupted in a request cannot be asked the next one
            raise
        return LabAnswer(served, served.view, plain, draw, self.bundle, plan.parts.link(), self._name)

    def _deployment(self) -> Deployment:
        """The two parties, started when there are none."""
        if self._live is None:
            boundary = opening_of(self._plan, self.bundle).boundary(record=True)
            stack = ExitStack()
            deployment = stack.enter_context(self.prepared.deploy(boundary))
            self._live = deployment, stack
            self._held.callback(stack.close)
        return self._live[0]

    def _retire(self) -> None:
        """End the two parties, if there are any."""
        if self._live is not None:
            (_, stack), self._live = self._live, None
            stack.close()

    def _record_of(self, plan: Plan) -> Record:
        """A cell that an attack stands beside, run and not written."""
        return trial(plan, self._workbench, self._record_of)

    @cached_property
    def _others(self) -> Callable[[Prompt], Sequence[Prompt]]:
        """Finds the other evaluation prompts of a length; it outlives the laboratory, as guesses do."""
        return partial(others_of, self._workbench, self._plan)
