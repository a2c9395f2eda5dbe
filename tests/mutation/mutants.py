"""Mutants: copies of a module that differ in one place, as a slip of the hand would.

A good test suite notices each of them. Texts, annotations, decorators, assertions and the words of an exception are
left alone: nobody's numbers hang on them.
"""

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import pairwise
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


@dataclass(frozen=True, order=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: the file, as it was given.
        start: where what is replaced begins, in bytes.
        stop: where it ends.
        new: what stands there instead.
        kind: what sort of slip it is.
    """

    path: Path
    start: int
    stop: int
    new: str
    kind: str

    def text(self) -> str:
        """The file with the change."""
        source = self.path.read_bytes()
        return (source[: self.start] + self.new.encode() + source[self.stop :]).decode()

    def diff(self) -> str:
        """The change as a reviewer reads it."""
        texts = (self.path.read_text(encoding="utf-8"), self.text())
        before, after = (text.splitlines(keepends=True) for text in texts)
        return "".join(unified_diff(before, after, str(self.path), f"mutant ({self.kind})", n=1))


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of a module, in the order of the file."""
    source = path.read_text(encoding="utf-8")
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = set()
    for node in _looked_at(ast.parse(source)):
        for kind, place, new in _changes(node):
            start = starts[place.lineno - 1] + place.col_offset
            stop = starts[place.end_lineno - 1] + place.end_col_offset
            found.add(Mutant(path, start, stop, new, kind))
    return sorted(found)


def draw(folders: Sequence[Path], count: int, seed: int) -> list[Mutant]:
    """So many mutants, the same for a seed as long as the code stays, as many of each folder as of the others.

    Raises:
        ValueError: where there is nothing to mutate.
    """
    rng, drawn = random.Random(seed), list[Mutant]()
    for number, folder in enumerate(folders):
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
        every = [mutant for file in files for mutant in mutants_of(file)]
        if not every:
            raise ValueError(f"{folder} holds nothing that can be mutated")
        share = count // len(folders) + (number < count % len(folders))
        drawn += rng.sample(every, min(share, len(every)))
    return drawn


def _looked_at(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that count: see the module's text."""
    if isinstance(node, ast.Assert | ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _looked_at(child)


Change = tuple[str, ast.AST, str]


def _changes(node: ast.AST) -> Iterator[Change]:
    """What may be changed at one node: the sort of slip, what is replaced, and by what."""
    for kind, slips in SLIPS.items():
        for place, new in slips(node):
            yield kind, place, new


Slips = Iterator[tuple[ast.AST, str]]


def _comparison(node: ast.AST) -> Slips:
    if isinstance(node, ast.Compare):
        for index, old in enumerate(node.ops):
            for new in COMPARISONS[type(old)]:
                ops = [*node.ops[:index], new(), *node.ops[index + 1 :]]
                yield node, _written(ast.Compare(node.left, ops, node.comparators))


def _arithmetic(node: ast.AST) -> Slips:
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield node, _written(ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right))
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield node, ast.unparse(ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node, _written(node.operand)


def _constant(node: ast.AST) -> Slips:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield node, repr(node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0)


def _boolean(node: ast.AST) -> Slips:
    if isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node, _written(ast.BoolOp(other, node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, _written(node.operand)
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield node.test, "False"
        if not isinstance(node, ast.While):
            yield node.test, "True"


def _dropped_statement(node: ast.AST) -> Slips:
    dropped = isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        dropped = True
    if dropped:
        yield node, "pass"


def _dropped_call(node: ast.AST) -> Slips:
    """A call is left out: what it was asked of, or its only argument, stays."""
    match node:
        case ast.Call(func=ast.Attribute(value=asked)):
            yield node, _written(asked)
        case ast.Call(func=ast.Name(), args=[argument]) if not isinstance(argument, ast.Starred | ast.GeneratorExp):
            yield node, _written(argument)


def _arguments(node: ast.AST) -> Slips:
    """Two neighbours change places, or a named argument is forgotten."""
    if not isinstance(node, ast.Call):
        return
    for index, (one, other) in enumerate(pairwise(node.args)):
        starred = isinstance(one, ast.Starred) or isinstance(other, ast.Starred)
        if not starred and ast.dump(one) != ast.dump(other) and not (_is_text(one) and _is_text(other)):
            swapped = [*node.args[:index], other, one, *node.args[index + 2 :]]
            yield node, ast.unparse(ast.Call(node.func, swapped, node.keywords))
    for keyword in node.keywords:
        if keyword.arg:
            rest = [one for one in node.keywords if one is not keyword]
            yield node, ast.unparse(ast.Call(node.func, node.args, rest))


def _returned(node: ast.AST) -> Slips:
    if isinstance(node, ast.Return) and node.value and not _is_none(node.value):
        yield node.value, "None"


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _written(node: ast.expr) -> str:
    """An expression that may stand in any other."""
    text = ast.unparse(node)
    return text if isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript) else f"({text})"


SLIPS: dict[str, Callable[[ast.AST], Slips]] = {
    "comparison": _comparison,
    "arithmetic": _arithmetic,
    "constant": _constant,
    "condition": _boolean,
    "dropped statement": _dropped_statement,
    "dropped call": _dropped_call,
    "arguments": _arguments,
    "return value": _returned,
}
