import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def crd() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crd", Path(__file__).parents[2] / "benchmarks" / "crd.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_way_computes_the_same_value(crd: ModuleType) -> None:
    """On equal banks and given negatives; a queue is something else, and those drawn are others."""
    result = crd.measure(batch=4, n_data=500, negatives=100, queue=200, rounds=2)
    same = {"yardstick", "kd_runner", "gather first"}
    assert all(result["off"][name] < 1e-5 for name in same)
    assert min(result["off"][name] for name in result["off"].keys() - same) > 1e-5
    assert all(len(rounds) == 2 for rounds in result["ms"].values())
    assert crd.table(result).count("\n") == 6


def test_peak_is_what_a_step_holds_at_once(crd: ModuleType) -> None:
    import torch

    assert crd.peak(lambda: torch.ones(32, 2**20)) == pytest.approx(128, abs=8)  # MiB, in float32
