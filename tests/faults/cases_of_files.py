# ruff: noqa: E501
"""Faults in a user's own files, in checkpoints and in what a task is given."""

import pickle
from collections.abc import Callable
from pathlib import Path

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
