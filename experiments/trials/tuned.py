"""What private tuning gave the user: how well the tuned model does on the evaluation texts."""

from collections.abc import Sequence

from experiments.trials.seen import TaskTexts, Utility
from smd_research import metrics
from smd_research.records import Item


def utility(texts: TaskTexts, predicted: Sequence[int], scored: Sequence[tuple[float, int]]) -> Utility:
    """Accuracy and F1 of the classes; of next-token tuning, perplexity and accuracy over tokens; one item a text.

    Args:
        texts: of the task.
        predicted: the class that was told of each evaluation text; empty for next-token tuning.
        scored: for next-token tuning, negative log-likelihood in nats and tokens predicted right of each text.
    """
    if texts.task.labels:
        return _of_classes(texts.evaluation.labels, predicted, len(texts.task.labels))
    counts = [len(text) - 1 for text in texts.evaluation.ids if len(text) > 1]
    nll, hits = [one for one, _ in scored], [hit for _, hit in scored]
    items = [
        Item(f"evaluation-{number}", {"nll": one, "nll_tokens": float(count), "accuracy": hit / count})
        for number, (one, hit, count) in enumerate(zip(nll, hits, counts, strict=True))
    ]
    means = {"accuracy": metrics.running_share(hits, counts), "perplexity": metrics.perplexity(nll, counts)}
    return Utility(items=tuple(items), means=means)


def _of_classes(truth: Sequence[int], told: Sequence[int], classes: int) -> Utility:
    right = [one == other for one, other in zip(truth, told, strict=True)]
    items = [
        Item(f"evaluation-{number}", {"accuracy": float(hit), "label": float(label), "predicted": float(answer)})
        for number, (hit, label, answer) in enumerate(zip(right, truth, told, strict=True))
    ]
    means = {"accuracy": metrics.summarise("accuracy", right), "f1_macro": metrics.f1_macro(truth, told, classes)}
    return Utility(items=tuple(items), means=means)
