"""Mutation test: which single changes of the source do a file's own tests fail to notice?

    .venv/bin/python benchmarks/mutation.py metrics losses geometry data distillation/checkpoints.py --minutes 20

mutmut's operators make the changes: a comparison, sign, number, boolean or keyword becomes another one, an argument is
left out, one branch of a conditional expression is always taken. Texts of errors, docstrings and annotations stay.
The changed file stands in a copy of the repository. Its tests are `tests/ROOM/test_NAME.py` and `test_NAME_*.py`; where
there are none, those test files of the same room, or else of any room, that import it, or import what imports it.
Every change is tested in a process forked from this one, which has imported torch and pytest already, with a time limit
of four times what the tests take without a change, and ten seconds more; running out of it counts as noticed.

Results are lines of JSON, written as they come: the same command goes on where it was stopped. A file's results count
as long as its code is the same; a change that survived is tried again when the tests are others. `--per-file 20` draws
twenty changes of each file with `--seed`; `--list` prints the survivors and runs nothing.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import create_mutations

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/kd_runner")
# Imported before forking: what the tests need besides the project itself.
HEAVY = (
    "torch",
    "torchvision",
    "torchmetrics",
    "lightning.pytorch",
    "hydra",
    "scipy.optimize",
    "pytest",
    "_pytest.pytester",
    "_pytest.junitxml",
)
# Tests that start processes or train would take minutes for each change.
SLOW = re.compile(r"_ddp\.py$|^tests/(docs|faults|tasks|cli|runtime/test_launch)|test_package|test_rows|test_runs")


@dataclass(frozen=True)
class Mutant:
    """A source file with one change.

    Attributes:
        name: Number of the change among all of its file.
        line: Line of the original, from 1.
        change: What the changed part was and is.
        code: Gives the whole changed file.
    """

    name: int
    line: int
    change: str
    code: Callable[[], str]


class _Raised(cst.CSTVisitor):
    """Nodes inside `raise` statements: mostly texts."""

    def __init__(self) -> None:
        self.nodes: set[int] = set()
        self._depth = 0

    def visit_Raise(self, node: cst.Raise) -> None:
        self._depth += 1

    def leave_Raise(self, original_node: cst.Raise) -> None:
        self._depth -= 1

    def on_visit(self, node: cst.CSTNode) -> bool:
        super().on_visit(node)
        if self._depth:
            self.nodes.add(id(node))
        return True


def mutants(source: str) -> list[Mutant]:
    """All changes of a file, except of texts, and of assignments to None, which nearly every test notices."""
    module, mutations, _, _ = create_mutations("", source)
    raised = _Raised()
    module.visit(raised)
    positions = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    changes = []
    for name, mutation in enumerate(mutations):
        old, new = mutation.original_node, mutation.mutated_node
        if id(old) in raised.nodes or isinstance(old, cst.BaseString | cst.Assign | cst.AnnAssign | cst.AugAssign):
            continue
        if isinstance(old, cst.Call) and (not isinstance(new, cst.Call) or len(new.args) == len(old.args)):
            continue  # an argument that becomes None
        before, after = (" ".join(module.code_for_node(node).split()) for node in (old, new))
        where: Any = positions.get(old)
        line = 0 if where is None else where.start.line
        changes.append(Mutant(name, line, f"{before} -> {after}", partial(_changed, module, old, new)))
    return changes


def _changed(module: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> str:
    return cst.ensure_type(module.deep_replace(old, new), cst.Module).code


def source_files(rooms: list[str], root: Path = ROOT) -> list[Path]:
    """Files of the named folders and files below src/kd_runner, relative to the root."""
    sources = []
    for room in rooms:
        path = root / PACKAGE / room
        if not path.exists():
            raise SystemExit(f"{PACKAGE / room}: no such file or folder")
        files = [path] if path.is_file() else sorted(path.rglob("*.py"))
        sources += [file.relative_to(root) for file in files if file.name != "__init__.py"]
    return sources


def test_files(source: Path, root: Path = ROOT) -> list[Path]:
    """Test files of a source file, relative to the root."""
    room = source.relative_to(PACKAGE).parent
    own = Path("tests") / room / f"test_{source.stem}.py"
    if (root / own).is_file():
        more = sorted(path.relative_to(root) for path in (root / own).parent.glob(f"test_{source.stem}_*.py"))
        return [own, *(path for path in more if not SLOW.search(str(path)))]
    tests = {path.relative_to(root): path.read_text() for path in sorted((root / "tests").rglob("test_*.py"))}
    tests = {path: text for path, text in tests.items() if not SLOW.search(str(path))}
    near, modules = own.parent, {source}
    for _ in range(3):
        users = [path for path, text in tests.items() if any(_imports(text, one) for one in modules)]
        if users:
            return [path for path in users if near in path.parents] or users
        code = {path.relative_to(root): path.read_text() for path in (root / PACKAGE).rglob("*.py")}
        modules |= {path for path, text in code.items() if any(_imports(text, one) for one in modules)}
    return []


def _imports(text: str, source: Path) -> bool:
    """Whether a text names a module, as `import a.b.c`, `from a.b import c` or as a dotted name."""
    dotted = ".".join(source.relative_to("src").with_suffix("").parts)
    package, _, name = dotted.rpartition(".")
    return (
        f"{dotted}." in text
        or f"{dotted} import" in text
        or bool(re.search(rf"from {re.escape(package)} import [^\n]*\b{name}\b", text))
    )


def copy_repository(folder: Path) -> None:
    """Copies what git knows of, as it stands in the working tree."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def forked(work: Callable[[], int], seconds: float) -> int | None:
    """Exit code of a function in a forked process; None where the time ran out."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def run_tests(folder: Path, files: list[Path], keep_bytecode: bool = False) -> int:
    """pytest on these files of the copy, output thrown away; runs in a forked process."""
    import pytest

    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os.chdir(folder)
    if not keep_bytecode:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    paths = [str(folder / "src"), str(folder)]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *map(str, files)]))


def read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []


def digest(*paths: Path, root: Path = ROOT) -> str:
    """Digest of Python code without its docstrings, comments and layout."""
    trees = [ast.parse((root / path).read_text()) for path in paths]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return hashlib.sha256("".join(map(ast.dump, trees)).encode()).hexdigest()[:16]


def pending(source: Path, tests: list[Path], done: list[dict[str, Any]], per_file: int, seed: int) -> list[Mutant]:
    """Changes of a file that no result tells of yet."""
    chosen = mutants((ROOT / source).read_text())
    if per_file and len(chosen) > per_file:
        chosen = sorted(random.Random(f"{seed}{source}").sample(chosen, per_file), key=lambda mutant: mutant.name)
    state, state_of_tests = digest(source), digest(*tests)
    rows = [row for row in done if row["file"] == str(source) and row["source"] == state]
    known = {row["name"] for row in rows if row["outcome"] != "survived" or row["tests"] == state_of_tests}
    return [mutant for mutant in chosen if mutant.name not in known]


def trial(source: Path, tests: list[Path], todo: list[Mutant], folder: Path, end: float) -> Iterator[dict[str, Any]]:
    """Tests a file's changes one by one, until all are or the time is over."""
    started = time.monotonic()
    if forked(lambda: run_tests(folder, tests, keep_bytecode=True), 600) != 0:
        print(f"{source}: without any change its tests fail or take over 600 s: {' '.join(map(str, tests))}")
        return
    limit = 10 + 4 * (time.monotonic() - started)
    common = {"file": str(source), "source": digest(source, root=folder), "tests": digest(*tests, root=folder)}
    original = (folder / source).read_text()
    # Byte code is made again by date and size alone, and a change may keep both.
    Path(importlib.util.cache_from_source(str(folder / source))).unlink(missing_ok=True)
    for mutant in todo:
        if time.monotonic() > end:
            return
        (folder / source).write_text(mutant.code())
        started = time.monotonic()
        code = forked(lambda: run_tests(folder, tests), limit)
        (folder / source).write_text(original)
        outcome = "out of time" if code is None else "survived" if code == 0 else "noticed"
        result = {"outcome": outcome, "seconds": round(time.monotonic() - started, 2)}
        yield {**common, "name": mutant.name, "line": mutant.line, "change": mutant.change, **result}


