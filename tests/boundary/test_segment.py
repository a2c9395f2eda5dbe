"""Whatever an untrusted party is made of crosses in one descriptor, tied as it was, and nothing is left behind."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from smd_research.boundary import Boundary, Channel, Party, Untrusted
from smd_research.boundary.messages import Message, PromptIds, Tokens
from smd_research.boundary.segment import NAME
from smd_research.core.errors import PeerLostError
from smd_research.defenses.none import NoDefense
from smd_research.defenses.smd.service import Service
from smd_research.defenses.smd.users import Ask
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_generate

TENSORS = 400


class Silent(Party):
    def handle(self, message: Message) -> Message | None:
        return None


class Owner(Untrusted):
    """Says what became of the tensors that it was made with."""

    def __init__(self, tensors: list[Tensor], module: nn.Module, channel: Channel) -> None:
        super().__init__()
        self.tensors, self.module = tensors, module

    def handle(self, message: Message) -> Message | None:
        assert isinstance(message, PromptIds)
        first, view = self.tensors[0], self.tensors[1]
        first += int(message.ids[0])  # a write is the party's own
        return Tokens(view.flatten().to(torch.int32))

    def memory(self) -> dict[str, int]:
        a, b = self.module.a, self.module.b
        same = int(a.weight is b.weight)
        return {"same": same, "grad": int(a.bias.requires_grad), "sum": int(sum(t.sum() for t in self.tensors[2:]))}


def _module() -> nn.Module:
    module = nn.Module()
    module.a, module.b = nn.Linear(3, 3), nn.Linear(3, 3)
    module.b.weight = module.a.weight
    return module


@pytest.mark.parametrize("transport", ["process", "tcp"])
def test_hundreds_of_tensors_cross_and_stay_tied(transport: str) -> None:
    whole = torch.arange(12, dtype=torch.float32)
    tensors = [whole, whole.view(3, 4)[:, 1], *(torch.full((2,), float(i)) for i in range(TENSORS))]
    boundary = Boundary(transport)
    channel = boundary.open(Silent(), partial(Owner, tensors, _module()))
    assert boundary.tap("memory") == {"same": 1, "grad": 1, "sum": TENSORS * (TENSORS - 1)}
    answer = channel.request(PromptIds(torch.tensor([100], dtype=torch.int32), 1))
    assert isinstance(answer, Tokens)
    assert answer.ids.tolist() == [101, 105, 109]  # the view sees what was written to the whole
    assert whole.tolist() == list(range(12))  # and the one at home does not
    boundary.close()


def _descriptors() -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return [link for link in links if NAME in link]


def test_nothing_is_left_behind_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = _descriptors()
    boundary = Boundary("process")
    boundary.open(Silent(), partial(Owner, [torch.zeros(9), torch.zeros(9)], _module()))
    os.kill(boundary.pids[1], signal.SIGKILL)
    with pytest.raises(PeerLostError):
        boundary.tap("memory")
    boundary.close()
    assert not list(tmp_path.iterdir())
    assert _descriptors() == before


@pytest.fixture(scope="module")
def deep() -> Bundle:
    """A llama of more than 300 tensors."""
    small = sources.random("llama")
    config = small.model.config
    config.update({"num_hidden_layers": 40})
    torch.manual_seed(0)
    bundle = Bundle.of("deep", type(small.model)(config), small.tokenizer)
    assert sum(1 for _ in bundle.model.parameters()) > 300
    return bundle


def test_a_model_of_many_tensors_is_served_by_another_process(deep: Bundle) -> None:
    """More than a socket passes descriptors at once (253)."""
    ids = (7, 8, 9, 10)
    boundary = Boundary("process")
    with NoDefense().prepare(deep).deploy(boundary) as deployment:
        deployment._begin()
        deployment._request(ids, 5, None)
        assert tuple(deployment.client.ids) == plain_generate(deep, ids, 5)
    with Service(deep) as service:
        user = service.join()
        user.ask(Ask(ids, 5))
        assert user.answer().generation.ids == plain_generate(deep, ids, 5)
