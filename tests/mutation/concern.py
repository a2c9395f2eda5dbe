"""Which tests concern a module: the nearest that import it."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PACKAGES = ("smd_research", "attacks", "experiments")


class Concern:
    """Who imports whom in a tree.

    Args:
        root: of the tree: the packages, and ``tests`` whose helper modules import too.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        packages = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
        self._modules = {_dotted(path.relative_to(root)): path for path in packages}
        # a helper of tests is imported by its file's name alone
        self._modules |= {path.stem: path for path in (root / "tests").rglob("*.py") if path.stem != "conftest"}
        self._exports = {path: dict(self._exported(path)) for path in packages if path.name == "__init__.py"}
        self._importers: dict[Path, set[Path]] = defaultdict(set)
        for path in self._modules.values():
            for imported in self._imported(path):
                self._importers[imported].add(path)

    def tests_of(self, path: Path, everywhere: bool = False) -> list[Path]:
        """The test files that import a module, relative to the root.

        Where none does, those that import what imports it, and so on; where none does at all, as the module is found by
        its place, every one of them.

        Args:
            path: of the module, relative to the root.
            everywhere: look in all of ``tests``, not only in the folder that mirrors the module's package.
        """
        mirror = self._root / "tests" if everywhere else self._mirror(path)
        near, seen = {self._root / path}, set[Path]()
        while near:
            seen |= near
            near = {importer for one in near for importer in self._through(one)} - seen
            if tests := [one for one in near if one.name.startswith("test_") and one.is_relative_to(mirror)]:
                return self._relative(tests)
        return self._relative(mirror.rglob("test_*.py"))

    def _mirror(self, path: Path) -> Path:
        room = path.parent.parts[1:] if path.parts[0] == "smd_research" else path.parent.parts
        return self._root / "tests" / room[0] if room else self._root / "tests"

    def _relative(self, paths: Iterable[Path]) -> list[Path]:
        return sorted(path.relative_to(self._root) for path in paths)

    def _through(self, path: Path) -> Iterator[Path]:
        """What imports a file; helpers of tests count as no step."""
        for importer in self._importers[path]:
            if importer.is_relative_to(self._root / "tests") and not importer.name.startswith("test_"):
                yield from self._through(importer)
            else:
                yield importer

    def _imported(self, path: Path) -> Iterator[Path]:
        """The files whose names a file imports; a package's name is looked up where the package has it from."""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (self._modules[name.name] for name in node.names if name.name in self._modules)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for name in node.names:
                    yield from self._source(node.module, name.name, path)

    def _source(self, module: str, name: str, importer: Path) -> Iterator[Path]:
        inner, package = self._modules.get(f"{module}.{name}"), self._modules.get(module)
        if inner:
            yield inner
            yield from self._members(inner)
        elif package:
            exported = self._exports.get(package, {}) if package != importer else {}
            yield exported.get(name, package)

    def _members(self, package: Path) -> Sequence[Path]:
        """Whoever imports a package whole may use whatever it exports."""
        return sorted(set(self._exports.get(package, {}).values()))

    def _exported(self, package: Path) -> Iterator[tuple[str, Path]]:
        for node in ast.parse(package.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module in self._modules:
                yield from ((name.asname or name.name, self._modules[node.module]) for name in node.names)


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")
