"""``smd publish``: records, tables, board and page of a results folder as one folder for the Hugging Face hub."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from experiments.composing.app import launch
from experiments.composing.overrides import UsageError
from smd_research.core.errors import LabError, RecordError
from smd_research.core.progress import say

_TOLD = ("licence", "title")
"""Words of the command that are published with the folder; all others say where things lie and go."""


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd publish`` command.

    Returns:
        0; 1 where the folder was made and could not be sent; 2 where nothing is to be published, or the place is taken.
    """
    words = list(sys.argv[1:] if argv is None else argv)

    def one(cfg: DictConfig) -> None:
        repo = _repository(cfg.repo)
        place = Path(cfg.results_dir).expanduser()
        out = Path(cfg.out).expanduser() if cfg.out else (place.parent if place.is_file() else place) / "published"
        kept = [word for word in words if word.partition("=")[0] in _TOLD]
        try:
            digest = publish(place, out, _terms(cfg), shlex.join(["smd", "publish", *kept]))
        except RecordError as error:
            raise UsageError(str(error)) from error
        print(f"folder: {out}\nmanifest: {digest}")
        if repo and not cfg.dry_run:
            print(f"page: {send(out, repo, private=cfg.private)}")

    return launch(one, "publish", "smd publish", words)


def publish(place: Path, out: Path, terms: Mapping[str, str], command: str) -> str:
    """Make the folder; a published one that stood there is replaced in one step.

    Args:
        place: a results folder, a folder of packed records, or one packed file.
        out: the folder to make.
        terms: its ``licence``, ``title`` and what is said ``about`` it.
        command: that made it.

    Returns:
        The checksum of its manifest, by which all of it is known.

    Raises:
        RecordError: nothing is there to publish, a record cannot be shared, or ``out`` is taken or cannot be written.
    """
    from experiments.composing.publication import gathered, made_files, measured_files
    from smd_research.records import environment
    from smd_research.records.folders import replace_folder
    from smd_research.records.manifest import MANIFEST, Manifest, checksums, manifest_bytes

    _free(out)
    found = gathered(place)
    measured = measured_files(found, place)
    if not measured:
        raise RecordError(f"{place} holds no records: run experiments first, or choose another results_dir=")
    here = environment()
    version = f"smd-research {here['packages'].get('smd-research', '')}".strip()
    commit = (here["git"] or {}).get("commit", "")
    told = Manifest(version, commit, command, terms["licence"], terms["title"], terms["about"])
    files = measured | made_files(found, place, told)
    files[MANIFEST] = manifest_bytes(replace(told, files=checksums(files)))
    try:
        replace_folder(out, files)
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror or error}; choose another out=") from error
    texts = sum(record.texts and not record.items.empty for records in found.records.values() for record in records)
    if texts:
        say(f"{texts} records hold texts (prompts, secrets, guesses), which are published with them")
    return checksums({MANIFEST: files[MANIFEST]})[MANIFEST]


def _free(out: Path) -> None:
    """Refuse a place in which anything lies that no earlier command put there: the whole folder is replaced.

    Raises:
        RecordError: naming what lies there.
    """
    from smd_research.records.folders import free_for
    from smd_research.records.manifest import MANIFEST, read_manifest, walked

    free_for(out, MANIFEST, "a published folder")
    if not (out / MANIFEST).is_file():
        return
    told, (files, odd) = read_manifest(out), walked(out)
    own = [name for name in (*files, *odd) if name not in told.files]
    if own or (out / ".git").exists():
        lies = (own or [".git"])[0]
        raise RecordError(f"{out} holds {lies} beside a published folder: choose an empty or new folder with out=")


def send(folder: Path, repo: str, *, private: bool) -> str:
    """Send a folder to the hub, where it takes the place of what the data set held.

    Returns:
        The address of its page.

    Raises:
        LabError: the hub cannot be reached, or does not take it; the folder stays.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    hub = huggingface_hub.HfApi()
    try:
        address = hub.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo, folder_path=folder, repo_type="dataset", commit_message="smd publish", delete_patterns="*"
        )
    except OfflineModeIsEnabled:
        why = "HF_HUB_OFFLINE is set"
    except LocalTokenNotFoundError:
        why = "nobody is logged in: hf auth login"
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = _short(error)
    except Exception as error:  # the hub's client passes on what its own library of HTTP raises
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "huggingface_hub")):
            raise
        why = _short(error)
    else:
        return str(address)
    raise LabError(f"nothing was sent to {repo} ({why}); the folder stays in {folder}: give the command again")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _repository(repo: str | None) -> str | None:
    """The name of a data set.

    Raises:
        UsageError: the hub has no such names.
    """
    if repo is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(repo)):
        raise UsageError(f"repo={repo} is no data set on the hub: write repo=ORG/NAME")
    return repo


def _terms(cfg: DictConfig) -> dict[str, str]:
    """What a folder is published under.

    Raises:
        UsageError: a word that no page could hold, or a file that cannot be read.
    """
    licence, title = str(cfg.licence), " ".join(str(cfg.title).split())
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise UsageError(f"licence={licence} is no licence as the hub spells them: cc-by-4.0, apache-2.0, mit, other")
    if not title or not title.isprintable():
        raise UsageError("title= needs a line of text")
    about = ""
    if cfg.about is not None:
        try:
            about = Path(cfg.about).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"about={cfg.about} cannot be read: give a Markdown file") from error
    return {"licence": licence, "title": title, "about": about}


if __name__ == "__main__":
    sys.exit(main())
