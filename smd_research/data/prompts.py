"""Documents with marked secrets, and the prompts a model reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from smd_research.core.wrapper import BARE, Wrapper


@dataclass(frozen=True, order=True)
class Span:
    """A secret inside a text: character offsets ``[start, end)`` and what kind of secret it is."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, repr=False)
class Document:
    """A text whose secret spans are marked; the repr never shows the text."""

    id: str
    text: str
    spans: tuple[Span, ...] = ()
    register: str = ""

    @property
    def stripped(self) -> "Document":
        """The document without white space at its ends."""
        text, cut = self.text.strip(), len(self.text) - len(self.text.lstrip())
        kept = ((max(span.start - cut, 0), min(span.end - cut, len(text)), span.type) for span in self.spans)
        return replace(self, text=text, spans=tuple(Span(start, end, kind) for start, end, kind in kept if start < end))

    def __repr__(self) -> str:
        return f"Document(id={self.id!r}, characters={len(self.text)}, spans={len(self.spans)})"


@dataclass(frozen=True)
class TokenSpan:
    """A secret inside a prompt: token offsets ``[start, end)`` and its type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, repr=False)
class Prompt:
    """Token ids with marked secret token spans; the repr never shows the content.

    Attributes:
        id: stable name of the prompt.
        text: what the user wrote: the text of ``ids`` without the wrapper.
        ids: token ids, ``[n]``.
        spans: secrets in token offsets (a token that overlaps a secret belongs to it).
        continuation: the document's own next token ids, held out for perplexity.
        source: what kind of text it is, e.g. the register of a generated one; empty where nobody says.
        wrapper: those of ``ids``, first and last, that a chat template puts around the user's; public.
    """

    id: str
    text: str
    ids: tuple[int, ...]
    spans: tuple[TokenSpan, ...] = ()
    continuation: tuple[int, ...] = ()
    source: str = ""
    wrapper: Wrapper = BARE

    @property
    def place(self) -> slice:
        """Where in ``ids`` the user's own tokens stand."""
        return self.wrapper.place(len(self.ids))

    @property
    def unwrapped(self) -> "Prompt":
        """The user's own tokens alone: what is secret, and what scores count."""
        if not self.wrapper:
            return self
        return replace(self, ids=self.ids[self.place], spans=moved(self.spans, -self.place.start), wrapper=BARE)

    def __repr__(self) -> str:
        return f"Prompt(id={self.id!r}, tokens={len(self.ids)}, spans={len(self.spans)})"


def moved(spans: Sequence[TokenSpan], by: int) -> tuple[TokenSpan, ...]:
    """Spans with their offsets moved by so many tokens."""
    return tuple(TokenSpan(span.start + by, span.end + by, span.type) for span in spans)


def token_spans(spans: Sequence[Span], offsets: Sequence[tuple[int, int]]) -> tuple[TokenSpan, ...]:
    """Snap character spans to tokens: every token that overlaps a secret is part of it.

    Args:
        spans: secrets in character offsets.
        offsets: for each token its ``[start, end)`` characters.

    Returns:
        One token span for each secret that at least one token touches.
    """
    snapped = []
    for span in spans:
        inside = [i for i, (start, end) in enumerate(offsets) if start < span.end and end > span.start and end > start]
        if inside:
            snapped.append(TokenSpan(inside[0], inside[-1] + 1, span.type))
    return tuple(snapped)
