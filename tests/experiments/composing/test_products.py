"""Lines of overrides become cells: products, none twice, and the command line wins."""

from types import SimpleNamespace

from experiments.composing.products import expand, of_experiment


def test_lines_are_products_and_no_cell_comes_twice() -> None:
    cells = expand(["a=1,2 b=x", "a=2,3 b=x"], ["c=4"])
    assert cells == [["a=1", "b=x", "c=4"], ["a=2", "b=x", "c=4"], ["a=3", "b=x", "c=4"]]


def test_an_experiment_s_blocks_have_their_own_words_and_the_command_line_wins() -> None:
    blocks = [
        SimpleNamespace(common="n_prompts=4", sweep=["defense=none,smd", "defense=po"]),
        SimpleNamespace(common="task=note_type", sweep=["defense=shaking"]),
    ]
    words = ["experiment=demo", "seed=1", "defense=none"]
    assert of_experiment(blocks, words) == [
        ["n_prompts=4", "defense=none", "seed=1"],
        ["task=note_type", "defense=none", "seed=1"],
    ]
    smaller = of_experiment(blocks[1:], ["experiment=[demo,smoke]"])
    assert smaller == [["task=note_type", "defense=shaking", "experiment=smoke"]]


def test_a_part_that_the_command_line_chooses_leaves_the_listed_options_of_it_behind() -> None:
    blocks = [
        SimpleNamespace(common="n_prompts=4", sweep=["defense=po attack=x attack.sets=4", "defense=a,b attack=y"])
    ]
    assert of_experiment(blocks, ["experiment=demo", "attack=z", "attack.beam=2"]) == [
        ["n_prompts=4", "defense=po", "attack=z", "attack.beam=2"],
        ["n_prompts=4", "defense=a", "attack=z", "attack.beam=2"],
        ["n_prompts=4", "defense=b", "attack=z", "attack.beam=2"],
    ]
    kept = of_experiment(blocks, ["experiment=demo", "attack.sets=2", "defense=po"])
    assert kept[0] == ["n_prompts=4", "defense=po", "attack=x", "attack.sets=2"]
    single = of_experiment(blocks, ["experiment=demo", "defense=c", "attack=z"])
    assert single == [["n_prompts=4", "defense=c", "attack=z"]]
