import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = '''"""A module."""


def clipped(x: float, low: float = 0.0) -> float:
    """At least low."""
    if x < low:
        return low
    if x > 1e6:
        raise ValueError("too large" + str(1))
    return round(x + 1, ndigits=2)
'''
TEST = "from kd_runner.room import clipped\n\n\ndef test_it():\n    assert clipped.clipped(-2.0) == 0.0\n"


@pytest.fixture(scope="module")
def mutation() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "mutation.py"
    spec = importlib.util.spec_from_file_location("mutation", file)
    module = sys.modules["mutation"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "src/kd_runner/room/clipped.py": SOURCE,
        "src/kd_runner/room/__init__.py": "",
        "src/kd_runner/__init__.py": "",
        "tests/room/test_clipped.py": TEST,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_changes_of_a_file(mutation: ModuleType) -> None:
    changes = {mutant.change: mutant for mutant in mutation.mutants(SOURCE)}
    assert {"< low -> <= low", "> 1e6 -> >= 1e6", "x + 1 -> x - 1", "1 -> 2", "0.0 -> 1.0"} <= set(changes)
    assert not any("too large" in change or "str" in change for change in changes), "texts of errors stay"
    minus = changes["x + 1 -> x - 1"]
    assert minus.line == 10 and minus.code() == SOURCE.replace("x + 1", "x - 1")


def test_test_files(mutation: ModuleType, root: Path) -> None:
    source = Path("src/kd_runner/room/clipped.py")
    assert mutation.source_files(["room"], root) == [source]
    assert mutation.test_files(source, root) == [Path("tests/room/test_clipped.py")]
    (root / "tests/room/test_clipped.py").rename(root / "tests/room/test_other.py")
    assert mutation.test_files(source, root) == [Path("tests/room/test_other.py")], "the one that imports it"


def test_what_the_tests_notice(mutation: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test calls with -2 alone: it notices another bound, not another sum."""
    source, tests = Path("src/kd_runner/room/clipped.py"), [Path("tests/room/test_clipped.py")]
    for name in [name for name in sys.modules if name.startswith("kd_runner")]:
        monkeypatch.delitem(sys.modules, name)  # the forked process imports the copy's
    chosen = ("0.0 -> 1.0", "x + 1 -> x - 1")
    todo = [mutant for mutant in mutation.mutants(SOURCE) if mutant.change in chosen]
    rows = list(mutation.trial(source, tests, todo, root, time.monotonic() + 60))
    assert {row["change"]: row["outcome"] for row in rows} == dict(zip(chosen, ("noticed", "survived")))
    assert (root / source).read_text() == SOURCE


def test_a_change_that_never_ends_is_stopped(mutation: ModuleType) -> None:
    assert mutation.forked(lambda: time.sleep(60) or 0, 0.2) is None
    assert mutation.forked(lambda: 3, 10) == 3
