"""Any set of finished runs on one page."""

import csv
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from kd_runner.cli import gather
from kd_runner.report.curves import curve
from kd_runner.report.figures import figures
from kd_runner.report.grouped import group
from kd_runner.report.runs import collect
from kd_runner.report.statistics import gain
from kd_runner.runtime.files import read_json, write_json
from tests.report.conftest import demonstration, leave_comparison, leave_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of runs, and the page made of them."""
    root = tmp_path_factory.mktemp("gathered")
    state = root / "full.yaml"
    state.write_text("- {experiment: voc_kd, run: one step, not_run: training, why: no data}\n")
    runs = [str(p) for p in demonstration(root / "outputs")]
    assert gather.main([*runs, "--out", str(root / "page"), "--full-scale", str(state)]) == 0
    return root / "outputs", root / "page"


def test_one_line_a_run_and_no_scale_mixed_with_another(page: tuple[Path, Path]) -> None:
    with (page[1] / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (1 + 9) + 6 + (1 + 4)
    assert {(r["experiment"], r["scale"]) for r in rows} == {("voc_kd", "mini"), ("hierarchical_unet_kd", "full")}
    text = (page[1] / "comparison.md").read_text()
    mini, full = (text.index(f"## {name} at scale") for name in ("voc_kd", "hierarchical_unet_kd"))
    assert full < mini and "kd.temperature=8.0, kd.alpha=0.3" in text[mini:]


def test_the_page_needs_no_network_and_shows_everything(page: tuple[Path, Path]) -> None:
    html = (page[1] / "comparison.html").read_text()
    assert not re.search(r"<(script|link|img)\b", html) and not re.search(r'(src|href)="(?!#)', html)
    # Scores, curves, costs, classes of each of two experiments.
    assert html.count("<svg") == html.count("</svg>") == 2 * 4
    for words in (
        "scale mini</span>",
        "scale full</span>",
        "no such folder",
        "not finished",
        "no file t.pth",
        "one step",
    ):
        assert words in html


def test_seeds_make_a_row_and_gains_are_paired(tmp_path: Path) -> None:
    before, after = [0.2, 0.4, 0.3], [0.25, 0.45, 0.36]
    for seed in (2, 0, 1):
        leave_run(tmp_path / f"a{seed}", before[seed], seed, kd__enabled=False)
        leave_run(tmp_path / f"b{seed}", after[seed], seed)
    leave_run(tmp_path / "wider", 0.9, 0, student__net__width_mult=2.0)
    (section,), repeated = group(collect([tmp_path])[0])
    rows = {row.label: row for row in section.rows}
    assert not repeated and sorted(rows) == [
        "distilled, student.net.width_mult=0.5", "distilled, student.net.width_mult=2.0", "undistilled",
    ]  # fmt: skip
    row = rows["distilled, student.net.width_mult=0.5"]
    assert row.control is rows["undistilled"] and row.against == gain(before, after) and row.verdict == "gain"
    assert math.isnan(row.closed_percent)  # no teacher was measured
    # A wider student has no undistilled one to be compared with.
    assert rows["distilled, student.net.width_mult=2.0"].control is None


def test_a_comparison_and_single_runs_meet_in_one_row(tmp_path: Path) -> None:
    leave_comparison(tmp_path / "compare", {"undistilled": [0.3, 0.3], "distilled": [0.5, 0.6]}, curve=False)
    leave_run(tmp_path / "later", 0.7, seed=2)
    (section,), _ = group(collect([tmp_path / "compare", tmp_path / "later"])[0])
    assert [(row.label, len(row.runs)) for row in section.rows] == [
        ("teacher", 1),
        ("undistilled", 2),
        ("distilled", 3),
    ]
    assert section.rows[2].closed_percent == pytest.approx(100 * 0.25 / 0.6)  # of the two seeds that both have


def test_the_same_run_twice_counts_once(tmp_path: Path) -> None:
    old, new = leave_run(tmp_path / "old", 0.3), leave_run(tmp_path / "new", 0.4)
    os.utime(old, (1, 1))
    (section,), (left_out,) = group(collect([tmp_path, new, tmp_path / "new"])[0])
    assert [run.folder for row in section.rows for run in row.runs] == [new]
    assert left_out.folder == old and "repeated by" in left_out.reason


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_run(tmp_path / "good", 0.5)
    leave_run(tmp_path / "cut", 0.5)
    (tmp_path / "cut" / "metrics.json").write_text('{"scale": "mi')
    leave_run(tmp_path / "alone", 0.5)
    (tmp_path / "alone" / ".hydra" / "hydra.yaml").unlink()
    (tmp_path / "empty").mkdir()
    folders = [str(tmp_path / name) for name in ("good", "cut", "alone", "empty")]
    assert gather.main([*folders, "--out", str(tmp_path / "page")]) == 0
    printed = capsys.readouterr().err
    for words in ("cut/metrics.json", "alone: no .hydra/hydra.yaml", "empty: holds no run"):
        assert words in printed
    assert gather.main([str(tmp_path / "empty")]) == 1


def test_nan_is_reported_and_breaks_nothing(tmp_path: Path) -> None:
    leave_comparison(tmp_path / "compare", {"undistilled": [0.3, 0.3], "distilled": [math.nan, 0.6]}, curve=False)
    assert gather.main([str(tmp_path / "compare"), "--out", str(tmp_path / "page")]) == 0
    assert "no verdict" in (tmp_path / "page" / "comparison.md").read_text()


def test_a_curve_is_read_back_step_by_step(tmp_path: Path) -> None:
    leave_run(tmp_path / "run", 0.5, curve=True)
    leave_run(tmp_path / "silent", 0.5)
    points = curve(tmp_path / "run", "miou")
    assert [step for step, _ in points] == [10, 20, 30, 40, 50, 60]
    assert points[0][1] == pytest.approx(0.5 * (1 - 0.9 ** (10 / 3)), rel=1e-6)
    assert curve(tmp_path / "silent", "miou") == curve(tmp_path / "run", "other") == []


def test_the_file_of_the_full_scale_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state.yaml").write_text("- {experiment: voc_kd, ran: one step}\n")
    for name, message in (("state.yaml", "an entry has"), ("none.yaml", "no file")):
        with pytest.raises(SystemExit):
            gather.main([str(tmp_path), "--full-scale", str(tmp_path / name)])
        assert message in capsys.readouterr().err


def test_an_evaluation_and_a_point_with_an_old_failure_are_gathered(tmp_path: Path) -> None:
    """task=evaluate leaves its configuration in .hydra alone; metrics count more than an earlier failure."""
    leave_run(tmp_path / "point", 0.5)
    write_json(tmp_path / "point" / "status.json", {"status": "failed", "error": "the first start"})
    evaluated = leave_run(tmp_path / "evaluated", 0.4)
    (evaluated / "config.yaml").rename(evaluated / ".hydra" / "config.yaml")
    nets = {"teacher": {"miou": 0.9}, "student": {"miou": 0.4}}
    write_json(evaluated / "metrics.json", {"scale": "mini", "score": 0.4, "metrics": nets})
    runs, unread = collect([tmp_path])
    assert not unread
    assert {(run.folder.name, run.arm): run.score for run in runs} == {
        ("point", "distilled"): 0.5,
        ("evaluated", "teacher, evaluated"): 0.9,
        ("evaluated", "student, evaluated"): 0.4,
    }


def test_runs_that_differ_in_a_callback_that_trains_are_no_repeats(tmp_path: Path) -> None:
    schedule = {"kd_schedule": {"_target_": "kd_runner.callbacks.kd_schedule.KDSchedule", "alpha": None}}
    target = "kd_runner.callbacks.segmentation_visualizer.SegmentationVisualizer"
    leave_run(tmp_path / "plain", 0.5, callbacks={"pictures": {"_target_": target, "num_images": 6}})
    leave_run(tmp_path / "same", 0.5, callbacks={"pictures": {"_target_": target, "num_images": 2}})
    leave_run(tmp_path / "scheduled", 0.6, callbacks=schedule)
    (section,), repeated = group(collect([tmp_path])[0])
    assert len(section.rows) == 2 and len(repeated) == 1


def test_best_checkpoints_and_last_weights_are_no_repeats(tmp_path: Path) -> None:
    """Nor is one the control of the other."""
    for name, chosen, enabled in (("a", "best", False), ("b", "last", True), ("c", "best", True)):
        file = leave_run(tmp_path / name, 0.5, kd__enabled=enabled) / "metrics.json"
        write_json(file, {**read_json(file), "weights": {"chosen": chosen, "monitor": "miou", "split": "val"}})
    (section,), repeated = group(collect([tmp_path])[0])
    controls = {row.label: row.control is not None for row in section.rows}
    assert not repeated
    assert controls == {"undistilled": False, "distilled, weights=last": False, "distilled, weights=best": True}


def test_points_on_the_border_and_turned_labels_are_whole(tmp_path: Path) -> None:
    """The costliest net stands inside its axes; turned labels end at their ticks instead of being centered there."""
    labels = ("background", *(f"a long class {number}" for number in range(12)))
    leave_comparison(tmp_path / "compare", {"undistilled": [0.3], "distilled": [0.5]}, curve=False)
    (section,), _ = group(collect([tmp_path / "compare"])[0])
    for row in section.rows:
        for run in row.runs:
            run.metrics.update({f"iou/{label}": 0.5 for label in labels})  # type: ignore[attr-defined]
    drawn = figures(section)
    costs = next(svg for caption, svg in drawn.items() if "size and speed" in caption)
    boxes = re.findall(r'<clipPath.*?<rect x="(\S+)" y="\S+" width="(\S+)"', costs, re.S)
    clips = [(float(left), float(width)) for left, width in boxes]
    stars = [float(x) for x in re.findall(r'<use [^>]*x="([\d.]+)"', costs)]
    assert all(left + width - 4 > max(x for x in stars if left <= x <= left + width) for left, width in clips)
    classes = next(svg for caption, svg in drawn.items() if caption.startswith("iou"))
    (background,) = re.findall(r"<text[^>]*>background</text>", classes)
    assert "rotate(-40" in background and "text-anchor: middle" not in background


def test_a_control_of_equal_seconds_counts_as_well(tmp_path: Path) -> None:
    """Its length differs from seed to seed; the harder control is the one that is shown."""
    scores = {"undistilled": [0.30, 0.33, 0.31], "equal_seconds": [0.44, 0.45, 0.47], "distilled": [0.5, 0.52, 0.51]}
    folder = leave_comparison(tmp_path / "compare", scores, curve=False)
    for seed in range(3):
        for arm, steps in (("undistilled", 10), ("equal_seconds", 25 + seed), ("distilled", 10)):
            changes: dict[str, Any] = {"kd__enabled": arm == "distilled", "data__steps_per_epoch": steps}
            if arm == "equal_seconds":
                changes["task__seconds_of"] = "distilled"
                changes["task__length_of_twin"] = {"data.steps_per_epoch": 10}
            leave_run(folder / f"seed{seed}_{arm}", scores[arm][seed], seed, **changes)
    (section,), left_out = group(collect([folder])[0])
    rows = {row.label: row for row in section.rows}
    assert not left_out and set(rows) == {"teacher", "undistilled", "equal_seconds", "distilled"}
    distilled = rows["distilled"]
    assert distilled.control is rows["equal_seconds"] and distilled.against is not None
    assert distilled.against.mean == pytest.approx(0.17 / 3) and distilled.verdict == "gain"
