import importlib.util
from pathlib import Path

import pytest


def test_every_line_of_the_table_is_a_configuration_of_its_own() -> None:
    spec = importlib.util.spec_from_file_location("pruning", Path(__file__).parents[2] / "benchmarks" / "pruning.py")
    pruning = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pruning)
    result = {name: pruning.settings(words, 3, 2, 7) for name, words in pruning.VARIANTS.items()}
    assert len({str(content["pruning"]) for content in result.values()}) == len(result)
    assert all(content["seed"] == 3 and content["data"]["steps_per_epoch"] == 7 for content in result.values())
    assert result["global budget, floor 25 %"]["pruning"]["heads"]["floor"] == pytest.approx(0.25)
