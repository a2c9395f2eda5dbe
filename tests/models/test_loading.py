"""A folder that is not the model it says is refused in one line; one that is odd but right is loaded as it is."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AddedToken, AutoModelForCausalLM, PreTrainedModel

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError, PromptError
from smd_research.data.prompts import Prompt
from smd_research.defenses.none import NoDefense
from smd_research.models import sources

Weights = dict[str, Tensor]
Change = Callable[[Path], Any]

LLAMA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "mixtral": {**LLAMA, "num_key_value_heads": 2, "num_local_experts": 2},
}
POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 9972120\n"
)


def made(folder: Path, kind: str = "llama", **more: Any) -> PreTrainedModel:
    """A tiny model with the shipped tokenizer, saved as transformers saves it."""
    config = CONFIG_MAPPING[kind](
        **{
            **SHAPES[kind],
            "vocab_size": 4096,
            "max_position_embeddings": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **more,
        }
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    sources.embedded_tokenizer().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders that are right, to be copied and damaged."""
    root = tmp_path_factory.mktemp("models")
    made(root / "untied", tie_word_embeddings=False)
    made(root / "tied", tie_word_embeddings=True)
    made(root / "gpt2", "gpt2")
    made(root / "experts", "mixtral")
    made(root / "shards").save_pretrained(root / "shards", max_shard_size="300KB")
    (root / "shards" / "model.safetensors").unlink()
    return {folder.name: folder for folder in root.iterdir()}


