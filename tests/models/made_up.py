"""A model family that there is not: odd names everywhere, and an attention of its own."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from smd_research.models.families import Family, Matrices, OwnAttention, SizeNames

RECORD = Family(
    "made_up",
    small={"storeys": 4, "breadth": 64, "eyes": 4, "reach": 512},
    sizes=SizeNames(("storeys",), ("breadth",), ("eyes",), context=("reach",)),
    matrices=Matrices({"ask": "q", "hint": "k", "tell": "v", "close": "o"}, {"open": "up", "shut": "down"}),
    final_norm=("last",),
    rotary=(),
    position_tables=("places",),
    own_attention=OwnAttention("Attention", "look", scale=0.5, window=lambda module: module.window),
)


class MadeUpConfig(PretrainedConfig):
    model_type = "made_up"

    def __init__(self, **sizes: Any) -> None:
        for name in ("storeys", "breadth", "eyes", "reach", "vocab_size"):
            setattr(self, name, sizes.pop(name, 8))
        super().__init__(**sizes)


class Attention(nn.Module):
    def __init__(self, config: MadeUpConfig, storey: int) -> None:
        super().__init__()
        self.storey, self.eyes = storey, config.eyes
        self.window = 12 if storey % 2 else None
        self.ask, self.hint, self.tell, self.close = (nn.Linear(config.breadth, config.breadth) for _ in range(4))

    def look(self, q: Tensor, k: Tensor, v: Tensor, mask: object = None) -> tuple[Tensor, None]:
        back = torch.arange(q.shape[2])[:, None] - torch.arange(k.shape[2])
        seen = (back >= 0) & (back < (self.window or len(back)))
        scores = (0.5 * q @ k.transpose(-1, -2)).masked_fill(~seen, -torch.inf)
        return scores.softmax(-1) @ v, None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.eyes, -1)).transpose(1, 2) for part in (self.ask, self.hint, self.tell))
        return self.close(self.look(q, k, v)[0].transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, config: MadeUpConfig, storey: int) -> None:
        super().__init__()
        self.attention = Attention(config, storey)
        self.before, self.between = nn.LayerNorm(config.breadth), nn.LayerNorm(config.breadth)
        self.open, self.shut = nn.Linear(config.breadth, 96), nn.Linear(96, config.breadth)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        return x + self.shut(self.open(self.between(x)).relu())


class MadeUpModel(PreTrainedModel):
    config_class = MadeUpConfig
    base_model_prefix = "body"

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.breadth)
        self.places = nn.Embedding(config.reach, config.breadth)
        self.house = nn.ModuleList(Block(config, storey) for storey in range(config.storeys))
        self.last = nn.LayerNorm(config.breadth)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None, **_: Any) -> BaseModelOutputWithPast:
        places = torch.arange(input_ids.shape[1])[None] if position_ids is None else position_ids
        x = self.words(input_ids) + self.places(places)
        for block in self.house:
            x = block(x)
        return BaseModelOutputWithPast(last_hidden_state=self.last(x))


class MadeUpForCausalLM(PreTrainedModel):
    config_class = MadeUpConfig
    base_model_prefix = "body"

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__(config)
        self.body = MadeUpModel(config)
        self.head = nn.Linear(config.breadth, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, **options: Any) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(logits=self.head(self.body(input_ids, **options).last_hidden_state))
