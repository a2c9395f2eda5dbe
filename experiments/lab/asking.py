"""From what a person writes to a prompt with marked secrets."""

from smd_research.core.errors import PromptError
from smd_research.data.markup import parse
from smd_research.data.prompts import Document, Prompt
from smd_research.data.tagger import tag
from smd_research.data.tokenise import prompts as tokenise
from smd_research.data.tokenise import wrapped_prompts
from smd_research.models.bundle import Bundle


def prompt_of(text: str, name: str, bundle: Bundle, tokens: int | None, chat: bool) -> Prompt:
    """A text as a prompt; secrets are those that it marks, or, where it marks none, those that rules find.

    Args:
        text: with ``<redacted>[name] Ms. Lee</redacted>`` around secrets, or without.
        name: of the prompt.
        bundle: whose tokenizer reads it.
        tokens: where it is cut; None leaves it whole.
        chat: whether it is put into the model's chat template.

    Raises:
        PromptError: for an empty text, a broken tag, half a character, or more than the model's context.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"character {error.start + 1} of the text is half a character: mend the text") from None
    plain, spans = parse(text)
    if not plain.strip():
        raise PromptError("the text is empty: ask something")
    document = Document(name, plain, spans or tag(plain))
    read = (
        wrapped_prompts([document], bundle.tokenizer, tokens)
        if chat
        else tokenise([document], bundle.tokenizer, tokens)
    )
    return read[0]
