"""What cells of one process share: a sweep loads a model once and lives through a defense once for all attacks."""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from experiments.trials.hiding import Hidden, Register, hide
from experiments.trials.plain import Plain, plain_answers
from experiments.trials.plan import Plan
from experiments.trials.restoration import Scores, scores
from smd_research.core.errors import ConfigError, PromptError
from smd_research.core.progress import say
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt
from smd_research.data.sources import OwnDocuments
from smd_research.data.tokenise import prompts as tokenise
from smd_research.data.tokenise import wrapped_prompts
from smd_research.defenses.base import Prepared
from smd_research.models.bundle import Bundle
from smd_research.models.devices import ensure_device

T = TypeVar("T")

EVALUATION = "evaluation"
AUXILIARY = "train"
AUXILIARY_DOCUMENTS = 2000
HELD_OUT_DOCUMENTS = 100
CONTINUATION_TOKENS = 32
KEPT = {"bundle": 2, "prompts": 4, "corpus": 2, "plain": 4, "register": 2, "scored": 2, "serve": 6, "tune": 2}


class Workbench:
    """Keeps the last few bundles, prompt sets and observations, each under the part of the identity that makes it."""

    def __init__(self) -> None:
        self._shelves: dict[str, OrderedDict[str, Any]] = {}

    def bundle(self, plan: Plan) -> Bundle:
        """The model of a cell.

        Raises:
            MachineError: when this machine lacks the device.
        """
        cell = plan.cell
        ensure_device(cell.device)
        key = [cell.model, cell.dtype, cell.device]
        return self._keep("bundle", key, plan.parts.model)

    def prompts(self, plan: Plan) -> tuple[Prompt, ...]:
        """The evaluation prompts of a cell.

        Raises:
            PromptError: when the data has none.
        """
        cell = plan.cell
        key = [cell.model, cell.data, cell.n_prompts, cell.prompt_tokens, cell.seed]
        return self._keep("prompts", key, lambda: self._prompts(plan))

    def _prompts(self, plan: Plan) -> tuple[Prompt, ...]:
        cell = plan.cell
        if cell.n_prompts < 1:
            raise ConfigError(f"n_prompts={cell.n_prompts}: give at least one")
        source = plan.parts.data()
        if isinstance(source, OwnDocuments):
            _say_what_becomes_of(source, cell.n_prompts)
        documents, tokenizer = source.documents(EVALUATION, cell.n_prompts, cell.seed), self.bundle(plan).tokenizer
        if source.chat:
            found = wrapped_prompts(documents, tokenizer, cell.prompt_tokens)
        else:
            found = tokenise(documents, tokenizer, cell.prompt_tokens, CONTINUATION_TOKENS)
        if not found:
            raise PromptError(f"the data '{cell.data['name']}' holds no prompt: see data= and its path")
        return tuple(found)

    def corpus(self, plan: Plan) -> tuple[tuple[int, ...], ...]:
        """Token ids of public text of the same kind, disjoint from the prompts, and as users write it: unwrapped."""
        return tuple(document.ids for document in self.public_text(plan))

    def public_text(self, plan: Plan) -> tuple[Prompt, ...]:
        """The same with its secrets marked."""
        cell = plan.cell
        key = [cell.model, cell.data, cell.seed]
        return self._keep("corpus", key, lambda: self._public_text(plan, AUXILIARY_DOCUMENTS))

    def more_text(self, plan: Plan, tokens: int) -> tuple[tuple[int, ...], ...]:
        """The corpus, continued until it holds at least so many tokens or the data ends."""
        found, count = self.corpus(plan), AUXILIARY_DOCUMENTS
        while sum(map(len, found)) < tokens:
            count *= 2
            longer = tuple(document.ids for document in self._public_text(plan, count))
            if len(longer) <= len(found):
                break
            found = longer
        return found

    def held_out(self, plan: Plan) -> tuple[tuple[int, ...], ...]:
        """Token ids of whole documents of the evaluation split on which restored models are scored.

        Raises:
            PromptError: when the data has none.
        """
        cell, bundle = plan.cell, self.bundle(plan)
        count = cell.held_out or HELD_OUT_DOCUMENTS
        documents = plan.parts.data().documents(EVALUATION, count, cell.seed)
        found = tokenise(documents, bundle.tokenizer, bundle.geometry.context, 0)
        if not found:
            raise PromptError(f"the data '{cell.data['name']}' holds no held-out text: see data= and its path")
        return tuple(document.ids for document in found if len(document.ids) > 1)

    def scored(self, plan: Plan) -> Scores:
        """The cell's own model on the held-out documents."""
        cell = plan.cell
        key = [cell.model, cell.dtype, cell.device, cell.data, cell.seed, cell.held_out]
        return self._keep("scored", key, lambda: scores(self.bundle(plan), self.held_out(plan), "original"))

    def _public_text(self, plan: Plan, count: int) -> tuple[Prompt, ...]:
        cell, source, bundle = plan.cell, plan.parts.data(), self.bundle(plan)
        documents, context = source.documents(AUXILIARY, count, cell.seed), bundle.geometry.context
        if source.chat:
            return tuple(prompt.unwrapped for prompt in wrapped_prompts(documents, bundle.tokenizer, context))
        return tuple(tokenise(documents, bundle.tokenizer, context, 0))

    def hidden(self, plan: Plan, secret: str, candidates: int, prompts: Sequence[Prompt]) -> tuple[Hidden | None, ...]:
        """For each prompt the template that is handed to an attack which knows templates.

        Args:
            plan: of the cell.
            secret: type of the value that is hidden.
            candidates: how many values the register has, the hidden one included.
            prompts: those that were served.
        """
        cell, bundle, source = plan.cell, self.bundle(plan), plan.parts.data()
        key = [cell.model, cell.data, secret, cell.seed]
        values = self._keep("register", key, lambda: Register.of(source, secret, bundle.tokenizer, cell.seed))
        return tuple(
            hide(prompt, bundle.tokenizer, values, candidates, generator(cell.seed, "hide", prompt.id))
            for prompt in prompts
        )

    def plain(self, plan: Plan) -> tuple[Plain, ...]:
        """The unprotected model's answers."""
        cell = plan.cell
        key = [cell.model, cell.dtype, cell.device, cell.data, cell.n_prompts, cell.prompt_tokens, cell.seed]
        return self._keep(
            "plain",
            [*key, cell.max_new_tokens],
            lambda: plain_answers(self.bundle(plan), self.prompts(plan), cell.max_new_tokens),
        )

    def lived(self, life: str, key: Mapping[str, Any], make: Callable[[], T]) -> T:
        """One life of a defense; shared by all attacks on it.

        Args:
            life: its name.
            key: what makes it.
            make: lives through it.
        """
        return self._keep(life, [key], make)

    def staged(self, plan: Plan, prepared: Prepared) -> tuple[Sequence[Prompt], Sequence[Plain]]:
        """The prompts as the defense's claim supposes them, and the unprotected model's answers to them."""
        prompts = self.prompts(plan)
        staged = prepared.stage(prompts)
        if staged is prompts:
            return prompts, self.plain(plan)
        return staged, plain_answers(self.bundle(plan), staged, plan.cell.max_new_tokens)

    def _keep(self, shelf: str, key: list[Mapping[str, Any] | Any], make: Callable[[], T]) -> T:
        held: OrderedDict[str, Any] = self._shelves.setdefault(shelf, OrderedDict())
        name = json.dumps(key, sort_keys=True, default=str)
        if name not in held:
            held[name] = make()
        held.move_to_end(name)
        while len(held) > KEPT[shelf]:
            held.popitem(last=False)
        value: T = held[name]
        return value


def _say_what_becomes_of(source: OwnDocuments, asked: int) -> None:
    """Say how many of somebody's own documents are prompts and how many the attacker gets, and where they are too few.

    Raises:
        LabError: for what cannot be read.
    """
    parts = source.division()
    there, public = len(parts.evaluation), min(len(parts.train), AUXILIARY_DOCUMENTS)
    say(
        f"  {source.where}: {min(there, asked)} prompts, of {there} in data.prompt_share={source.prompt_share:g}; "
        f"{public} other documents are public text that the attacker has"
    )
    if there < asked:
        say(f"warning: n_prompts={asked}, but there are {there}: raise data.prompt_share, or give more documents")
