"""A declared table: what ``conf/table/NAME.yaml`` says, and the files made of it and of what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from experiments.composing.build import build
from experiments.composing.halving import Halving
from experiments.composing.overrides import UsageError, nearest
from experiments.composing.products import joined
from smd_research.core.errors import ConfigError, RecordError
from smd_research.core.paths import conf_dir
from smd_research.core.progress import say

if TYPE_CHECKING:
    from experiments.composing.words import Figure, Said, View
    from smd_research.boundary import Link
    from smd_research.core.cell import Cell
    from smd_research.records import Record
    from smd_research.records.bench import BenchCase
    from smd_research.reports.claims import Claim
    from smd_research.reports.points import Source
    from smd_research.reports.tables.table import Table

SIZES = ("small", "full")
"""``small`` fits an hour on two cores, ``full`` a night or an accelerator."""


@dataclass(frozen=True)
class Declared:
    """A table as it is declared, in one size.

    Attributes:
        title: heading.
        sweep: lines of overrides, each a product of cells, with what ``common`` says before each;
        halving: runs these as candidates, rung by rung; or
        benches: names of benches whose files are read (``smd bench`` measures, a table only reads).
        links: links whose seconds are modelled over the traffic that a bench counted, as ``link_<name>_ms``.
        by_link: links of which each makes a case of its own, with the whole time on it (``on_link``).
        view: what makes the table of a frame of records, or of the benches' cases, in the words of
            :mod:`experiments.composing.words`.
        figure: what draws the same, in place of the picture of the table.
        claims: what is expected, each with its rule.
        size: ``small`` or ``full``.
    """

    title: str
    view: "Said"
    sweep: Sequence[str] = ()
    halving: Halving | None = None
    benches: Sequence[str] = ()
    links: Sequence[str] = ()
    by_link: Sequence[str] = ()
    figure: "Said | None" = None
    claims: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    size: str = "small"

    def file(self, name: str) -> str:
        """The stem of the files of a table of this name; the full size has its own."""
        return name if self.size == "small" else f"{name}-{self.size}"


@dataclass(frozen=True)
class TableSource:
    """What is known for a table: a frame of records or the cases of benches, what it rests on, what is missing."""

    source: "Source"
    sample: str
    remarks: tuple[str, ...] = ()


def declared(node: Mapping[str, Any], size: str) -> Declared:
    """Read a declaration.

    Args:
        node: ``conf/table/NAME.yaml``; wherever sizes differ, a value for each: ``{small: ..., full: ...}``. The
            words of ``common`` stand before every line of the sweep and those of the cell that a halving compares with.
        size: which of them.

    Raises:
        UsageError: there is no such size.
        ConfigError: the table declares nothing to show, or not in this size.
    """
    if size not in SIZES:
        raise UsageError(f"unknown size '{size}': {nearest(size, SIZES)}")
    if not node.get("sweep") and not node.get("benches"):
        raise ConfigError("this table declares nothing to show: conf/table/NAME.yaml needs 'sweep' or 'benches'")
    if size == "full" and isinstance(node.get("sweep"), list):
        raise ConfigError("this table's sweep has one size: leave out size=full")
    known = {field.name: sized(node[field.name], size) for field in fields(Declared) if node.get(field.name)}
    common = sized(node.get("common"), size) or ""
    if "sweep" in known:
        known["sweep"] = [joined(common, line) for line in known["sweep"]]
    if "halving" in known:
        known["halving"] = Halving(**known["halving"])
        known["halving"] = replace(known["halving"], beside=joined(common, known["halving"].beside))
    return Declared(**known, size=size)


def sized(value: Any, size: str) -> Any:
    """A declared value in one size: wherever a node has nothing but sizes, its value of this size."""
    if isinstance(value, Mapping):
        if value and set(value) <= set(SIZES):
            return sized(value.get(size), size)
        return {key: sized(item, size) for key, item in value.items()}
    return [sized(item, size) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Presentation:
    """What a declaration shows, its words ready to be applied.

    Attributes:
        view: makes the table.
        figure: draws it, where the table declares a figure.
        claims: what is expected.
    """

    view: "View"
    figure: "Figure | None"
    claims: tuple["Claim", ...]


def resolve(table: Declared) -> Presentation:
    """The view, figure and claims that a table names; asked before anything runs, since a word may be misspelt.

    Raises:
        ConfigError: a word is unknown or does not take its options.
    """
    from experiments.composing.words import resolve_figure, resolve_rule, resolve_view
    from smd_research.reports.claims import Claim

    claims = (
        Claim(one["claim"], str(one["expected"]), one["source"], resolve_rule(one["rule"])) for one in table.claims
    )
    return Presentation(resolve_view(table.view), resolve_figure(table.figure) if table.figure else None, tuple(claims))


def of_sweep(cells: Sequence["Cell"], records: Sequence["Record"], command: str) -> TableSource:
    """What is known of a sweep.

    Args:
        cells: all that it declares.
        records: there are; their items are not asked for.
        command: what runs the rest.
    """
    from smd_research.records import frame_of_sweep
    from smd_research.reports.samples import sample_of_frame

    frame = frame_of_sweep(cells, records)
    absent = int(frame["id"][frame["status"] == "missing"].nunique())
    remark = f"...: {absent} of {len(cells)} cells have not run yet; fill them with: {command}"
    return TableSource(frame, sample_of_frame(frame), (remark,) if absent else ())


def of_benches(table: Declared, results_dir: Path) -> TableSource:
    """What is known of the benches of a table."""
    from smd_research.records.bench import read_bench
    from smd_research.reports.samples import sample_of_benches

    found, remarks = [], []
    for name in table.benches:
        try:
            found.append(bench := read_bench(results_dir, name, table.size))
        except RecordError as error:
            remarks.append(f"...: {error}")
            continue
        if only := bench.settings.get("only"):
            remarks.append(f"...: of {name} only cases with '{only}' in their name were measured")
    links = [_link(name) for name in table.links]
    cases = tuple(over_links(case, links) for bench in found for case in bench.cases)
    if table.by_link:
        apart = [_link(name) for name in table.by_link]
        cases = tuple(on_link(case, link) for case in cases for link in apart)
    return TableSource(cases, sample_of_benches(found), tuple(remarks))


def bench_commands(table: Declared) -> list[str]:
    """The commands that measure what a table reads."""
    from smd_research.records.bench import bench_command

    return [bench_command(name, table.size) for name in table.benches]


def _link(name: str) -> "Link":
    options = OmegaConf.to_container(OmegaConf.load(conf_dir() / "link" / f"{name}.yaml"))
    assert isinstance(options, dict)
    made: Link = build({str(key): value for key, value in options.items()})
    return made


def over_links(case: "BenchCase", links: Sequence["Link"]) -> "BenchCase":
    """A case with the modelled milliseconds of its counted traffic on each link, where it counted any."""
    from smd_research.metrics.spread import Spread

    counts = [case.extra.get(f"{name}_per_token") for name in ("messages", "rounds", "frame_bytes")]
    if not all(counts):
        return case
    traffic = [count.median for count in counts if count]
    modelled = {f"link_{link.name}_ms": Spread(link.seconds_of(*traffic) * 1e3) for link in links}
    return replace(case, extra={**case.extra, **modelled})


def on_link(case: "BenchCase", link: "Link") -> "BenchCase":
    """A case with a link in its labels (``link``, ``round_trip_ms``), and the whole time there.

    ``link_ms`` is modelled from the counted traffic (0 where none was counted), ``total_ms`` adds it to the measured
    milliseconds; a case with a label ``tokens`` has ``total_token_ms`` as well, its share of each.
    """
    from smd_research.metrics.spread import Spread

    labels = {**case.labels, "link": link.name, "round_trip_ms": 1e3 * link.round_trip_s}
    modelled = over_links(case, [link]).extra.get(f"link_{link.name}_ms", Spread(0.0)).median
    ends = [end + modelled for end in (case.value, case.value_spread.low, case.value_spread.high)]
    extra = {**case.extra, "link_ms": Spread(modelled), "total_ms": Spread(*ends)}
    if tokens := float(case.labels.get("tokens", 0)):
        extra["total_token_ms"] = Spread(*(end / tokens for end in ends))
    return replace(case, case=f"{case.case} {link.name}", labels=labels, extra=extra)


def tables_of(table: Declared, measured: TableSource, command: str) -> tuple["Table", "Table | None"]:
    """The table of what was measured, and its claims with their verdicts, None where it makes none.

    Args:
        table: the declaration.
        measured: what is known.
        command: what makes the table again.

    Raises:
        RecordError: what was measured does not fit the view.
    """
    from smd_research.reports.claims import claims_table
    from smd_research.reports.points import points

    ready = resolve(table)
    shown = ready.view(measured.source, title=table.title)
    notes, sample = (*shown.footnotes, *measured.remarks), shown.sample or measured.sample
    shown = replace(shown, footnotes=notes, sample=sample, command=command)
    claims = claims_table(ready.claims, points(measured.source), f"{table.title}: expected and found")
    return shown, claims if claims.rows else None


def write(table: Declared, measured: TableSource, folder: Path, name: str, command: str) -> tuple[Path, ...]:
    """Render what was measured as Markdown, CSV, LaTeX and PNG; a declared figure takes the PNG's place.

    Args:
        table: the declaration.
        measured: what is known.
        folder: where the files go.
        name: of the table.
        command: what makes the table again.
    """
    from smd_research.reports.render.text import write_table

    shown, claims = tables_of(table, measured, command)
    written = write_table(shown, folder, table.file(name), claims)
    if figure := resolve(table).figure:
        try:
            figure(measured.source, folder / f"{table.file(name)}.png")
        except RecordError as error:  # nothing measured yet: the picture of the table stays
            say(f"no figure yet: {error}")
    return written
