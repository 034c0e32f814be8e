"""A sweep: a folder a point, one table, failures that stop nothing, and only what is missing the second time."""

import csv
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kd_runner.report.sweep import SweepReport
from kd_runner.runtime import sweep_session
from kd_runner.runtime.files import write_json, write_text
from kd_runner.runtime.run_folder import RunFolder
from tests.conftest import Cli

FAST = ["trainer.max_epochs=1", "data.steps_per_epoch=2", "export=none", "callbacks=[checkpoints]"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_grid_gives_one_table_and_the_second_call_does_nothing(here, tmp_path: Path, capfd) -> None:
    words = [*FAST, "-m", "kd.temperature=2,4", "kd.alpha=0.5,0.9"]
    here(*words)
    folder = tmp_path / "outputs" / "voc_kd" / "sweep_kd.temperature_kd.alpha"
    table = rows(folder)
    assert {(r["kd.temperature"], r["kd.alpha"]) for r in table} == {
        ("2", "0.5"),
        ("2", "0.9"),
        ("4", "0.5"),
        ("4", "0.9"),
    }
    assert all(r["status"] == "ended" and float(r["miou"]) > 0 for r in table)
    assert (folder / "sweep.png").stat().st_size > 5000

    written = {p: p.stat().st_mtime_ns for p in folder.glob("*/metrics.json")}
    capfd.readouterr()
    here(*words)
    assert capfd.readouterr().out.count("has ended already") == 4
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/metrics.json")} == written

    best = max(table, key=lambda r: float(r["miou"]))
    script = (folder / "best.sh").read_text()
    assert f"kd.temperature={best['kd.temperature']}" in script and f"kd.alpha={best['kd.alpha']}" in script
    rerun = subprocess.run(["bash", str(folder / "best.sh")], cwd=tmp_path, capture_output=True, text=True)
    assert rerun.returncode == 0, rerun.stdout + rerun.stderr


def test_a_point_that_fails_stops_no_other_and_is_tried_again(here, tiny: list[str], tmp_path: Path, capfd) -> None:
    """The teacher of one point is missing at first."""
    weights = next(word for word in tiny if word.startswith("teacher.checkpoint="))
    source, later = Path(weights.partition("=")[2]), tmp_path / "later.safetensors"
    words = [*FAST, "-m", f"teacher.checkpoint={later},{source}"]
    with pytest.raises(SystemExit) as end:
        here(*words)
    assert end.value.code == 1 and "Traceback" not in "".join(capfd.readouterr())
    (folder,) = (tmp_path / "outputs" / "voc_kd").glob("sweep_*")
    assert sorted(r["status"].split(":")[0] for r in rows(folder)) == ["ended", "failed"]

    later.write_bytes(source.read_bytes())
    here(*words)
    assert capfd.readouterr().out.count("has ended already") == 1
    assert [r["status"] for r in rows(folder)] == ["ended", "ended"]


def test_points_run_side_by_side(cli: Cli, tmp_path: Path) -> None:
    """Joblib's processes know the runner's own resolvers, and the table is whole."""
    done = cli(*FAST, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2")
    assert done.returncode == 0, done.stdout + done.stderr
    table = rows(tmp_path / "outputs" / "voc_kd" / "sweep_seed")
    assert [r["status"] for r in table] == ["ended", "ended"] and {r["seed"] for r in table} == {"1", "2"}


def report(folder: Path, *points: tuple[str, list[str], str]) -> tuple[int, list[dict[str, str]]]:
    """Exit code and table of a sweep whose points report (folder, overrides, status)."""
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    SweepReport().on_multirun_start(config)
    for number, (name, overrides, status) in enumerate(points):
        if status == "ended":
            score = 0.1 * (number + 1)
            write_json(folder / name / "metrics.json", {"score": score, "metrics": {"miou": score}})
        sweep_session.record(number, folder / name, overrides, status, score=None)
    code = 0
    try:
        SweepReport().on_multirun_end(config)
    except SystemExit as end:
        code = int(str(end.code))
    assert not list(folder.glob(".session*"))
    return code, rows(folder)


def test_statuses_are_those_of_this_start(tmp_path: Path) -> None:
    """A task that leaves no metrics fails the sweep; a failure of an earlier start does not."""
    sweep = tmp_path / "sweep_seed"
    assert report(sweep, ("a", ["seed=0"], "ended"), ("b", ["seed=1"], "failed"))[0] == 1
    write_json(sweep / "old" / "status.json", {"status": "failed", "error": "then"})
    write_text(sweep / "old" / ".hydra" / "overrides.yaml", "[seed=9]\n")
    write_json(sweep / "b" / "status.json", {"status": "failed", "error": "then"})
    code, table = report(sweep, ("a", ["seed=0"], "ended"), ("b", ["seed=1"], "ended"))
    assert code == 0
    assert {row["seed"]: row["status"] for row in table} == {"0": "ended", "1": "ended", "9": "earlier: not ended"}
    assert report(sweep, ("a", ["seed=0"], "started"))[0] == 1  # a killed process says nothing


def test_a_sweep_over_experiments_reads_every_folder_and_compares_none(tmp_path: Path) -> None:
    points = [
        ("point", ["experiment=voc_kd"], "ended"),
        ("../../orion_kd/sweep/point", ["experiment=orion_kd"], "ended"),
    ]
    code, table = report(tmp_path / "voc_kd" / "sweep", *points)
    assert code == 0 and {row["experiment"] for row in table} == {"voc_kd", "orion_kd"}
    assert all(row["miou"] for row in table)
    assert not (tmp_path / "voc_kd" / "sweep" / "best.sh").exists()


def test_a_point_that_another_process_runs_is_not_marked_as_failed(here, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "voc_kd" / "sweep_seed" / "point1"
    with RunFolder(folder).lock(), pytest.raises(SystemExit):
        here("task=check", "-m", "seed=1,2", "hydra.sweep.subdir=point${seed}")
    assert not (folder / "status.json").exists()
    statuses = {row["seed"]: row["status"].split(":")[0] for row in rows(folder.parent)}
    assert statuses == {"1": "running", "2": "ended"}


def test_a_failing_check_fails_the_sweep(here) -> None:
    with pytest.raises(SystemExit) as end:
        here("task=check", "-m", "data.root=/nowhere,/neither")
    assert end.value.code == 1
