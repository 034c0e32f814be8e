"""Every planted fault gives one clear message that names the key, exit code 1 and no traceback."""

import pickle
from pathlib import Path

import pytest
import torch

MISSPELT_FEATURE = "teacher.features.low: the net has no module 'backbone.layr1'. Did you mean 'backbone.layer1'?"

FAULTS = {
    "misspelt feature": (["teacher.features.low=backbone.layr1"], MISSPELT_FEATURE),
    "feature name that a loss reads": (
        ["loss.kl_logits.inputs.teacher=teacher.logit"],
        "loss.kl_logits.inputs: teacher.features has no 'logit'. Did you mean 'logits'?",
    ),
    "class counts differ": (
        ["student.net.num_classes=12"],
        "loss.kl_logits: class-count mismatch: student has 12, teacher 11",
    ),
    "feature that never fires": (
        ["student.features.high=features"],
        "student.features.high: module 'features' exists but is never called in the forward pass. It is a container",
    ),
    "spatial mismatch": (
        ["loss.task_ce.inputs.logits=student.low"],
        "loss.task_ce: spatial mismatch: logits",
    ),
    "class target misspelt": (
        ["loss.kl_logits.fn._target_=kd_runner.losses.kl_logit.KLLogits"],
        "loss.kl_logits.fn._target_: no 'kl_logit' in kd_runner.losses. Did you mean 'kl_logits'?",
    ),
    "argument misspelt": (
        ["+loss.kl_logits.fn.temprature=3"],
        "loss.kl_logits.fn.temprature: kd_runner.losses.kl_logits.KLLogits takes no 'temprature'. "
        "Did you mean 'temperature'?",
    ),
    "list misspelt": (["data.train.split=trian"], "Did you mean 'train'?"),
    "no teacher weights": (["teacher.checkpoint=null"], "teacher.checkpoint is null"),
    "no such checkpoint": (["teacher.checkpoint=nowhere/t.pth"], "teacher.checkpoint: no file nowhere/t.pth"),
    "alpha out of range": (["kd.alpha=1.5"], "kd.alpha=1.5: expected the fraction of distillation, 0..1"),
    "temperature zero": (["kd.temperature=0"], "kd.temperature=0.0: expected a number above 0"),
    "real data without a path": (["data.root=???"], "data.root is not set"),
    "batch larger than the data": (["data.batch_size=500"], "data.batch_size=500 exceeds the 12 samples"),
    "a tensor that the batch lacks": (
        ["loss.task_ce.inputs.target=batch.targets"],
        "'batch.targets' is read but not there. Did you mean 'target'?",
    ),
}


def message(call, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        call("task=check", *words)
    assert end.value.code == 1
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return printed.out + printed.err


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault: str, here, capfd: pytest.CaptureFixture[str]) -> None:
    words, expected = FAULTS[fault]
    assert expected in message(here, capfd, *words)


def test_a_sound_configuration_passes(here, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    here("task=check")
    printed = capfd.readouterr().out
    for word in (
        "backbone.layer1",
        "features.12",
        "kl_logits",
        "projections.0.weight",
        "0 missing",
        "Nothing was kept",
    ):
        assert word in printed
    assert not (tmp_path / "outputs").exists()


def test_labels_out_of_range(here, capfd: pytest.CaptureFixture[str], tmp_path: Path, mini_root: Path) -> None:
    text = message(here, capfd, "data.num_classes=4", "data.class_names=[a,b,c,d]", "++teacher.net.num_classes=11",
                    "student.net.num_classes=11", "metric.segmentation_iou.fn.num_classes=4")  # fmt: skip
    assert "num_classes=4" in text and "has label" in text and "labels are 0..3 and 255" in text


@pytest.mark.parametrize("kind", ["truncated", "hostile", "no checkpoint", "another net"])
def test_bad_checkpoint(kind: str, here, capfd: pytest.CaptureFixture[str], tmp_path: Path, teacher_file: Path) -> None:
    path = tmp_path / "bad.pth"
    marker = tmp_path / "hostile code ran"
    if kind == "truncated":
        torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
        path.write_bytes(path.read_bytes()[:700])
    if kind == "hostile":
        path.write_bytes(pickle.dumps(_Hostile(str(marker))))
    if kind == "no checkpoint":
        path.write_text("hello")
    if kind == "another net":
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    text = message(here, capfd, f"teacher.checkpoint={path}")
    assert "teacher.checkpoint" in text and str(path) in text
    assert not marker.exists()
    if kind == "another net":
        assert "2 unexpected (weight, bias)" in text


class _Hostile:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_empty_data_folder(here, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is empty. Name the folder that holds VOCdevkit/VOC2012" in message(
        here, capfd, f"data.root={tmp_path / 'empty'}"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kd: {temprature: 3}", "kd.temprature: no such key. Did you mean 'kd.temperature'?"),
        ("optimzer: {lr: 0.1}", "optimzer: no such key. Did you mean 'optimizer'?"),
        ("data: {bach_size: 4}", "data.bach_size: no such key. Did you mean 'data.batch_size'?"),
        ("trainer: {max_epoch: 4}", "trainer.max_epoch: lightning.pytorch.Trainer takes no 'max_epoch'"),
        ("loss: {kl_logit: {weight: 2.0}}", "loss.kl_logit: no loss 'kl_logit' is chosen. Did you mean 'kl_logits'?"),
    ],
)
def test_misspelt_key_in_an_experiment_file(
    line: str, expected: str, here, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Hydra merges it in silence; we do not."""
    own_experiment(tmp_path, line)
    assert expected in message(here, capfd, "--config-dir=mine", "experiment=mine")


def own_experiment(folder: Path, line: str) -> None:
    """A user's own folder `mine` with an experiment `mine`."""
    for group in ("experiment", "variant/mine"):
        (folder / "mine" / group).mkdir(parents=True)
    (folder / "mine/experiment/mine.yaml").write_text(f"# @package _global_\ndefaults: [voc_kd]\n{line}\n")
    (folder / "mine/variant/mine/mini.yaml").write_text("# @package _global_\ndefaults: [/variant/voc_kd/mini]\n")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("kd.temprature=3", "kd.temprature: no such key. Did you mean 'kd.temperature'?"),
        ("experiment=voc_kdd", "experiment=voc_kdd: no such choice. Did you mean 'voc_kd'?"),
        ("loss=[task_ce,kl_logitz]", "loss=kl_logitz: no such choice. Did you mean 'kl_logits'?"),
        ("export.samples=3 export=none", "export.samples: no such key."),
        ("pruning.heads.ratoi=1 pruning=half", "pruning.heads.ratoi: no such key. Did you mean 'pruning.heads.ratio'?"),
        ("pruning=half pruning/score=taylr", "pruning/score=taylr: no such choice. Did you mean 'taylor'?"),
        ("pruning=half pruning/scor=taylor", "pruning/scor: no such key. Did you mean 'pruning/score'?"),
        ("--config-dir=mine experiment=mine kd.temprature=3", "kd.temprature: no such key."),
    ],
)
def test_misspelt_word_on_the_command_line(
    word: str, expected: str, here, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own_experiment(tmp_path, "kd: {temperature: 3.0}")
    text = message(here, capfd, *word.split())
    assert expected in text and text.count("no such") == 1
