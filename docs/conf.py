"""Sphinx configuration of the site: `make docs` builds it into build/docs, and a warning fails the build."""

import builtins
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref, pending_xref_condition
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from experiments.commands.board import make_board

project = "smd-research"
author = "The smd-research authors"
copyright = author
version = release = installed_version("smd-research")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = "smd-research"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "undoc-members": True,  # constants and fields; what has to have a docstring is checked below
    "show-inheritance": True,
    "member-order": "bysource",
    "ignore-module-all": True,  # what a package hands on is described where it is defined
}
autodoc_inherit_docstrings = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries = False  # a page's own contents name its modules; every method in them would bury those
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

# Every reference must resolve, but to what other projects define: nothing is fetched to build the site.
nitpicky = True
suppress_warnings = ["ref.python"]  # a field named as a builtin (``type``) is no second meaning of it
PACKAGES = ("smd_research", "attacks", "experiments")
OTHERS = {"NDArray", "Tensor", "hydra", "matplotlib", "np", "numpy", "omegaconf", "pandas", "pd", "scipy", "torch"}
OUTSIDE = OTHERS | frozenset(sys.stdlib_module_names) | frozenset(dir(builtins))
REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"
log = logging.getLogger(__name__)


def is_public(name: str) -> bool:
    """Whether a dotted name has no part that starts with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def list_modules(package: str) -> list[str]:
    """The public modules under ``package``, itself first."""
    root = importlib.import_module(package)
    if not hasattr(root, "__path__"):
        return [package]
    found = pkgutil.walk_packages(root.__path__, f"{package}.")
    return [package, *sorted(info.name for info in found if is_public(info.name))]


def find_undocumented(module: ModuleType) -> Iterator[str]:
    """Public names defined in a module that have no docstring, neither their own nor of what they override."""
    if not inspect.getdoc(module):
        yield module.__name__
    for name, member in vars(module).items():
        own = getattr(member, "__module__", None) == module.__name__
        if not (own and is_public(name) and (inspect.isclass(member) or inspect.isfunction(member))):
            continue
        if not inspect.getdoc(member):
            yield f"{module.__name__}.{name}"
        if inspect.isclass(member):
            yield from find_undocumented_methods(member)


def find_undocumented_methods(owner: type) -> Iterator[str]:
    """As `find_undocumented`, of a class."""
    for name, member in vars(owner).items():
        documented = inspect.isroutine(member) or isinstance(member, property)
        if documented and is_public(name) and not inspect.getdoc(getattr(owner, name)):
            yield f"{owner.__module__}.{owner.__qualname__}.{name}"


class Modules(SphinxDirective):
    """Describes every public module of a package: ``modules`` and its name; ``:but:`` leaves out subpackages."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Callable[[str], list[str]]]] = {"but": str.split}

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0]
        but = tuple(self.options.get("but", ()))
        names = [name for name in list_modules(package) if not (but and name.startswith(but))]
        self.env.described_modules = getattr(self.env, "described_modules", set()) | set(names)
        lines: list[str] = []
        for name in names:
            title = [] if name == package else [f"``{name}``", "-" * (len(name) + 4), ""]
            lines += [*title, f".. automodule:: {name}", ""]
        return self.parse_text_to_nodes(StringList(lines, source=package), allow_section_headings=True)


def keep_sentences(app: Sphinx, what: str, name: str, member: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from taking the words before a sentence's first colon for a type."""
    if what in ("attribute", "data", "property"):
        first = next((i for i, line in enumerate(lines) if line.strip()), None)
        if first is not None:
            lines[first] = f": {lines[first].lstrip()}"
    for i, line in enumerate(lines[:-1]):
        if line.strip() in ("Returns:", "Yields:"):
            indent = re.match(r"\s*", lines[i + 1])
            lines[i + 1] = f"{indent.group() if indent else ''}: {lines[i + 1].lstrip()}"


def skip_outside(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leave out functions of other projects that a module imports."""
    outside = not str(getattr(member, "__module__", "")).startswith(PACKAGES)
    return True if what == "module" and inspect.isroutine(member) and outside else None


def drop_outside(app: Sphinx, doctree: nodes.document) -> None:
    """Turn references to other projects into plain code before anybody looks for them in this one."""
    for reference in list(doctree.findall(pending_xref)):
        root, dot, _ = str(reference.get("reftarget", "")).partition(".")
        if reference.get("refdomain") == "py" and (root in OUTSIDE or (dot and root not in PACKAGES)):
            short = [child for child in reference.children if isinstance(child, pending_xref_condition)]
            reference.replace_self(short[0].children if short else reference.children)


def find_elsewhere(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a name that a package hands on to where it is defined; what is not of this project is plain code.

    A name of this project that is nowhere stays unresolved, and so fails the build. Types of signatures may be private,
    type variables, or known to a type checker alone.
    """
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py":
        return None
    if target.split(".")[0] not in PACKAGES:
        return content if node["reftype"] in ("class", "obj", "exc") else None
    defined = where_defined(target)
    if defined is None or defined == target or not is_public(defined):
        return content if defined else None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], defined, node, content) or content


def where_defined(dotted: str) -> str | None:
    """The module and name under which an object of this project is defined; None for what there is not."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return None
            found = getattr(found, part)
        name = getattr(found, "__qualname__", None)
        return f"{found.__module__}.{name}" if name and hasattr(found, "__module__") else dotted
    return None


def check_coverage(app: Sphinx, env: object) -> None:
    """Warn, and so fail, for a public module that no page describes and for every public name without a docstring."""
    described = getattr(env, "described_modules", set())
    for name in (name for package in PACKAGES for name in list_modules(package)):
        if name not in described:
            log.warning("no page of docs/api describes %s", name)
        for undocumented in find_undocumented(importlib.import_module(name)):
            log.warning("%s has no docstring", undocumented)


def make_reference_board(app: Sphinx, failed: Exception | None) -> None:
    """Write the board of the committed records into the site, as ``smd board`` does."""
    if failed is None and app.builder.name == "html" and (REFERENCE / "records").is_dir():
        make_board(REFERENCE, Path(app.outdir) / "board")


def setup(app: Sphinx) -> None:
    """Add the directive, the board and what is checked."""
    app.add_directive("modules", Modules)
    app.connect("autodoc-process-docstring", keep_sentences, priority=400)  # before napoleon, at 500
    app.connect("autodoc-skip-member", skip_outside)
    app.connect("doctree-read", drop_outside)
    app.connect("missing-reference", find_elsewhere)
    app.connect("env-check-consistency", check_coverage)
    app.connect("build-finished", make_reference_board)
