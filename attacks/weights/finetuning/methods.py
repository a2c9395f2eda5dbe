"""What is trained: everything, LoRA adapters, the part that the exposed residual does not give away, or a new model."""

import copy
from collections.abc import Mapping, Sequence

from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attacks.weights.finetuning.null_space import Adapted
from attacks.weights.finetuning.text import TrainingRows
from attacks.weights.finetuning.training import FineTuning, TrainedModel, Trainee
from smd_research.core.errors import ConfigError
from smd_research.models.linears import linear_layers
from smd_research.training.quiet import quietly

_STEP, _MOST = 10**0.5, 8
"""Factor between neighbouring rates of the control, and how many it tries at most."""


def _copied(model: PreTrainedModel, train: bool) -> PreTrainedModel:
    """A copy in float32 whose parameters all ask for a gradient, or none."""
    made: PreTrainedModel = copy.deepcopy(model).float().requires_grad_(train)
    return made


class FullFineTuning(FineTuning):
    """All parameters of the exposed model are trained: the plainest attack, and the paper's own."""

    def trainee(self) -> Trainee:
        return Trainee(_copied(self.public.bundle.model, train=True))


class FromScratch(FineTuning):
    """The control: a new model of the same architecture, on the same data and for the same steps.

    What fine-tuning reaches beyond it came out of the exposed weights; the rest anybody can train without them. A rate
    that wins a short run is too high for a long one that starts from nothing: the control grew worse with more data.
    So it searches by whole runs unless told otherwise, and goes on where the best rate is the lowest or the highest.
    """

    needs = frozenset()

    def control(self) -> None:
        """It is the control."""

    def search(self, own: TrainingRows, seed: int) -> TrainedModel:
        best, rates = super().search(own, seed), list(self.learning_rates)
        while best.rate in (min(rates), max(rates)) and len(rates) < _MOST:
            following = best.rate / _STEP if best.rate == min(rates) else best.rate * _STEP
            rates.append(following)
            best = min(best, self.tried(own, following, seed), key=lambda one: one.loss)
        return best

    def trainee(self) -> Trainee:
        model = self.public.bundle.model
        return Trainee(type(model)(copy.deepcopy(model.config)).to(model.device).float())


class LoraFineTuning(FineTuning):
    """Low-rank adapters on all protected linear layers (LoRA, arXiv 2106.09685).

    Args:
        rank: of the adapters; an adapter below the rank of the hidden part cannot hold it.
        more: options of :class:`FineTuning`.

    Raises:
        ConfigError: for a rank below one.
    """

    def __init__(self, rank: int, **more: float | int | Sequence[float]) -> None:
        super().__init__(**more)  # type: ignore[arg-type]  # named and checked there
        if rank < 1:
            raise ConfigError("attack.rank of an adapter is at least 1")
        self.rank = rank

    def trainee(self) -> Trainee:
        names = list(self.protected)
        layers = linear_layers(self.public.bundle)
        transposed = any(isinstance(layers[name], Conv1D) for name in names)
        options = LoraConfig(
            r=self.rank, lora_alpha=self.rank, lora_dropout=0.0, target_modules=names, fan_in_fan_out=transposed
        )
        with quietly():
            return _Lora(get_peft_model(_copied(self.public.bundle.model, train=False), options), names)


class _Lora(Trainee):
    def __init__(self, model: PreTrainedModel, names: Sequence[str]) -> None:
        super().__init__(model)
        self._names = names

    def weights(self) -> Mapping[str, Tensor]:
        merged = self.model.merge_and_unload()
        return {f"{name}.weight": merged.get_submodule(name).weight.detach() for name in self._names}


class NullSpaceFineTuning(FineTuning):
    """Adapters on the hidden subspaces that the exposed residual gives away; only the unknown side is trained.

    ``W^D + U_k C V_k^T`` for a square matrix, where the hole shows both sides and ``k^2`` numbers are unknown;
    ``W^D + B V_k^T`` for a tall one, ``W^D + U_k A`` for a wide one (reconstructed: the attack is not the paper's).
    """

    def trainee(self) -> Trainee:
        model = _copied(self.public.bundle.model, train=False)
        adapted = {name: Adapted.of(model.get_submodule(name), rank) for name, rank in self.protected.items()}
        for name, module in adapted.items():
            model.set_submodule(name, module)
        return _NullSpace(model, adapted)


class _NullSpace(Trainee):
    def __init__(self, model: PreTrainedModel, adapted: Mapping[str, Adapted]) -> None:
        super().__init__(model)
        self._adapted = adapted

    def weights(self) -> Mapping[str, Tensor]:
        return {f"{name}.weight": module.merged() for name, module in self._adapted.items()}