def latest(rows: list[dict[str, Any]], files: list[Path]) -> list[dict[str, Any]]:
    """The last result of every change of the files as they are now."""
    states = {str(file): digest(file) for file in files}
    return list({(row["file"], row["name"]): row for row in rows if row["source"] == states.get(row["file"])}.values())


def report(rows: list[dict[str, Any]]) -> str:
    """Changes and survivors per room as a Markdown table."""
    lines = ["| room | files | changes | noticed | survived |", "|---|---:|---:|---:|---:|"]
    rooms = sorted({Path(row["file"]).relative_to(PACKAGE).parts[0] for row in rows})
    for room in [*rooms, "total"]:
        of_room = [row for row in rows if room in ("total", Path(row["file"]).relative_to(PACKAGE).parts[0])]
        survived = sum(row["outcome"] == "survived" for row in of_room)
        files = len({row["file"] for row in of_room})
        lines.append(f"| {room} | {files} | {len(of_room)} | {len(of_room) - survived} | {survived} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", default=["."], help="folders and files below src/kd_runner; default: all")
    parser.add_argument("--results", type=Path, default=Path("mutation.jsonl"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--per-file", type=int, default=0, help="changes of a file, drawn; 0: all of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="print the survivors, run nothing")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    files = source_files(args.rooms)
    if not args.list:
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        for name in HEAVY:
            importlib.import_module(name)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_repository(folder)
            for source in files:
                tests = test_files(source)
                todo = pending(source, tests, read(args.results), args.per_file, args.seed) if tests else []
                if not tests:
                    print(f"{source}: no test file", flush=True)
                if not todo or time.monotonic() > end:
                    continue
                with args.results.open("a") as out:
                    for row in trial(source, tests, todo, folder, end):
                        print(json.dumps(row), file=out, flush=True)
    rows = latest(read(args.results), files)
    for row in sorted(rows, key=lambda row: (row["file"], row["line"])):
        if row["outcome"] == "survived":
            print(f"{row['file']}:{row['line']} [{row['name']}] {row['change'][:160]}")
    print(report(rows))


if __name__ == "__main__":
    main()
