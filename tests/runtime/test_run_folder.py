"""The folder of a run: who may write, what is recorded, what is noticed when it is read."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from kd_runner.callbacks.atomic_checkpoints import AtomicCheckpointIO, read_checkpoint
from kd_runner.errors import ConfigError
from kd_runner.runtime import files, ranks, run_names
from kd_runner.runtime.digests import check_digest, replace_with_digest
from kd_runner.runtime.result_keys import differences
from kd_runner.runtime.run_folder import RunFolder


def config(**changes: Any) -> Any:
    return OmegaConf.create({"seed": 0, "seeds": [0], "monitor": "miou", "resume": None, "export": None, **changes})


def finish(run: RunFolder, score: float = 0.5) -> float:
    files.write_json(run.metrics_file, {"score": score})
    return score


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_ended_run_is_loaded_and_never_changed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {"overrides.yaml": "- a=1\n"})
    assert run.run_or_load(config(), lambda: finish(run)) == 0.5
    assert (tmp_path / ".hydra" / "overrides.yaml").read_text() == "- a=1\n"
    before = contents(tmp_path)
    again = RunFolder(tmp_path, {"overrides.yaml": "- b=2\n"})
    assert again.run_or_load(config(resume="auto"), lambda: pytest.fail("worked again")) == 0.5
    with pytest.raises(ConfigError, match="seed: 0 there, 1 now"):
        again.claim(config(seed=1))
    again.fail("refused")
    again.stop()
    assert contents(tmp_path) == before


def test_stages_are_done_once_and_the_time_is_summed(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    first.claim(config())
    assert first.stage("train", lambda: {"steps": 7}) == {"steps": 7}
    time.sleep(0.05)
    first.fail("ValueError: no ONNX form")
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["status"] == "failed" and status["error"] == "ValueError: no ONNX form" and first.is_stopped()

    second = RunFolder(tmp_path)
    assert second.claim(config(export={"int8": True})) is None  # the export may differ
    assert second.stage("train", lambda: pytest.fail("trained again")) == {"steps": 7}
    assert second.seconds >= status["seconds"] >= 0.05


def test_more_seeds_go_on_and_fewer_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.run_or_load(config(), lambda: finish(run), extendable_key="seeds")
    more = RunFolder(tmp_path)
    assert more.claim(config(seeds=[0, 1]), extendable_key="seeds") is None
    assert not more.metrics_file.exists()
    with pytest.raises(ConfigError, match="seeds"):
        RunFolder(tmp_path).claim(config(seeds=[0]), extendable_key="seeds")


def test_stale_parts_are_removed_by_the_next_run(tmp_path: Path) -> None:
    part = tmp_path / "checkpoints" / ".last.ckpt.123.part"
    part.parent.mkdir()
    part.write_bytes(b"half")
    RunFolder(tmp_path).claim(config())
    assert not part.exists()


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "metrics.json"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path)
    run.run_or_load(config(), lambda: finish(run))
    (tmp_path / name).write_text("{")
    with pytest.raises(ConfigError, match=rf"{name} is broken"):
        RunFolder(tmp_path).claim(config())


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    for content in (b"first", b"second"):
        replace_with_digest(path, lambda file, content=content: file.write(content))
    check_digest(path, "student.checkpoint")
    path.write_bytes(b"first")  # killed between the digest and the rename: the file before
    check_digest(path, "student.checkpoint")
    path.write_bytes(b"secone")
    with pytest.raises(ConfigError, match=r"student\.checkpoint: .*student\.safetensors is damaged"):
        check_digest(path, "student.checkpoint")


def test_a_moved_checkpoint_keeps_its_best_score_and_runs_no_code(tmp_path: Path) -> None:
    old, new = RunFolder(tmp_path / "old"), RunFolder(tmp_path / "new")
    scores = {str(old.best_checkpoint): torch.tensor(0.5)}
    state = {"dirpath": str(old.checkpoints), "best_model_path": str(old.best_checkpoint), "best_k_models": scores}
    state["best_model_score"] = torch.tensor(0.5)
    checkpoint: dict[str, Any] = {"callbacks": {"ModelCheckpoint{}": state}, "global_step": 3, "epoch": 1}
    checkpoint |= {"state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "loops": {}}
    AtomicCheckpointIO(old).save_checkpoint(checkpoint, old.last_checkpoint)
    old.path.rename(new.path)
    moved = AtomicCheckpointIO(new).load_checkpoint(new.last_checkpoint)["callbacks"]["ModelCheckpoint{}"]
    assert moved["dirpath"] == str(new.checkpoints) and moved["best_model_path"] == str(new.best_checkpoint)
    assert list(moved["best_k_models"]) == [str(new.best_checkpoint)] and moved["best_model_score"] == 0.5

    torch.save([1], other := tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=r"other\.ckpt is no checkpoint of a run: it has no 'state_dict'"):
        read_checkpoint(other, tmp_path)
    with_code = tmp_path / "code.ckpt"
    torch.save({"state": os.system}, with_code)
    with pytest.raises(ConfigError, match="objects other than tensors"):
        read_checkpoint(with_code, tmp_path)
    for damage in (b"", with_code.read_bytes()[:100]):
        with_code.write_bytes(damage)
        with pytest.raises(ConfigError, match=r"code\.ckpt"):
            read_checkpoint(with_code, tmp_path)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def full(file: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match=rf"cannot write to {tmp_path}: the disk is full \(.* GB free\)"):
        files.replace(tmp_path / "x", full)
    assert not list(tmp_path.iterdir())


def test_which_keys_change_the_result() -> None:
    best = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "monitor": "val/miou"}
    before = {"callbacks": {"best": best}, "kd": {"temperature": 2}, "logger": {"name": "a"}, "task": {"workers": 1}}
    drawing = {"_target_": "kd_runner.callbacks.segmentation_visualizer.SegmentationVisualizer", "every_n_epochs": 1}
    watched = {**before, "callbacks": {"best": best, "draw": drawing}, "logger": None, "task": {"workers": 2}}
    assert differences(before, watched) == {}
    schedule = {"_target_": "kd_runner.callbacks.kd_schedule.KDSchedule", "alpha": 0.5}
    trained = {**before, "callbacks": {"best": best, "kd_schedule": schedule}, "kd": {"temperature": 3}}
    assert set(differences(before, trained)) == {
        "callbacks.kd_schedule._target_", "callbacks.kd_schedule.alpha", "kd.temperature"
    }  # fmt: skip


def test_auto_takes_the_run_that_was_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(["z_older", "a_newer"]):
        run = RunFolder(Path("outputs/e") / name)
        run.claim(config())
        os.utime(run.status_file, (1000 + i, 1000 + i))
    assert run_names.run_name("auto", "e", "now") == "a_newer"
    newer = RunFolder("outputs/e/a_newer")
    newer.run_or_load(config(), lambda: finish(newer))
    assert run_names.run_name("auto", "e", "now") == "z_older"
    assert run_names.run_name("auto", "other", "now") == "now"


@pytest.mark.parametrize(
    ("variables", "rank", "grouped"),
    [
        ({}, 0, False),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, 5, True),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}, 3, True),  # first of the second node
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, 0, False),
    ],
)
def test_one_definition_of_the_first_process(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], rank: int, grouped: bool
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", ranks.LAUNCHER):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (ranks.global_rank(), ranks.is_first(), ranks.is_grouped()) == (rank, rank == 0, grouped)
