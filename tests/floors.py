"""The floors of optim/ and the imports between its files, read from the source, and what breaks the rule."""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "optim"
Imports = dict[str, set[str]]  # file, as common.errors -> the files that it imports


def floors(package: Path) -> dict[str, str]:
    """FLOORS of the package's __init__, read without importing it."""
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FLOORS":
            return ast.literal_eval(node.value)
    raise ValueError(f"{package}/__init__.py names no FLOORS")


def imports(package: Path) -> Imports:
    """Every import of the package from itself: at the top, in functions, and for type checkers alone."""
    files = {_name(path, package): path for path in package.rglob("*.py") if path.name != "__init__.py"}
    return {name: _imported(path, set(files), package.name) - {name} for name, path in files.items()}


def _name(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package).with_suffix("").parts)


def _imported(path: Path, files: set[str], package: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            base = (node.module or "")[len(package) + 1 :]
            found |= {one for alias in node.names for one in (f"{base}.{alias.name}".lstrip("."), base) if one in files}
        elif isinstance(node, ast.Import):
            found |= {alias.name[len(package) + 1 :] for alias in node.names if alias.name.startswith(f"{package}.")}
    return found & files


def faults(package: Path) -> list[str]:
    """A line for each import upward, each circle, and each file that lies on no floor."""
    order, edges = list(floors(package)), imports(package)
    lines = [f"{name} lies on no floor" for name in edges if name.split(".")[0] not in order]
    height = {name: order.index(name.split(".")[0]) for name in edges if name.split(".")[0] in order}
    pairs = [(name, other) for name in sorted(edges) for other in sorted(edges[name])]
    known = [(name, other) for name, other in pairs if name in height and other in height]
    lines += [f"{a} imports {b}, which lies above" for a, b in known if height[b] > height[a]]
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        lines.append(f"a circle: {' -> '.join(error.args[1])}")
    return lines


def main() -> int:
    """Prints the floors, the highest first, and their files; 1 if something breaks the rule."""
    edges = imports(PACKAGE)
    for floor, about in reversed(floors(PACKAGE).items()):
        files = [name.split(".", 1)[1] for name in sorted(edges) if name.startswith(f"{floor}.")]
        print(f"{floor:<9} {about}\n{'':9} {', '.join(files) or floor}\n")
    broken = faults(PACKAGE)
    print("\n".join(broken) if broken else "No import goes up, and there is no circle.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
