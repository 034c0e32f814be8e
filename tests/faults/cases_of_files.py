# ruff: noqa: E501
"""Faults in a user's own files, in checkpoints and in what a task is given."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.faults.harness import Case

_OWN = "--config-dir=mine loss=[task_ce,own] export=none callbacks=[checkpoints] logger=none"
_YAML = """own:
  weight: 1.0
  inputs: {logits: student.logits, target: batch.target}
  fn: {_target_: own_loss.value, _partial_: true}
"""


def _loss(code: str = "", yaml: str = _YAML) -> Callable[[Path], None]:
    """A loss of the user's own: `mine/loss/own.yaml` and `mine/own_loss.py`."""

    def arrange(folder: Path) -> None:
        (folder / "mine/loss").mkdir(parents=True)
        (folder / "mine/loss/own.yaml").write_text(yaml)
        (folder / "mine/own_loss.py").write_text(code)

    return arrange


def _returns(value: str) -> Callable[[Path], None]:
    return _loss(f"def value(logits, target):\n    return {value}\n")


_AFTER_TWO = "CALLS = []\ndef value(logits, target):\n    CALLS.append(0)\n    return logits.mean() * {}\n"


_SHORT = "logger=none export=none callbacks=[checkpoints] trainer.max_epochs=1"
_METRIC = f"--config-dir=mine metric=[segmentation_iou,own] {_SHORT}"
_SAMPLES = f"{_SHORT} +data.train={{_target_:own.Own}}"
_CALLBACK = f"{_SHORT} +callbacks.own._target_=own.Own"
_NET = f"task=check {_SHORT} export=onnx +student.net={{_target_:own.Own}} loss=[task_ce] ~student.features.coarse_logits ~student.features.low ~student.features.mid ~student.features.high"


def _own(*lines: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "own.py").write_text("\n".join(("import torch", *lines)))


def _metric(line: str) -> Callable[[Path], Any]:
    code = _own(
        *("from torchmetrics import Metric", "class Own(Metric):", "    def update(self, x): pass"),
        *("    def compute(self):", f"        {line}"),
    )

    def arrange(folder: Path) -> None:
        (folder / "mine/metric").mkdir(parents=True)
        (folder / "mine/metric/own.yaml").write_text("own: {fn: {_target_: own.Own}, inputs: {x: student.logits}}\n")
        code(folder)

    return arrange


def _samples(line: str) -> Callable[[Path], Any]:
    return _own(
        "SAMPLE = {'image': torch.zeros(3, 32, 32), 'target': torch.zeros(32, 32, dtype=torch.long)}",
        "SAMPLE['valid'] = torch.ones(32, 32, dtype=torch.bool)",
        *("class Own(torch.utils.data.Dataset):", "    def __init__(self, **options): pass"),
        *(
            "    def __len__(self): return 12",
            "    def __getitem__(self, i):",
            f"        {line}",
            "        return SAMPLE",
        ),
    )


def _callback(line: str) -> Callable[[Path], Any]:
    return _own(
        *("from lightning.pytorch import Callback", "class Own(Callback):"),
        *("    def on_train_batch_end(self, trainer, module, *_):", f"        {line}"),
    )


def _net(line: str) -> Callable[[Path], Any]:
    return _own(
        *("class Own(torch.nn.Module):", "    def __init__(self, **options):", "        super().__init__()"),
        *("        self.conv = torch.nn.Conv2d(3, 11, 3, padding=1)", "    def forward(self, image):"),
        *(
            "        y = self.conv(image)",
            "        # the next line is traced",
            "",
            f"        {line}",
        ),
    )


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)


def _truncated(folder: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, folder / "t.pth")
    whole = (folder / "t.pth").read_bytes()
    (folder / "t.pth").write_bytes(whole[:700])


class _Hostile:
    def __reduce__(self):
        return (open, ("hostile code ran", "w"))


def _not_finite(folder: Path) -> None:
    from kd_runner.models.segmentation.fcn_resnet import fcn_resnet

    state = {k: v.clone() for k, v in fcn_resnet(11, layers=(1, 1, 1, 1), width=4).state_dict().items()}
    state["classifier.4.weight"][0, 0] = torch.nan
    save_file(state, folder / "t.safetensors")