def weights(change: Callable[[Weights], Any]) -> Change:
    """Damage the weights; the change is made in place or returned."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        changed = change(tensors)
        kept = changed if isinstance(changed, dict) else tensors
        save_file(
            {name: one.contiguous() for name, one in kept.items()}, folder / "model.safetensors", {"format": "pt"}
        )

    return damage


def without(part: str) -> Change:
    return weights(lambda held: {name: one for name, one in held.items() if part not in name})


def renamed(old: str, new: str) -> Change:
    return weights(lambda held: {name.replace(old, new, 1): one for name, one in held.items()})


def plus(name: str, *shape: int) -> Change:
    return weights(lambda held: {**held, name: torch.zeros(shape)})


def valued(name: str, value: float) -> Change:
    def change(held: Weights) -> None:
        held[name].view(-1)[7] = value

    return weights(change)


def named(file: str, **values: Any) -> Change:
    """Set values of a JSON file; None takes one away."""

    def damage(folder: Path) -> None:
        content = {**json.loads((folder / file).read_text()), **values}
        (folder / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return damage


def config(**values: Any) -> Change:
    return named("config.json", **values)


def text(file: str, content: str, encoding: str = "utf-8") -> Change:
    def damage(folder: Path) -> None:
        (folder / file).write_text(content, encoding=encoding)

    return damage


def cut(file: str, to: float) -> Change:
    def damage(folder: Path) -> None:
        os.truncate(folder / file, int((folder / file).stat().st_size * to))

    return damage


def gone(*files: str) -> Change:
    def damage(folder: Path) -> None:
        for name in files:
            (folder / name).unlink()

    return damage


def both(*changes: Change) -> Change:
    def damage(folder: Path) -> None:
        for change in changes:
            change(folder)

    return damage


def pickled(whole_model: bool) -> Change:
    def damage(folder: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(folder)
        torch.save(model if whole_model else model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    return damage


def tokens(*added: str | AddedToken) -> Change:
    def damage(folder: Path) -> None:
        tokenizer = sources.embedded_tokenizer()
        tokenizer.add_tokens(list(added))
        tokenizer.save_pretrained(folder)

    return damage


def unshard(index: str) -> Change:
    return text("model.safetensors.index.json", index)


def forget_a_layer(folder: Path) -> None:
    """An index and its shards, one of which lost its entries."""
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    last = max(index["weight_map"].values())
    index["weight_map"] = {name: shard for name, shard in index["weight_map"].items() if shard != last}
    file.write_text(json.dumps(index))


def a_shard_twice(folder: Path) -> None:
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    name, shard = max(index["weight_map"].items(), key=lambda item: item[1])
    shutil.copy(folder / shard, folder / "again.safetensors")
    index["weight_map"][name] = "again.safetensors"
    file.write_text(json.dumps(index))


def a_folder_for_a_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def a_link_to_nothing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "blobs" / "4d7a2146")


def a_shard(change: Callable[[Path], Any]) -> Change:
    return lambda folder: change(max(folder.glob("model-*.safetensors")))


HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
Q = "model.layers.1.self_attn.q_proj.weight"

DAMAGED: dict[str, tuple[str, Change, str]] = {
    # the weights are not those of the configuration
    "no head": ("untied", without(HEAD), "1 missing .lm_head.weight.*tie_word_embeddings"),
    "no embedding": ("untied", without(TABLE), "1 missing .model.embed_tokens"),
    "neither of two tied tables": ("tied", without(TABLE), "2 missing"),
    "no layer": ("untied", without("layers.1."), "9 missing"),
    "no norm": ("untied", without("model.norm"), "1 missing .model.norm"),
    "no bias": ("gpt2", without("h.1.attn.c_attn.bias"), "1 missing .transformer.h.1.attn.c_attn.bias"),
    "a tie flag taken away": ("tied", config(tie_word_embeddings=False), "1 missing .lm_head.weight"),
    "a tie flag too many": ("untied", config(tie_word_embeddings=True), "it ties lm_head.weight to.*two different"),
    "another prefix": ("untied", renamed("model.", "module.model."), "missing.*not in the model .module.model"),
    "the prefix of a compiled model": ("untied", renamed("", "_orig_mod."), "not in the model ._orig_mod"),
    "fewer layers in the config": ("untied", config(num_hidden_layers=1), "9 not in the model .model.layers.1"),
    "no layers in the config": ("untied", config(num_hidden_layers=0), "18 not in the model"),
    "more layers in the config": ("untied", config(num_hidden_layers=3), "9 missing .model.layers.2"),
    "another vocabulary": ("untied", config(vocab_size=4000), r"embed_tokens.weight \[4096, 32\] for \[4000, 32\]"),
    "another width": ("untied", config(hidden_size=64), "of another shape"),
    "other heads": ("untied", config(num_key_value_heads=4), "k_proj.weight .16, 32. for .32, 32."),
    "another inner width": ("untied", config(intermediate_size=64), "6 of another shape"),
    "another family": ("untied", config(model_type="gpt_neox"), "do not match|cannot be loaded"),
    "no sizes at all": ("untied", text("config.json", '{"model_type": "llama"}'), "describes 6,738,415,616 weights"),
    "a size that is no number": ("untied", config(hidden_size="wide"), "cannot be loaded"),
    "a size that is nothing": ("untied", config(num_hidden_layers=1.5), "cannot be loaded: .*num_hidden_layers.*1.5"),
    "an unknown activation": ("untied", config(hidden_act="nope"), "does not know 'nope'"),
    "no heads": ("untied", config(num_attention_heads=0), "cannot be loaded"),
    "an extra tensor": (
        "untied",
        plus("model.layers.0.adapter.weight", 4, 4),
        "1 not in the model .model.layers.0.adap",
    ),
    "an extra bias": ("untied", plus("model.layers.0.self_attn.q_proj.bias", 32), "1 not in the model"),
    "a head of classes": ("tied", plus("score.weight", 2, 32), "1 not in the model .score.weight"),
    "experts with a part missing": (
        "experts",
        without("layers.0.block_sparse_moe.experts.1.w1"),
        "do not fit together",
    ),
    "an expert missing": ("experts", without("layers.1.block_sparse_moe.experts.1."), "of another shape"),
    # values
    "NaN": ("untied", valued(Q, float("nan")), f"{Q} at .* holds NaN or infinity"),
    "infinity": ("tied", valued(TABLE, float("-inf")), "holds NaN or infinity"),
    "NaN in a norm": ("gpt2", valued("transformer.ln_f.bias", float("nan")), "ln_f.bias"),
    "integers": (
        "untied",
        weights(lambda held: {**held, Q: held[Q].to(torch.int8)}),
        "weights that are no real numbers .*q_proj",
    ),
    # files of weights
    "no weights": ("untied", gone("model.safetensors"), "no weights at .*needs model.safetensors"),
    "weights that are a pointer": ("untied", text("model.safetensors", POINTER), "git-lfs pointer.*git lfs pull"),
    "weights in an annex": (
        "untied",
        text("model.safetensors", "/annex/objects/MD5E-s1--9.safetensors"),
        "git annex get",
    ),
    "weights cut off": ("untied", cut("model.safetensors", 0.6), "model.safetensors is damaged or cut off"),
    "a header cut off": ("untied", cut("model.safetensors", 0.0005), "model.safetensors is damaged or cut off"),
    "empty weights": ("untied", cut("model.safetensors", 0), "model.safetensors is empty"),
    "weights without a tensor": ("untied", weights(lambda held: {"a": torch.zeros(1)}), "do not match|describes"),
    "a page for weights": ("untied", text("model.safetensors", "<!DOCTYPE html><title>404</title>"), "damaged or cut"),
    "a folder for weights": ("untied", a_folder_for_a_file, "no weights at"),
    "a link to nothing": ("untied", a_link_to_nothing, "model.safetensors .a link to nothing."),
    "a pickled model": ("untied", pickled(True), "pickled weights hold more than tensors.*safetensors"),
    "pickled junk": (
        "untied",
        both(text("pytorch_model.bin", "junk" * 99999), gone("model.safetensors")),
        "load",
    ),
    "weights under two prefixes": (
        "untied",
        weights(lambda held: {**held, "layers.1.mlp.up_proj.weight": torch.zeros(48, 32)}),
        "there twice, under another prefix .model.layers.1.mlp.up",
    ),
    "a shard that is there twice": ("shards", a_shard_twice, "as another file does"),
    "an adapter": ("untied", text("adapter_config.json", "{}"), "holds an adapter: merge"),
    "shards without an index": ("shards", gone("model.safetensors.index.json"), "no weights at .*model-00001"),
    "a shard missing": ("shards", a_shard(Path.unlink), "names files that are not there .model-0000"),
    "a shard cut off": ("shards", a_shard(lambda file: os.truncate(file, 900)), "model-0000.*damaged or cut off"),
    "a shard that is a pointer": (
        "shards",
        a_shard(lambda file: file.write_text(POINTER)),
        "model-0000.*git-lfs pointer",
    ),
    "an index without a shard": ("shards", forget_a_layer, "do not match its config.json: .* missing"),
    "an index that is no JSON": ("shards", unshard('{"weight_map": '), "index.json is no JSON"),
    "an index of nothing": ("shards", unshard('{"weight_map": {}}'), "is no index of weights"),
    "an index that is a list": ("shards", unshard("[]"), "holds a list"),
    # configuration
    "no config": ("untied", gone("config.json"), "no model at .*must name a folder with a config.json .it holds"),
    "an empty config": ("untied", text("config.json", ""), "config.json is empty"),
    "a config that is no JSON": ("untied", text("config.json", "model_type: llama"), "config.json is no JSON"),
    "a config cut off": ("untied", cut("config.json", 0.5), "config.json is no JSON"),
    "a config that is a list": ("untied", text("config.json", '["llama"]'), "config.json holds a list"),
    "a config that is a pointer": ("untied", text("config.json", POINTER), "config.json is a git-lfs pointer"),
    "a config in other letters": (
        "untied",
        text("config.json", "{}", "utf-16"),
        "config.json is no JSON",
    ),
    "no model_type": ("untied", config(model_type=None), "has no model_type"),
    "a model_type that is a number": ("untied", config(model_type=3), "has no model_type"),
    "an unknown model_type": ("untied", config(model_type="lama"), "model_type 'lama', a family that transformers"),
    "code of its own": (
        "untied",
        config(model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Mine"}),
        "brings its own code .auto_map.* never run",
    ),
    "no causal model": ("untied", config(model_type="vit"), "cannot be loaded"),
    "a generation config that is no JSON": (
        "untied",
        text("generation_config.json", "{"),
        "generation_config.json is no",
    ),
    # tokenizer
    "no tokenizer": ("untied", gone(*TOKENIZER), "tokenizer at .* cannot be loaded.*needs a tokenizer.json"),
    "no tokenizer of a family with a default one": ("gpt2", gone(*TOKENIZER), "no tokenizer at|cannot be loaded"),
    "no tokenizer.json": ("untied", gone("tokenizer.json"), "needs a tokenizer.json"),
    "a tokenizer that is a pointer": ("untied", text("tokenizer.json", POINTER), "tokenizer.json is a git-lfs pointer"),
    "a tokenizer cut off": ("untied", cut("tokenizer.json", 0.5), "tokenizer.json is no JSON"),
    "an empty tokenizer": ("untied", cut("tokenizer.json", 0), "tokenizer.json is empty"),
    "a tokenizer without content": ("untied", text("tokenizer.json", "{}"), "tokenizer at .* cannot be loaded"),
    "a tokenizer config that is a list": (
        "untied",
        text("tokenizer_config.json", "[]"),
        "tokenizer_config.json holds a l",
    ),
    "a tokenizer with code of its own": (
        "untied",
        text(
            "tokenizer_config.json", '{"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", null]}}'
        ),
        "tokenizer at .* cannot be loaded: .*custom code",
    ),
    "an end token that is new": ("untied", named("tokenizer_config.json", eos_token="<end>"), "up to 4096 .'<end>'"),
    "words that are new": ("untied", tokens("zebra", "yak"), "up to 4097 .'yak'.*4096 rows"),
    "a special word that is an end": (
        "untied",
        both(
            tokens(AddedToken("<end>", special=True)),
            named("tokenizer_config.json", eos_token="<end>"),
        ),
        "up to 4096 .'<end>'",
    ),
    "a smaller model's embedding": (
        "tied",
        both(
            weights(lambda held: {**held, TABLE: held[TABLE][:512]}),
            config(vocab_size=512),
        ),
        "has ids up to 4095 .*512 rows",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_folder_is_refused_in_one_line(
    kind: str, whole: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start, damage, said = DAMAGED[kind]
    folder = tmp_path / "model"
    shutil.copytree(whole[start], folder)
    damage(folder)
    capfd.readouterr()
    with pytest.raises(ConfigError, match=said) as caught:
        sources.local(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("")
    for path, said in ((file, "it is a file"), (tmp_path / "none", "no such folder"), (tmp_path, "must name a folder")):
        with pytest.raises(ConfigError, match=said):
            sources.local(str(path))


def in_type(dtype: torch.dtype) -> Change:
    return weights(lambda held: {name: one.to(dtype) for name, one in held.items()})


def words_and_merges(folder: Path) -> None:
    """The two files of an older tokenizer, in place of the one."""
    inner = json.loads((folder / "tokenizer.json").read_text())["model"]
    gone(*TOKENIZER)(folder)
    (folder / "vocab.json").write_text(json.dumps(inner["vocab"]))
    pairs = (one if isinstance(one, str) else " ".join(one) for one in inner["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
    text(
        "tokenizer_config.json",
        '{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<pad>"}',
    )(folder)


def both_tables(folder: Path) -> None:
    weights(lambda held: {**held, HEAD: held[TABLE].clone()})(folder)


UNCHANGED: dict[str, tuple[str, Change]] = {
    "as saved": ("untied", lambda folder: None),
    "tied, the table stored once": ("tied", lambda folder: None),
    "tied, stored under the head's name": ("tied", renamed(TABLE, HEAD)),
    "tied, stored twice": ("tied", both_tables),
    "tied by weights, not by the flag": (
        "tied",
        both(both_tables, config(tie_word_embeddings=False)),
    ),
    "a base model without the prefix": ("gpt2", renamed("transformer.", "")),
    "a base model of another family": ("tied", renamed("model.", "")),
    "shards": ("shards", lambda folder: None),
    "pickled tensors": ("tied", pickled(False)),
    "rotary frequencies of old": ("untied", plus("model.layers.0.self_attn.rotary_emb.inv_freq", 4)),
    "masks of old": ("gpt2", plus("transformer.h.0.attn.bias", 1, 1, 64, 64)),
    "fp64": ("untied", in_type(torch.float64)),
    "no generation config": ("untied", gone("generation_config.json")),
    "code of its own, but a known family": ("untied", config(auto_map={"AutoModelForCausalLM": "mine.Mine"})),
    "a pickled twin that is a pointer": ("untied", text("pytorch_model.bin", POINTER)),
    "no settings of the tokenizer": ("untied", gone("tokenizer_config.json")),
    "a tokenizer in two files": ("gpt2", words_and_merges),
    "special tokens of images": ("untied", tokens(AddedToken("<image>", special=True))),
    "experts": ("experts", lambda folder: None),
}


@pytest.mark.parametrize("kind", UNCHANGED)
def test_an_odd_folder_is_loaded_as_it_is(kind: str, whole: dict[str, Path], tmp_path: Path) -> None:
    start, change = UNCHANGED[kind]
    folder = tmp_path / "model"
    shutil.copytree(whole[start], folder)
    change(folder)
    before = AutoModelForCausalLM.from_pretrained(whole[start])
    bundle, ids = sources.local(str(folder)), torch.tensor([[1, 5, 4095]])
    assert torch.equal(bundle.model(input_ids=ids).logits, before(input_ids=ids).logits)
    assert (
        bundle.tokenizer("My name is", add_special_tokens=False)["input_ids"]
        == sources.embedded_tokenizer()("My name is", add_special_tokens=False)["input_ids"]
    )


def test_half_precision_weights_are_loaded_as_they_were_rounded(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole["untied"], folder)
    exact = load_file(whole["untied"] / "model.safetensors")[Q]
    in_type(torch.bfloat16)(folder)
    assert torch.equal(sources.local(str(folder)).model.get_parameter(Q), exact.bfloat16().float())


def test_weights_beyond_half_precision_are_refused_in_it_alone(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole["untied"], folder)
    valued(Q, 1e6)(folder)
    sources.local(str(folder), dtype="bf16")
    with pytest.raises(ConfigError, match="infinity in float16: use dtype=fp32"):
        sources.local(str(folder), dtype="fp16")


def test_a_text_with_a_token_that_has_no_row_is_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    """Text models of a family of images have such tokens; they load, and serve everything else."""
    folder = tmp_path / "model"
    shutil.copytree(whole["untied"], folder)
    tokens(AddedToken("<image>", special=True))(folder)
    bundle = sources.local(str(folder))
    ids = tuple(bundle.tokenizer("See <image>")["input_ids"])
    assert max(ids) == 4096
    assert 4096 not in bundle.special_ids
    with NoDefense().prepare(bundle).deploy(Boundary()) as deployment:
        with pytest.raises(PromptError, match="does not have"):
            deployment.generate(Prompt("a", "See <image>", ids), 2)
        assert deployment.generate(Prompt("b", "See", (1, 5)), 2).ids


def test_a_folder_is_no_name_on_the_hub(whole: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"model=local model\.path="):
        sources.hub(str(whole["untied"]))
