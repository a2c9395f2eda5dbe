"""Training in shards: each device holds its part of the weights, of their gradients and of AdamW's moments.

Fully sharded data parallelism (Zhao et al., VLDB 2023) by torch's ``fully_shard``: the weights of a block are gathered
for its forward and its backward pass, and let go again.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from smd_research.models.structure import blocks_of
from smd_research.training.causal_lm import CausalLM


class ShardedLM(CausalLM):
    """A causal language model whose blocks, and what is around them, are cut into a shard for each device."""

    def configure_model(self) -> None:
        """Cut the model; Lightning asks once there is a mesh of devices."""
        mesh = self.device_mesh["data_parallel"]
        # Tied matrices stay one parameter: both lie outside of the blocks, in the shards of the whole.
        for part in (*blocks_of(self.model, self.model.config.num_hidden_layers), self.model):
            fully_shard(part, mesh=mesh)


class Sharded(ModelParallelStrategy):  # type: ignore[misc]  # Lightning is untyped here
    """Lightning's strategy of shards, with one file for a checkpoint, which any number of devices goes on from.

    Read by Lightning, moments would be numbered as the model's parameters are, but where there are no shards they are
    written numbered as the optimiser's groups are. Here they are told apart by their place in the groups, in either.

    Args:
        devices: how many have a shard.
    """

    def __init__(self, devices: int) -> None:
        super().__init__(data_parallel_size=devices, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: Lightning asks for the optimiser's state to be loaded, once it has the weights."""
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint, whole, in each process."""
        # Not mapped: the moments would go on lying in the file, which is written over.
        content: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)
        return content

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this device's shard of the weights."""
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this device's shard of the moments."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict({**state, "state": _cut(state, optimizer)})


def _cut(state: Mapping[str, Any], optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """Moments as they stand in a checkpoint, cut as the parameters of an optimiser are; numbers of steps stay whole."""
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        number: {
            name: distribute_tensor(value, parameter.device_mesh, parameter.placements) if value.ndim else value
            for name, value in state["state"].get(number, {}).items()
        }
        for number, parameter in zip(numbers, parameters, strict=True)
    }


def whole(module: CausalLM, fresh: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
    """The model of a run, put together where it lies in shards; None but in the first process.

    Args:
        module: what is or was trained; every process calls this at the same point, as each gives its shard.
        fresh: builds a model of the same shape.
    """
    if not isinstance(module, ShardedLM):
        return module.model if module.global_rank == 0 else None
    weights = get_model_state_dict(module.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if module.global_rank:
        return None
    model = fresh()
    model.load_state_dict(weights)
    return model
