"""The style of HTML pages: the figures' colours, in light and dark and on paper, and the sheet of the report."""

from collections.abc import Mapping

from smd_research.reports.figures.style import CATEGORIES, INK, PAPER, QUIET, RULE

LIGHT = {
    "ink": INK,
    "quiet": QUIET,
    "rule": RULE,
    "paper": PAPER,
    "raised": "#f6f7f9",
    "control": "#8b919c",
    "accent": "#005f99",
    "leak-rgb": "178, 24, 43",
    "amount-rgb": "0, 95, 153",
    "recovered": "#007a55",
    "wrong": "#b4232f",
    "abstained": "#6b7280",
    **{f"category-{number}": colour for number, colour in enumerate(CATEGORIES)},
}
"""Each colour by what it says."""

DARK = {
    **LIGHT,
    "ink": "#e6e8ec",
    "quiet": "#9aa1ad",
    "rule": "#363c48",
    "paper": "#14171d",
    "raised": "#1c2028",
    "control": "#697181",
    "accent": "#6db8ee",
    "leak-rgb": "214, 60, 76",
    "amount-rgb": "60, 140, 210",
    "recovered": "#43c59e",
    "wrong": "#ff7b85",
    "abstained": "#9aa1ad",
    "category-0": "#4aa3df",
    "category-6": "#b08ac0",
    "category-7": "#a8a8a8",
}
"""The same on a dark ground."""


def colours() -> str:
    """The colours as a style sheet: as the reader's system asks, or as ``data-theme`` of the page says."""
    light, dark = variables(LIGHT), variables(DARK)
    return (
        f":root {{ color-scheme: light; {light} }}\n"
        f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ color-scheme: dark; {dark} }} }}\n'
        f':root[data-theme="dark"] {{ color-scheme: dark; {dark} }}\n'
    )


def variables(colour_of: Mapping[str, str]) -> str:
    """Colours as declarations of a style sheet."""
    return " ".join(f"--{name}: {colour};" for name, colour in colour_of.items())


TOKENS: Mapping[str, str] = {
    ".tokens": """margin: .1rem 0; font: 14px/1.75 ui-monospace, "DejaVu Sans Mono", Menlo, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;""",
    ".guess": "opacity: .82; font-size: 13px; padding-left: 1rem; border-left: 2px solid var(--rule);",
    ".recovered": "color: var(--recovered); background: color-mix(in srgb, var(--recovered) 13%, transparent);",
    ".wrong": "color: var(--wrong);",
    ".abstained": "color: var(--abstained);",
    ".secret": "text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 3px;",
}
"""How the tokens of a prompt are shown, by selector."""


def rules(within: str = "") -> str:
    """The rules of tokens, for all of a page or for what lies within a selector."""
    return "\n".join(f"{within}{selector} {{ {said} }}" for selector, said in TOKENS.items())


CSS = (
    colours()
    + """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 2.5rem 1.5rem 5rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.8rem 0 .8rem; }
h4 { font-size: .85rem; margin: 1.2rem 0 .2rem; }
h4 small { font-weight: normal; color: var(--quiet); margin-left: .6em; }
.quiet { color: var(--quiet); font-size: .85rem; } ul.quiet { padding-left: 1.1rem; }
.wide { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 2px 0; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .36rem .55rem; vertical-align: middle; white-space: nowrap; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; white-space: normal; }
tbody td { border-bottom: 1px solid var(--rule); }
.left { text-align: left; } .right { text-align: right; }
td small, th small { display: block; color: var(--quiet); font-weight: normal; font-size: .75rem; line-height: 1.15; }
td.leak { background: rgba(var(--leak-rgb), calc(var(--leak) * .85)); }
td.leak small { color: inherit; opacity: .8; }
td.dark { color: #fff; }
img { width: 54rem; max-width: 100%; height: auto; border-radius: 6px; }
details { border-top: 1px solid var(--rule); padding: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
@media print { details { break-inside: avoid; } body { max-width: none; } }
"""
    + rules()
)
