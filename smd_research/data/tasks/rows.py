"""From a task's examples to the token ids that are tuned on."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from smd_research.core.errors import ConfigError
from smd_research.data.tasks.base import Example, Task
from smd_research.data.texts import Texts
from smd_research.data.tokenise import prompts
from smd_research.models.bundle import Bundle


def texts_of(examples: Sequence[Example], task: Task, bundle: Bundle) -> Texts:
    """Token ids of examples, cut to the task's length and the model's context; their classes, where the task has any.

    Raises:
        ConfigError: when there is no example.
        PromptError: for an empty text.
    """
    if not examples:
        raise ConfigError("the task has no text in one of its parts: give more data, or lower task.validation=")
    cut = min(task.tokens, bundle.geometry.context)
    found = prompts([example.document for example in examples], bundle.tokenizer, cut)
    labels = tuple(example.label for example in examples) if task.labels else ()
    return Texts(tuple(one.ids for one in found), labels, tuple(one.spans for one in found))


def class_words(task: Task, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The token that stands for each class: the first one of its name.

    Raises:
        ConfigError: when two classes share it.
    """
    names = [" " + label.replace("_", " ") for label in task.labels]
    first = tuple(int(tokenizer(name, add_special_tokens=False)["input_ids"][0]) for name in names)
    if len(set(first)) < len(first):
        raise ConfigError("tuning.head=words: two classes begin with the same token; use tuning.head=linear")
    return first
