"""Chat templates turn by turn: the token ids that each turn adds to a conversation.

A template is rendered once per turn and only what it adds is tokenised, so the ids of earlier turns, as the model has
processed them, are never tokenised again. Of a single message, :class:`Envelope` says what of the text is the user's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from smd_research.core.errors import ConfigError, PromptError
from smd_research.core.wrapper import NO_TEMPLATE

_ANSWER = "\u241fanswer\u241f"
_MESSAGE = "\u241fmessage\u241f"
_UNLIKE = "the chat template does not write a user's message once and as it is: leave data.chat=false"


class Conversation:
    """The messages of a chat, as token ids.

    Args:
        tokenizer: its chat template is used unless one is given.
        template: a Jinja chat template.
        system: the system prompt; public, where the service is told how many leading tokens are.

    Raises:
        ConfigError: when there is no template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, template: str | None = None, system: str | None = None
    ) -> None:
        self._template = template or getattr(tokenizer, "chat_template", None)
        if not self._template:
            raise ConfigError("the tokenizer has no chat template: give template= (Jinja)")
        self._tokenizer = tokenizer
        self._messages: list[dict[str, str]] = []
        if system is not None:
            self._messages.append({"role": "system", "content": system})
        self._last: int | None = None
        self.turns = 0

    @property
    def public_tokens(self) -> int:
        """Leading tokens of the first turn that the system prompt alone determines."""
        if not self._messages or self._messages[0]["role"] != "system":
            return 0
        opening = [self._ids(self._render([self._messages[0], {"role": "user", "content": text}])) for text in "az"]
        return next(i for i, pair in enumerate(zip(*opening, strict=False)) if len(set(pair)) > 1)

    def user(self, text: str) -> tuple[int, ...]:
        """Add a user's message.

        Returns:
            The ids it adds: of the first turn the whole prompt, later what comes after the last answer.

        Raises:
            ConfigError: when the template does not keep an answer as it is.
        """
        self._messages.append({"role": "user", "content": text})
        rendered = self._render(self._messages)
        self.turns += 1
        if self.turns == 1:
            return tuple(self._ids(rendered))
        _, found, added = rendered.rpartition(_ANSWER)
        if not found:
            raise ConfigError("the chat template changes the assistant's messages: it cannot be continued turn by turn")
        ids = self._ids(added)
        # the answer's own end token was drawn by the model; the template writes it once more
        return tuple(ids[1:] if ids and ids[0] == self._last else ids)

    def assistant(self, ids: Sequence[int]) -> str:
        """Add the answer's ids, as the model drew them; returns its text."""
        self._messages.append({"role": "assistant", "content": _ANSWER})
        self._last = ids[-1] if ids else None
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _render(self, messages: Sequence[dict[str, str]]) -> str:
        return render(self._tokenizer, messages, self._template)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], template: str | None = None) -> str:
    """The messages as the template writes them, up to where the model's answer begins.

    Args:
        tokenizer: its template is used unless one is given.
        messages: each with its ``role`` and ``content``.
        template: a Jinja chat template.
    """
    rendered: Any = tokenizer.apply_chat_template(
        list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
    )
    return str(rendered)


@dataclass(frozen=True, repr=False)
class Envelope:
    """What a tokenizer's chat template writes around one message of a user.

    Attributes:
        tokenizer: whose template it is.
        before: text before the message.
        behind: text after it, up to where the model's answer begins.
    """

    tokenizer: PreTrainedTokenizerBase
    before: str
    behind: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Envelope":
        """The envelope of a tokenizer.

        Raises:
            ConfigError: when it has no chat template, or one that does not write a message as it is.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(NO_TEMPLATE)
        before, found, behind = render(tokenizer, [{"role": "user", "content": _MESSAGE}]).partition(_MESSAGE)
        if not found or _MESSAGE in behind:
            raise ConfigError(f"data.chat=true: {_UNLIKE}")
        return cls(tokenizer, before, behind)

    def around(self, message: str) -> str:
        """The whole text for a message.

        Raises:
            PromptError: when the template changes the message.
        """
        whole = render(self.tokenizer, [{"role": "user", "content": message}])
        if whole != f"{self.before}{message}{self.behind}":
            raise PromptError(f"data.chat=true: {_UNLIKE}")
        return whole
