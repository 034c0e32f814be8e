"""One form of docstrings: a summary, then every argument under Args, and what comes back under Returns.

ruff (pydocstyle, Google) holds the form of the sections; it does not ask for them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "kd_runner"
# Rooms and files whose docstrings are not in this form yet, to shrink to nothing.
NOT_YET: set[str] = {"config/build.py", "runtime/run_folder.py"}
# Signatures that Lightning, PyTorch or torchmetrics prescribes.
HOOKS = {
    "setup", "training_step", "validation_step", "train_dataloader", "val_dataloader", "load_state_dict", "make_params",
    "transform", "state_dict", "save_checkpoint", "load_checkpoint", "log_metrics", "finalize",
    "teardown",
}  # fmt: skip

Function = ast.FunctionDef | ast.AsyncFunctionDef


def arguments(function: Function) -> list[str]:
    """Names of the arguments, `*args` and `**kwargs` among them, without `self` and `cls`."""
    a = function.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg is not None]
    return [name for name in names if name not in ("self", "cls")]


def section(doc: str, title: str) -> str:
    """Body of a section; empty where there is none."""
    _, _, rest = f"\n{doc}".partition(f"\n{title}:\n")
    lines = []
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        lines.append(line)
    return "\n".join(lines)


def missing_arguments(names: list[str], doc: str) -> list[str]:
    described = [line.strip().partition(":")[0].lstrip("*") for line in section(doc, "Args").splitlines()]
    return [f"Args lacks {name}" for name in names if name not in described]


def faults_of(node: Function | ast.ClassDef) -> list[str]:
    """What the docstring of a function or class lacks."""
    doc = ast.get_docstring(node) or ""
    if not doc:
        return ["no docstring"]
    if isinstance(node, ast.ClassDef):
        made = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
        return missing_arguments(arguments(made[0]), doc) if made else []
    faults = missing_arguments(arguments(node), doc)
    returned = None if node.returns is None else ast.unparse(node.returns)
    if arguments(node) and returned not in (None, "None") and not section(doc, "Returns") + section(doc, "Yields"):
        faults.append("no Returns")
    return faults


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions, classes and methods of a module by their names; no hooks, no properties."""
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith(("_", "on_")):
            continue
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if node.name not in HOOKS and not any("property" in d or "setter" in d for d in decorators):
            yield f"{prefix}{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from public(node.body, f"{node.name}.")


def faults(source: str) -> list[str]:
    return [f"{name}: {fault}" for name, node in public(ast.parse(source).body) for fault in faults_of(node)]


def test_every_public_docstring_is_whole() -> None:
    hits = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE)
        if not NOT_YET & {file.parts[0], str(file)}:
            hits += [f"{file}: {fault}" for fault in faults(path.read_text())]
    assert hits == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x): pass", ["f: no docstring"]),
        (
            'def f(x, *, y) -> int:\n    """A.\n\n    Args:\n        x: of f.\n    """',
            ["f: Args lacks y", "f: no Returns"],
        ),
        ('def f(*x) -> None:\n    """A.\n\n    Args:\n        *x: of f.\n    """', []),
        ('def f() -> int:\n    """A number."""', []),
        (
            'class A:\n    """An A."""\n    def __init__(self, x): pass\n    def on_end(self, x): pass',
            ["A: Args lacks x"],
        ),
        ("def _f(x): pass", []),
    ],
)
def test_faults_are_seen(source: str, expected: list[str]) -> None:
    assert faults(source) == expected
