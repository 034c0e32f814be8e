"""Names to tensors."""

import pytest
import torch

from kd_runner.distillation.inputs import InputSpec
from kd_runner.errors import ConfigError

SOURCES = {
    "student": {"low": torch.tensor(1.0), "logits": torch.tensor(2.0)},
    "teacher": {"low": torch.tensor(3.0)},
    "batch": {"target": torch.tensor(4.0)},
}


def test_a_string_gives_a_tensor() -> None:
    assert InputSpec("teacher.low").resolve(SOURCES) is SOURCES["teacher"]["low"]


def test_lists_and_mappings_keep_their_structure() -> None:
    spec = InputSpec({"students": ["student.low", "student.logits"], "teachers": {"deep": "teacher.low"}})
    resolved = spec.resolve(SOURCES)
    assert resolved["students"][0] is SOURCES["student"]["low"]
    assert resolved["students"][1] is SOURCES["student"]["logits"]
    assert resolved["teachers"]["deep"] is SOURCES["teacher"]["low"]


def test_a_spec_of_specs_reads_as_one() -> None:
    ce, kl = InputSpec({"x": "student.logits", "y": "batch.target"}), InputSpec({"x": "student.logits"})
    both = InputSpec({"ce": ce, "kl": kl})
    assert both.required_features("student") == ("logits",)
    assert both.resolve(SOURCES) == {"ce": ce.resolve(SOURCES), "kl": kl.resolve(SOURCES)}


def test_required_features_of_one_source_are_those_of_every_entry_once() -> None:
    spec = InputSpec({"a": ["student.low", {"b": "teacher.x.y"}, "teacher.high", "teacher.x.y"], "c": "batch.target"})
    assert spec.required_features("teacher") == ("x.y", "high")
    assert spec.required_features("batch") == ("target",)
    assert spec.sources == {"student", "teacher", "batch"}
    assert InputSpec("student.low").required_features("teacher") == ()


@pytest.mark.parametrize("spec", ["studnet.low", "low", "student", "student.", "", None, {"a": ["student.low", "x.y"]}])
def test_anything_but_source_and_name_is_refused(spec: object) -> None:
    with pytest.raises(ConfigError, match=r"not an input spec; write one of student\.X, teacher\.X, batch\.X"):
        InputSpec(spec)


def test_a_misspelt_source_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'student'"):
        InputSpec("studnet.low")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("batch.targets", "'batch.targets' is read but not there. Did you mean 'target'?"),
        ("teacher.zzz", "'teacher.zzz' is read but not there. Known: low."),
    ],
)
def test_a_missing_name_gets_the_nearest(spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        InputSpec(spec).resolve(SOURCES)
    assert str(caught.value) == message


def test_a_source_that_did_not_run_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'teacher\.low' is read but not there"):
        InputSpec("teacher.low").resolve({"batch": {}})
