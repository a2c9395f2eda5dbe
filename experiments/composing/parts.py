"""From the configuration of a cell's parts to what builds them, each when it is asked for.

Nothing heavy is imported here: the classes are known only when a part is built, and a cell that is known builds none.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.composing.build import build
from experiments.trials.plan import Parts

if TYPE_CHECKING:
    from attacks.base import Attack
    from smd_research.boundary import Link
    from smd_research.data.tasks import Task
    from smd_research.defenses.base import Defense
    from smd_research.models.bundle import Bundle
    from smd_research.training.methods import Tuning

Node = Mapping[str, Any]


def parts_of(nodes: Mapping[str, Node], device: str, dtype: str) -> Parts:
    """What builds the parts of a cell.

    Args:
        nodes: ``_target_`` and options of each part.
        device: of the model.
        dtype: of the model's arithmetic.
    """
    task, tuning = nodes.get("task"), nodes.get("tuning")
    return Parts(
        model=partial(model_of, nodes["model"], device, dtype),
        data=partial(build, nodes["data"]),
        defense=partial(defense_of, nodes["defense"]),
        attack=partial(attack_of, nodes["attack"]),
        link=partial(link_of, nodes["link"]),
        task=None if task is None else partial(task_of, task),
        tuning=None if tuning is None else partial(tuning_of, tuning),
    )


def model_of(node: Node, device: str, dtype: str) -> "Bundle":
    """The model."""
    from smd_research.models.bundle import Bundle

    made: Bundle = build(node, Bundle, device=device, dtype=dtype)
    return made


def defense_of(node: Node) -> "Defense":
    """The defense."""
    from smd_research.defenses.base import Defense

    made: Defense = build(node, Defense)
    return made


def attack_of(node: Node) -> "Attack | None":
    """The attack; None where nobody attacks."""
    from attacks.base import Attack

    made: Attack | None = build(node, Attack) if node["_target_"] else None
    return made


def link_of(node: Node) -> "Link":
    """The modelled link."""
    from smd_research.boundary import Link

    made: Link = build(node, Link)
    return made


def task_of(node: Node) -> "Task":
    """The task."""
    from smd_research.data.tasks import Task

    made: Task = build(node, Task)
    return made


def tuning_of(node: Node) -> "Tuning":
    """How the model is tuned."""
    from smd_research.training.methods import Tuning

    made: Tuning = build(node, Tuning)
    return made
