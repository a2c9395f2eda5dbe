"""What a ``_target_`` takes, read from its source: torch is not imported to see that a number is none."""

import ast
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from experiments.composing.overrides import UsageError, nearest

_PLAIN = {"int": "int", "float": "float", "str": "str", "bool": "bool", "None": "null"}
_LISTS = ("Sequence", "list", "tuple", "Iterable")


@dataclass(frozen=True)
class ValueKind:
    """What kind of value an annotation asks for.

    Attributes:
        types: some of ``int``, ``float``, ``str``, ``bool``, ``null`` and ``list``; empty where it says nothing that is
            understood here, and anything goes.
        words: those of a ``Literal``.
        items: the kind of what is in a list.
    """

    types: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()
    items: "ValueKind | None" = None

    def __or__(self, other: "ValueKind") -> "ValueKind":
        both = self.types | other.types if self.types and other.types else frozenset()
        return ValueKind(both, self.words + other.words, self.items or other.items)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a constructor: its kind, and whether it has to be given."""

    kind: ValueKind
    required: bool


@dataclass(frozen=True)
class _Found:
    """A definition, and the module in which its names have their meaning."""

    node: ast.AST
    module: str


def parameters(target: str) -> Mapping[str, Parameter] | None:
    """The parameters of a class or function by name; None where its source cannot be read.

    Raises:
        UsageError: there is no such module, or nothing of this name in it.
    """
    return _parameters_of(target, (str(Path.cwd()), *sys.path))


@lru_cache(maxsize=256)
def _parameters_of(target: str, searched: tuple[str, ...]) -> Mapping[str, Parameter] | None:
    """As :func:`parameters`; read once for each state of the path that modules are searched in."""
    module, _, name = target.rpartition(".")
    if _source(module) is None:
        top = importlib.util.find_spec(module.partition(".")[0]) if module.partition(".")[0] else None
        if top is None or (top.origin or "").endswith(".py"):
            raise UsageError(f"_target_={target}: there is no module '{module}'")
        return None
    found = _found(module, name)
    if found is None:
        defined = [str(known) for known in _names(module) if not known.startswith("_")]
        raise UsageError(f"_target_={target}: {module} has no '{name}': {nearest(name, defined)}")
    taken = _parameters(found)
    return None if taken is None else {name: one for name, one in taken.items() if one is not None}


def kind_of(annotation: str) -> ValueKind:
    """The kind that an annotation of builtin types asks for, e.g. ``float | None``."""
    return _kind(ast.parse(annotation, mode="eval").body, "")


def _parameters(found: _Found) -> dict[str, Parameter | None] | None:
    """What a definition takes; None for a field that it does not, which may be a parameter of a class further on."""
    if isinstance(found.node, ast.FunctionDef):
        return {**_of_function(found.node, found.module)}
    if not isinstance(found.node, ast.ClassDef):
        return None
    inherited: dict[str, Parameter | None] = {}
    for base in reversed(found.node.bases):
        above = _found(found.module, base.id) if isinstance(base, ast.Name) else None
        inherited |= (_parameters(above) or {}) if above else {}
    for node in found.node.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return (inherited if node.args.kwarg else {}) | _of_function(node, found.module)
    own = [node for node in found.node.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    if any("dataclass" in ast.dump(decorator) for decorator in found.node.decorator_list):
        for node in own:
            if "ClassVar" not in ast.dump(node.annotation) and isinstance(node.target, ast.Name):
                field = Parameter(_kind(node.annotation, found.module), node.value is None)
                inherited[node.target.id] = None if node.value and "init=False" in ast.unparse(node.value) else field
    return inherited


def _of_function(node: ast.FunctionDef, module: str) -> dict[str, Parameter]:
    positional = node.args.posonlyargs + node.args.args
    defaults = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    given = [*zip(positional, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    return {
        one.arg: Parameter(_kind(one.annotation, module), default is None)
        for one, default in given
        if one.arg not in ("self", "cls")
    }


def _kind(node: ast.AST | None, module: str) -> ValueKind:
    match node:
        case ast.Constant(value=None):
            return ValueKind(frozenset({"null"}))
        case ast.Constant(value=str(text)):
            return _kind(ast.parse(text, mode="eval").body, module)
        case ast.BinOp(op=ast.BitOr()):
            return _kind(node.left, module) | _kind(node.right, module)
        case ast.Subscript(value=ast.Name(id="Optional")):
            return _kind(node.slice, module) | ValueKind(frozenset({"null"}))
        case ast.Subscript(value=ast.Name(id="Literal")):
            return ValueKind(frozenset({"str"}), tuple(str(ast.literal_eval(word)) for word in _members(node.slice)))
        case ast.Subscript(value=ast.Name(id=name)) if name in _LISTS:
            return ValueKind(frozenset({"list"}), items=_kind(_members(node.slice)[0], module))
        case ast.Name(id=name) if name in _PLAIN:
            return ValueKind(frozenset({_PLAIN[name]}))
        case ast.Name(id=name):
            alias = _found(module, name)
            return _kind(alias.node, alias.module) if alias else ValueKind()
    return ValueKind()


def _members(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _found(module: str, name: str) -> _Found | None:
    """A definition, wherever the module has it from; None where it cannot be followed."""
    node = _names(module).get(name)
    if isinstance(node, ast.ImportFrom):
        (imported,) = (alias.name for alias in node.names if (alias.asname or alias.name) == name)
        return _found(_origin(node, module), imported)
    return None if node is None else _Found(node, module)


def _origin(node: ast.ImportFrom, module: str) -> str:
    source = _source(module)
    package = module if source and source.name == "__init__.py" else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _names(module: str) -> Mapping[str, ast.AST]:
    """What a module defines, assigns and imports by name."""
    source = _source(module)
    return {} if source is None else _read(source)


@lru_cache(maxsize=256)
def _read(source: Path) -> Mapping[str, ast.AST]:
    found: dict[str, ast.AST] = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name: node for alias in names}
    return found


def _source(module: str) -> Path | None:
    """The file of a module, found without importing anything."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    if not rest and not places:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for place in places:
        stem = place.joinpath(*rest)
        for file in (stem / "__init__.py", stem.with_name(f"{stem.name}.py") if rest else stem / "__init__.py"):
            if file.is_file():
                return file
    return None
