"""The ``smd`` command: each word is a module of :mod:`experiments.commands`."""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": "all five kinds of defense, by what is secret",
    "run": "run one experiment, or with -m a sweep",
    "train": "train the model that ships, or another small one",
    "table": "run what a table lacks, then write it",
    "worker": "run cells of a table that nobody has, until none is left",
    "bench": "measure speed, both sides in one run",
    "serve": "play the untrusted party for runs on other hosts",
    "report": "show cells prompt by prompt",
    "compare": "compare two cells or defenses prompt by prompt",
    "board": "make a folder of pages of all records",
    "score": "score records anew from their items",
    "publish": "make a folder of results for the Hugging Face hub, and send it",
    "verify": "check a published folder without trusting it",
    "unpack": "put the records of a table into a results folder",
    "cite": "print BibTeX of the papers behind a table, or behind what words choose",
    "log": "send records to wandb or CSV, now or again",
    "list": "say what there is to choose from",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a command; everything after its name passes through unchanged."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"smd-research {importlib.metadata.version('smd-research')}")
        return 0
    command, *rest = words
    if command not in COMMANDS:
        print(f"error: unknown command '{command}': {_meant(command)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"experiments.commands.{command}")
    return int(module.main(rest))


def _meant(word: str) -> str:
    """What somebody probably wanted: a command, or a word that one takes."""
    from experiments.composing.overrides import groups, nearest
    from smd_research.core.paths import conf_dir

    key, given, _ = word.partition("=")
    if given:
        return f"did you mean 'smd {key if key in COMMANDS else 'run'} {word}'?"
    known = groups(conf_dir())
    if word in known:
        return f"did you mean 'smd list {word}'?"
    for group, options in known.items():
        if word in options:
            return f"did you mean 'smd {'table' if group == 'table' else 'run'} {group}={word}'?"
    return nearest(word, COMMANDS)


def _usage() -> str:
    lines = [f"  smd {name:<7} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "smd: a laboratory for private LLM serving",
            "",
            *lines,
            "",
            "  smd run experiment=clinic_cloud  a situation: who holds what, who looks on",
            "  smd run --help                   the values a run takes",
            "  smd list defense=smd             the values of an option",
            "  smd --version",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
