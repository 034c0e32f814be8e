"""The rooms of `src/kd_runner` and what each may import: an import runs down, never up and never in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/kd_runner"
MAX_LINES = 300

# From the highest to the lowest. A room imports itself and the rooms behind it in this list.
# fmt: off
ROOMS = [
    "cli", "tasks", "config", "callbacks", "export", "distillation", "visualization", "report", "metrics", "losses",
    "models", "pruning", "synthetic", "data", "geometry", "profiling", "runtime", "errors",
]
# fmt: on
LOOSE = {"__init__", "__main__", "errors"}  # the only modules at the top of the package


def python_files(package: Path) -> dict[str, Path]:
    """Every module of the package: its dotted name below the package -> its file. A package is its `__init__`."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        files[name or "__init__"] = path
    return files


def imports(name: str, source: str, modules: set[str], is_package: bool = False) -> set[str]:
    """The modules of the package that a file imports, wherever the statement stands (in a function, for types only)."""
    package, targets = PACKAGE.name, set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = [package, *name.split(".")][: None if is_package else -1]
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *base.split(".")] if base else parents)
            dotted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in dotted:
            if target == package or target.startswith(package + "."):
                target = target[len(package) + 1 :]
                while target not in modules and "." in target:  # a name in a module
                    target = target.rpartition(".")[0]
                targets.add(target if target in modules else "__init__")
    return targets - {name}


def graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Module -> the modules it imports."""
    files = python_files(package)
    return {
        name: imports(name, path.read_text(), set(files), is_package=path.name == "__init__.py")
        for name, path in files.items()
    }


def upward(edges: dict[str, set[str]]) -> list[str]:
    """The imports that run from a lower room to a higher one."""

    def floor(module: str) -> int:
        room = module.split(".")[0]
        return ROOMS.index(room) if room in ROOMS else -1

    return [f"{m} imports {t}" for m, targets in edges.items() for t in sorted(targets) if floor(t) < floor(m)]


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, directly or through others; empty where there are none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_has_a_room() -> None:
    rooms = {name.split(".")[0] for name in python_files(PACKAGE)}
    assert rooms <= {*ROOMS, *LOOSE}, "a room that the table in this file does not know"
    assert {p.stem for p in PACKAGE.glob("*.py")} <= LOOSE


def test_imports_run_down() -> None:
    assert upward(graph()) == []


def test_no_modules_import_each_other() -> None:
    edges = graph()
    edges["data.nuscenes.object_sample"].discard("data.nuscenes.dataset")  # a type only; to go
    assert circle(edges) == []


def test_no_file_is_long() -> None:
    long = {p.name: n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > MAX_LINES}
    assert long == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import kd_runner.data.order", {"data.order"}),
        ("from kd_runner.data import order", {"data.order"}),
        ("from kd_runner.data.order import Order", {"data.order"}),
        ("def f():\n    from kd_runner.tasks import train", {"tasks.train"}),
        ("if TYPE_CHECKING:\n    from kd_runner.tasks.train import run", {"tasks.train"}),
        ("from . import train", {"data.train"}),
        ("from ..tasks import train", {"tasks.train"}),
        ("from ..errors import ConfigError", {"errors"}),
        ("from kd_runner import run", {"__init__"}),
        ("import torch\nfrom kd_runners import x", set()),
    ],
)
def test_imports_are_read(source: str, expected: set[str]) -> None:
    modules = {"__init__", "data", "data.order", "data.train", "data.own", "tasks", "tasks.train", "errors"}
    assert imports("data.own", source, modules) == expected


def test_what_runs_up_or_in_a_circle_is_seen() -> None:
    edges = {"data.a": {"models.b"}, "models.b": {"data.c"}, "data.c": {"data.a"}, "errors": {"__init__"}}
    assert upward(edges) == ["data.a imports models.b", "errors imports __init__"]
    assert set(circle(edges)) == {"data.a", "models.b", "data.c"}
    assert upward({"cli.main": {"errors"}, "models.a": {"models.b", "data.c"}}) == []
