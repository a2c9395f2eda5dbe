"""The integer ``version`` of a component, read from its source, so that asking for a record imports nothing heavy."""

import ast
from importlib import util
from pathlib import Path


def version_of(target: str | None) -> int:
    """The ``version`` that the class ``package.module.Class`` states; 1 where it states none or cannot be found."""
    if not target or "." not in target:
        return 1
    module, _, name = target.rpartition(".")
    return _stated(module, name) or 1


def _stated(module: str, name: str, depth: int = 0) -> int | None:
    source = _source(module)
    if source is None or depth > 3:
        return None
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _class_version(node)
        if isinstance(node, ast.ImportFrom) and node.module and any(name == (a.asname or a.name) for a in node.names):
            return _stated(node.module, next(a.name for a in node.names if name == (a.asname or a.name)), depth + 1)
    return None


def _class_version(node: ast.ClassDef) -> int | None:
    for statement in node.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        value = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and target.id == "version" and isinstance(value, ast.Constant):
            return int(str(value.value))
    return None


def _source(module: str) -> Path | None:
    """A module's file, found from its top package's folder so that no package is imported on the way."""
    top, *rest = module.split(".")
    spec = util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin)
    if rest:
        place = place.parent.joinpath(*rest)
        place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return place if place.is_file() and place.suffix == ".py" else None
