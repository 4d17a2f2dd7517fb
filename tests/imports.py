"""Which files of a package import which, read from their text."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path


def imports_of(package: Path) -> dict[str, set[str]]:
    """For each file, by its dotted name without the package's, the files of the package that it imports."""
    files = {path.relative_to(package).with_suffix(""): path for path in package.rglob("*.py")}
    names = {".".join(p for p in file.parts if p != "__init__"): path for file, path in files.items()}
    return {name: _imported(path, package.name, names.keys()) - {name} for name, path in names.items() if name}


def _imported(path: Path, package: str, names: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {module if module.removeprefix(f"{package}.") in names else node.module for module in modules}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module.removeprefix(f"{package}.") for module in found} & (names - {""})


def arrows_back(imports: dict[str, set[str]], floors: tuple[tuple[str, ...], ...]) -> set[str]:
    """Imports that do not run to a floor before the file's own, nor stay in its room; a file's room is its first name.

    Rooms of one floor do not know each other.
    """
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    rooms = {name: name.partition(".")[0] for name in imports}
    assert set(rooms.values()) == set(floor), "every file is in a room, and no room is empty"
    return {
        f"{name} imports {other}"
        for name, others in imports.items()
        for other in others
        if rooms[other] != rooms[name] and floor[rooms[other]] >= floor[rooms[name]]
    }


def assert_no_circle(imports: dict[str, set[str]]) -> None:
    tuple(TopologicalSorter(imports).static_order())
