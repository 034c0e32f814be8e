"""Weights in and out."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_runner.distillation import checkpoints, student_file
from kd_runner.errors import ConfigError


def net(seed: int = 0, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, classes))


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


SOURCE = net(1).state_dict()


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (SOURCE, {}),
        ({"state_dict": SOURCE, "epoch": 3, "optimizer": {"lr": 0.1}}, {}),
        ({"model_state_dict": SOURCE, "best_miou": 0.5}, {}),
        ({"model": SOURCE}, {}),
        ({"state_dict": {"model": SOURCE}}, {}),
        ({"student": SOURCE}, {}),
        (prefixed("module.", SOURCE), {"strip": "module."}),
        (SOURCE, {"strip": "module."}),
        ({**prefixed("student.", SOURCE), "losses.w": torch.ones(1)}, {"strip": "student."}),
        ({name.replace("1.", "bn."): value for name, value in SOURCE.items()}, {"rename": {"bn.": "1."}}),
        (prefixed("a.b.", SOURCE), {"rename": {"a.": "c.", "c.b.": ""}}),
        ({**SOURCE, "aux_classifier.0.weight": torch.ones(2)}, {"drop": ["aux_classifier."]}),
        ({**SOURCE, "extra": torch.ones(2)}, {}),
    ],
)
def test_layouts_of_other_frameworks_load(tmp_path: Path, content: dict[str, Any], options: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "x.pth")
    student = net()
    coverage = checkpoints.load(student, tmp_path / "x.pth", "teacher.checkpoint", **options)
    assert same(student, net(1))
    assert sorted(coverage.matched) == sorted(SOURCE)
    assert coverage.complete == ("extra" not in content)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_both_kinds_of_file_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        torch.save(SOURCE, path, _use_new_zipfile_serialization=False)  # as torchvision's older files are
    else:
        student_file.save_student(net(1), path)
    student = net()
    assert checkpoints.load(student, path, "teacher.checkpoint").complete
    assert same(student, net(1))


def test_coverage_tells_matched_missing_unexpected_dropped_and_misfits() -> None:
    tensors = {**net(1, classes=5).state_dict(), "head.weight": torch.ones(1), "aux.weight": torch.ones(1)}
    del tensors["0.bias"]
    student = net()
    coverage = checkpoints.fit(student, tensors, drop=["aux."])
    assert coverage.missing == ["0.bias"]
    assert coverage.unexpected == ["head.weight"]
    assert coverage.dropped == ["aux.weight"]
    assert coverage.wrong_shape == ["2.weight (5, 4) for (3, 4)", "2.bias (5,) for (3,)"]
    assert sorted(coverage.matched) == sorted(set(SOURCE) - {"0.bias", "2.weight", "2.bias"})
    assert not coverage.complete
    assert str(coverage).startswith(
        "6 matched, 1 missing (0.bias), 1 unexpected (head.weight), 2 wrong shape (2.weight"
    )


@pytest.mark.parametrize("fault", ["missing", "wrong_shape"])
def test_nothing_is_loaded_where_anything_does_not_fit(fault: str) -> None:
    tensors = dict(SOURCE)
    if fault == "missing":
        del tensors["2.bias"]
    else:
        tensors["2.bias"] = torch.ones(7)
    student = net()
    coverage = checkpoints.fit(student, tensors)
    assert getattr(coverage, fault) and same(student, net())
    with pytest.raises(ConfigError, match=r"^teacher\.checkpoint: x\.pth does not fit .* teacher\.checkpoint_keys"):
        checkpoints.require(coverage, "teacher", "x.pth")


def test_a_full_coverage_is_let_through() -> None:
    coverage = checkpoints.fit(net(), {**SOURCE, "more": torch.ones(1)})
    assert checkpoints.require(coverage, "teacher", "x.pth") is coverage


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_short_anywhere_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    if kind == "safetensors":
        student_file.save_student(net(1), path)
        (tmp_path / "digests.json").unlink()  # as where the file was copied from its run
    else:
        torch.save(SOURCE, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in [*range(0, 40), *range(40, len(whole), 101), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match=r"^teacher\.checkpoint: .*no checkpoint"):
            checkpoints.read(path, "teacher.checkpoint")


class Hostile:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path: Path, how: str) -> None:
    path, marker = tmp_path / "x.pth", tmp_path / "was_here"
    content = {"state_dict": SOURCE, "x": Hostile(marker)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ConfigError, match=r"^teacher\.checkpoint: .*it was not loaded, since loading could run code"):
        checkpoints.read(path, "teacher.checkpoint")
    assert not marker.exists()
    (pickle.loads(path.read_bytes()) if how == "pickle" else torch.load(path, weights_only=False))
    assert marker.exists()  # the bait was a real one


def test_a_missing_file_is_told_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "teacher.safetensors").touch()
    with pytest.raises(
        ConfigError, match=r"^teacher\.checkpoint: no file .*teachr.safetensors. Did you mean 'teacher.saf"
    ):
        checkpoints.read(tmp_path / "teachr.safetensors", "teacher.checkpoint")
    with pytest.raises(ConfigError, match=r"The folder .*nowhere does not exist"):
        checkpoints.read(tmp_path / "nowhere" / "x.pth", "teacher.checkpoint")


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"state_dict": {}}, torch.ones(1)])
def test_a_file_without_a_state_dict_says_where_it_looked(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match="holds no state dict, neither at the top nor under state_dict, model_state"):
        checkpoints.read(tmp_path / "x.pth", "teacher.checkpoint")


def test_a_saved_student_loads_strictly_into_the_plain_class(tmp_path: Path) -> None:
    """Also with tied weights and tensors that are not contiguous, which safetensors refuses as they are."""
    import safetensors.torch

    def tied(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        shared = nn.Linear(4, 4)
        shared.weight.data = shared.weight.data.T
        return nn.Sequential(shared, nn.BatchNorm1d(4), shared)

    student_file.save_student(tied(1), tmp_path / "student.safetensors")
    plain = tied(0)
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "student.safetensors"), strict=True)
    assert same(plain, tied(1))


def test_a_failure_while_saving_leaves_the_old_student_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "student.safetensors"
    student_file.save_student(net(1), path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="the disk is full"):
        student_file.save_student(net(2), path)
    assert sorted(os.listdir(tmp_path)) == ["digests.json", path.name]
    student = net()
    assert checkpoints.load(student, path, "student.checkpoint").complete and same(student, net(1))


def test_a_folder_stands_for_its_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^teacher\.checkpoint: .* is a folder without teacher\.safetensors"):
        checkpoints.read(tmp_path, "teacher.checkpoint")
    student_file.save_student(net(1), tmp_path / "student.safetensors")
    assert checkpoints.read(tmp_path, "teacher.checkpoint").keys() == SOURCE.keys()
    assert checkpoints.find_file(tmp_path, "teacher").name == "student.safetensors"
    student_file.save_student(net(2), tmp_path / "teacher.safetensors")
    assert checkpoints.find_file(tmp_path, "teacher").name == "teacher.safetensors"


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_nan_in_a_file_names_the_tensor(tmp_path: Path, name: str) -> None:
    broken = net(1)
    broken[2].weight.data[0, 1] = torch.nan
    if name.endswith("pth"):
        torch.save(broken.state_dict(), tmp_path / name)
    else:
        student_file.save_student(broken, tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{name}: tensor '2\.weight' has 1 nan or infinite of 12"):
        checkpoints.read(tmp_path / name, "student.checkpoint")


@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_infinity_in_a_file_names_the_tensor(tmp_path: Path, value: float) -> None:
    broken = net(1)
    broken[2].weight.data[0, 1] = value
    torch.save(broken.state_dict(), tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=r"tensor '2\.weight' has 1 nan or infinite of 12"):
        checkpoints.read(tmp_path / "x.pth", "student.checkpoint")


def test_a_missing_file_is_named_with_its_nearest_neighbor(tmp_path: Path) -> None:
    """And no tensor is read from something that is no file."""
    student_file.save_student(net(1), tmp_path / "student.safetensors")
    with pytest.raises(ConfigError, match=r"no file .*studnt\.safetensors\. Did you mean 'student"):
        checkpoints.read(tmp_path / "studnt.safetensors", "teacher.checkpoint")
    with pytest.raises(ConfigError, match=r"no file .* The folder .*nowhere does not exist"):
        checkpoints.read(tmp_path / "nowhere" / "x.pth", "teacher.checkpoint")
