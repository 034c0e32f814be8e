"""Names to tensors."""

import pytest
import torch

from kd_runner.distillation.inputs import names, required_features, resolve
from kd_runner.errors import ConfigError

SCOPE = {
    "student": {"low": torch.tensor(1.0), "logits": torch.tensor(2.0)},
    "teacher": {"low": torch.tensor(3.0)},
    "batch": {"target": torch.tensor(4.0)},
}


def test_a_string_gives_a_tensor() -> None:
    assert resolve("teacher.low", SCOPE) is SCOPE["teacher"]["low"]


def test_lists_and_mappings_keep_their_shape() -> None:
    wire = {"ours": ["student.low", "student.logits"], "theirs": {"deep": "teacher.low"}}
    got = resolve(wire, SCOPE)
    assert got["ours"][0] is SCOPE["student"]["low"] and got["ours"][1] is SCOPE["student"]["logits"]
    assert got["theirs"]["deep"] is SCOPE["teacher"]["low"]


def test_names_of_every_leaf() -> None:
    wire = {"a": ["student.low", {"b": "teacher.x.y"}], "c": "batch.target"}
    assert list(names(wire)) == [("student", "low"), ("teacher", "x.y"), ("batch", "target")]


def test_wanted_names_of_one_source() -> None:
    wires = ["student.low", {"a": "teacher.low", "b": ["teacher.high", "teacher.low"]}]
    assert required_features(wires, "teacher") == {"low", "high"}
    assert required_features(wires, "batch") == set()


@pytest.mark.parametrize("wire", ["studnet.low", "low", "student", "student.", "", None, {"a": ["student.low", "x.y"]}])
def test_what_is_no_wire_is_refused(wire: object) -> None:
    with pytest.raises(ConfigError, match=r"not a wire; write one of student\.X, teacher\.X, batch\.X"):
        list(names(wire))


def test_a_misspelt_source_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'student'"):
        resolve("studnet.low", SCOPE)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ("batch.targets", "'batch.targets' is read but not there. Did you mean 'target'?"),
        ("teacher.zzz", "'teacher.zzz' is read but not there. Known: low."),
    ],
)
def test_a_missing_name_is_told_the_nearest(wire: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(wire, SCOPE)
    assert str(caught.value) == message


def test_a_source_that_did_not_run_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'teacher\.low' is read but not there"):
        resolve("teacher.low", {"batch": {}})
