"""A piece of HTML that stands in somebody else's page, below the cell of a notebook, with a style of its own.

Ink and paper are the page's own; the colours of tokens follow its theme, or the system's where it has none.
"""

from smd_research.reports.render.page_style import DARK, LIGHT, rules, variables

SCOPE = ".smd-lab"
_DARK_PAGES = ('[data-jp-theme-light="false"]', ".vscode-dark", '[data-theme="dark"]')
_LIGHT_PAGES = ('[data-jp-theme-light="true"]', ".vscode-light", '[data-theme="light"]')

_COLOURS = ("rule", "recovered", "wrong", "abstained")  # that the rules of tokens name
_LIGHT, _DARK = (variables({name: theme[name] for name in _COLOURS}) for theme in (LIGHT, DARK))

CSS = "\n".join(
    [
        f"{SCOPE} {{ {_LIGHT} }}",
        f"@media (prefers-color-scheme: dark) {{ {SCOPE} {{ {_DARK} }} }}",
        *(f"{page} {SCOPE} {{ {_LIGHT} }}" for page in _LIGHT_PAGES),
        *(f"{page} {SCOPE} {{ {_DARK} }}" for page in _DARK_PAGES),
        rules(f"{SCOPE} "),
        f"{SCOPE} .quiet {{ opacity: .75; font-size: .85em; margin: .2em 0; }}",
    ]
)
"""The style of every fragment."""


def fragment(body: str) -> str:
    """A fragment with its style.

    Args:
        body: HTML whose texts are escaped.
    """
    return f'<div class="{SCOPE[1:]}"><style>{CSS}</style>\n{body}</div>'
