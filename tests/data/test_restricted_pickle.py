"""Pickles: plain data is read, anything else is refused before it runs."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_runner.data import restricted_pickle


class Hostile:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps([np.arange(3), Hostile(tmp_path / "harm")], protocol=protocol))
    with pytest.raises(ValueError, match=r"bad\.pkl cannot be read as plain data .*mkdir"):
        restricted_pickle.load(tmp_path / "bad.pkl")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "call", ["builtins\neval", "builtins\ngetattr", "numpy\nload", "numpy\nfromfile", "os\nsystem"]
)
def test_only_some_names_of_builtins_and_numpy_are_allowed(tmp_path: Path, call: str) -> None:
    (tmp_path / "bad.pkl").write_bytes(f"c{call}\n(S'1'\ntR.".encode())
    with pytest.raises(ValueError, match=call.replace("\n", r"\.")):
        restricted_pickle.load(tmp_path / "bad.pkl")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_plain_data_of_numpy_1_and_2(tmp_path: Path, core: bytes, protocol: int) -> None:
    content = {"a": [np.eye(3), np.float64(0.5), np.str_("x")], "names": np.array(["car", "van"]), "set": {1, 2}}
    content_bytes = pickle.dumps(content, protocol=protocol)
    if protocol == 2:  # names end at a line there, so their length may change
        content_bytes = content_bytes.replace(b"numpy._core", core)
    (tmp_path / "good.pkl").write_bytes(content_bytes)
    read = restricted_pickle.load(tmp_path / "good.pkl")
    assert np.array_equal(read["a"][0], np.eye(3)) and read["a"][1:] == [0.5, "x"]
    assert read["names"].tolist() == ["car", "van"] and read["set"] == {1, 2}


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*none\.pkl"):
        restricted_pickle.load(tmp_path / "none.pkl")
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps(np.arange(100))[:50])
    with pytest.raises(ValueError, match=r"cut\.pkl cannot be read"):
        restricted_pickle.load(tmp_path / "cut.pkl")