_TEACHER = r"teacher\.checkpoint.*t\.pth"
_STUDENT = r"student\.checkpoint.*s\.pth"

CASES = {
    # Own files.
    "a tab in a yaml file": Case("voc", _OWN, r"own\.yaml.*line 2", _loss(yaml="own:\n\tweight: 1.0\n")),
    "an open bracket in a yaml file": Case("voc", _OWN, r"own\.yaml.*line", _loss(yaml="own: {weight: 1.0\n")),
    "a loss file that is empty": Case("voc", _OWN, r"own", _loss(yaml="")),
    "a loss without weight": Case("voc", _OWN, r"loss\.own\.w", _loss(yaml=_YAML.replace("weight: 1.0", "w: 1.0"))),
    "a loss without inputs": Case("voc", _OWN, r"loss\.own.*inputs", _loss(yaml=_YAML.replace("inputs:", "input:"))),
    "a loss without fn": Case("voc", _OWN, r"loss\.own.*fn", _loss(yaml=_YAML.replace("fn:", "function:"))),
    "a loss with a syntax error": Case("voc", _OWN, r"loss\.own\.fn.*own_loss", _loss("def value(:\n")),
    "a loss with an import error": Case("voc", _OWN, r"loss\.own\.fn.*nothing_here", _loss("import nothing_here\n")),
    "a loss file that raises": Case("voc", _OWN, r"loss\.own\.fn.*", _loss("raise OSError('no')\n")),
    "a loss that is not in its file": Case("voc", _OWN, r"loss\.own\.fn\._target_: no 'value'", _loss("x = 1\n")),
    "a loss that returns a vector": Case("voc", _OWN, r"loss\.own.*\(", _returns("logits.mean((1, 2, 3))")),
    "a loss that returns a float": Case("voc", _OWN, r"loss\.own.*float", _returns("1.0")),
    "a loss that returns None": Case("voc", _OWN, r"loss\.own.*None", _returns("None")),
    "a loss that raises": Case("voc", _OWN, r"loss\.own.*own words", _loss("def value(logits, target):\n    raise KeyError('own words')\n")),
    "a loss that takes other arguments": Case("voc", _OWN, r"loss\.own", _loss("def value(a, b):\n    return a.mean()\n")),
    "a loss that is nan from the third step": Case("voc", _OWN, r"loss.*own.*nan|nan.*own", _loss(_AFTER_TWO.format("(float('nan') if len(CALLS) > 4 else 1.0)"))),
    "a loss that is inf from the third step": Case("voc", _OWN, r"loss.*own.*inf|inf.*own", _loss(_AFTER_TWO.format("(float('inf') if len(CALLS) > 4 else 1.0)"))),
    "a metric that raises": Case("voc", _METRIC, r"metric\.own: KeyError: 'own words'", _metric("raise KeyError('own words')")),
    "a metric that returns a vector": Case("voc", _METRIC, r"metric\.own: compute returned a tensor of shape \(3,\)", _metric("return torch.zeros(3)")),
    "a metric with another's name": Case("voc", _METRIC, r"metric\.own: another metric is called 'miou'", _metric("return {'miou': torch.ones(())}")),
    "an optimizer that is none": Case("voc", f"{_SHORT} optimizer={{_target_:own.own,_partial_:true}}", r"optimizer: it is a NoneType, not a torch Optimizer", _write("own.py", b"def own(groups, **options): pass")),
    "a scheduler that raises": Case("voc", f"{_SHORT} scheduler={{_target_:own.own,_partial_:true}}", r"scheduler: KeyError: 'own words'", _write("own.py", b"def own(optimizer, **options): raise KeyError('own words')")),
    "samples that raise": Case("voc", _SAMPLES, r"data\.train.*: sample \d+: KeyError: 'own words' \(.*own\.py, line", _samples("raise KeyError('own words')")),
    "samples that raise in a worker": Case("voc", f"{_SAMPLES} data.num_workers=1", r"data\.train.*: sample 7: KeyError: 'own words' \(.*own\.py, line", _samples("if i == 7: raise KeyError('own words')")),
    "samples of different sizes": Case("voc", _SAMPLES, r"data: 'image' is \(3, \d\d, 32\) in one sample and \(3, \d\d, 32\) in another", _samples("if i % 2: return {**SAMPLE, 'image': torch.zeros(3, 40, 32)}")),
    "samples that are tuples": Case("voc", _SAMPLES, r"data\.train.*: a sample is a tuple, not a dictionary", _samples("return 1, 2")),
    "code that calls sys.exit": Case("voc", _CALLBACK, r"RuntimeError: sys\.exit\(0\) was called", _callback("raise SystemExit(0)")),
    "a moving statistic of nan": Case("voc", _CALLBACK, r"weights are not finite .*running_mean", _callback("next(b for n, b in module.net.named_buffers() if 'running_mean' in n).fill_(float('nan'))")),
    "a net that no ONNX file can hold": Case("voc", _NET, r"export: Own has no ONNX form .*own\.py, line 10.*The trained weights are kept", _net("return y if y.mean() > 0 else 2 * y")),
    "a config folder that is not there": Case("voc", "--config-dir=nowhere", "nowhere"),
    "a config name that is not there": Case("voc", "-cn nothing", "nothing"),
    # Checkpoints.
    "a teacher that is cut short": Case("voc", "teacher.checkpoint={folder}/t.pth", _TEACHER, _truncated),
    "a teacher that is text": Case("voc", "teacher.checkpoint={folder}/t.pth", _TEACHER, _write("t.pth", b"hello")),
    "a teacher that is empty": Case("voc", "teacher.checkpoint={folder}/t.pth", _TEACHER, _write("t.pth", b"")),
    "a teacher with code in it": Case("voc", "teacher.checkpoint={folder}/t.pth", _TEACHER, _write("t.pth", pickle.dumps(_Hostile()))),
    "a teacher of another net": Case("voc", "teacher.checkpoint={folder}/t.pth", "2 unexpected", lambda folder: torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "t.pth")),
    "a teacher that is a list": Case("voc", "teacher.checkpoint={folder}/t.pth", _TEACHER, lambda folder: torch.save([1, 2], folder / "t.pth")),
    "a teacher that is a folder": Case("voc", "teacher.checkpoint={folder}", r"teacher\.checkpoint"),
    "a teacher with nan in it": Case("voc", "teacher.checkpoint={folder}/t.safetensors", r"teacher\.checkpoint.*(nan|finite)", _not_finite),
    "safetensors that are cut short": Case("voc", "teacher.checkpoint={folder}/t.safetensors", r"teacher\.checkpoint.*t\.safetensors", _write("t.safetensors", b"\x10\0\0\0\0\0\0\0{")),
    "a student that is text": Case("voc", "task=evaluate student.checkpoint={folder}/s.pth", _STUDENT, _write("s.pth", b"hello")),
    # Tasks.
    "evaluate nothing": Case("voc", "task=evaluate teacher.checkpoint=null", r"student\.checkpoint"),
    "export nothing": Case("voc", "task=export", r"student\.checkpoint"),
    "export without an export": Case("voc", "task=export export=none student.checkpoint={folder}/s.pth", "export|student"),
    "evaluate what is not there": Case("voc", "task=evaluate student.checkpoint=nowhere.safetensors", r"student\.checkpoint.*nowhere"),
    "evaluate an empty folder": Case("voc", "task=evaluate student.checkpoint={folder}", r"student\.checkpoint"),
    "a submission without nuScenes": Case("voc", "task=nuscenes_submission student.checkpoint=x.safetensors", "x.safetensors|nuscenes"),
    "a chain without stages": Case("voc", "task=assistant_chain task.stages.assistant=???", r"task\.stages\.assistant"),
    "a comparison of nothing": Case("voc", "task=compare task.arms.distilled=null task.arms.equal_seconds=null", r"task\.arms"),
    "an arm with a misspelt key": Case("voc", "task=compare +task.arms.mine={kd.temprature:3}", r"kd\.temprature"),
    "resume an empty folder": Case("voc", "resume={folder}", "resume"),
}  # fmt: skip
