"""A short training on rows held in memory."""

import gc

import torch

from smd_research.models import sources
from smd_research.training.causal_lm import CausalLM, Optimisation
from smd_research.training.short import fit


def test_it_learns_and_leaves_no_optimiser_behind() -> None:
    model = sources.random("llama").model.float().requires_grad_(True)
    rows = torch.arange(2, 34).repeat(6, 1)
    module = CausalLM(model, Optimisation(3e-3, 1, 12))
    before = model(input_ids=rows, labels=rows).loss.item()
    loss = fit(module, rows, rows[:2], 2, 0, "train")
    assert loss < before
    assert all(parameter.grad is None for parameter in model.parameters())
    held = [one for one in gc.get_objects() if issubclass(type(one), torch.optim.Optimizer) and one.param_groups]
    ours = {id(parameter) for parameter in model.parameters()}
    assert not [one for one in held if {id(p) for group in one.param_groups for p in group["params"]} & ours]
