"""The benchmark's own arithmetic."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "false_gains.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("false_gains", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_interval_is_that_of_clopper_and_pearson(benchmark: ModuleType) -> None:
    """No hit in 20: the upper end is 1 - 0.025^(1/20)."""
    assert benchmark.interval(0, 20) == (0.0, pytest.approx(1 - 0.025**0.05))
    assert benchmark.interval(1, 10) == (pytest.approx(0.00253, abs=1e-5), pytest.approx(0.44502, abs=1e-5))


def test_a_gain_is_seen_where_there_is_one(benchmark: ModuleType) -> None:
    control, clear = [0.80, 0.82, 0.81], [0.90, 0.921, 0.912]
    assert benchmark.has_gain([*control, *clear], controls=1)
    assert not benchmark.has_gain([*clear, *control], controls=1)  # a loss
    assert not benchmark.has_gain([*control, *clear, *clear], controls=2)  # none over the harder one
    assert benchmark.rate([*control, *clear, *control, *control], 1, 1)[:3] == [2, 1, "50.0"]
