"""`--help`. Hydra's own composes the configuration and copies it once for each group, which takes seconds."""

from pathlib import Path

from kd_runner.config.location import CONF

_HEAD = """\
kd_runner turns a large perception model into a small one, and measures what distillation gained.

  python -m kd_runner                                    the default experiment on embedded data
  python -m kd_runner task=compare                       teacher, student without and with distillation, one report
  python -m kd_runner task=check                         what can be known before training, in seconds
  python -m kd_runner -m kd.temperature=1,2,4 kd.alpha=0.5,0.9      a sweep, one table at its end
  python -m kd_runner scale=full data.root=/data teacher.checkpoint=teacher.pth trainer=gpu
  python -m kd_runner resume=auto                        go on with the run that was stopped
  python -m kd_runner --config-dir my_kd experiment=mine your own folder of yaml and Python files
  tensorboard --logdir outputs

What is done: task={tasks}
How large:    scale=mini (default: embedded data) | full (published sizes, data.root)
The knobs:    kd.temperature  kd.alpha (fraction of distillation)  loss.<term>.weight  optimizer.lr
              trainer.max_epochs  data.batch_size  seed  seeds
Where:        outputs/<experiment>/<date_time>/: report.md, metrics.json, model.onnx, student.safetensors,
              checkpoints/, TensorBoard events

Choose with group=option; lists with group=[a,b]:
"""
_TAIL = """\
Change any key: key=value, add one with +key=value, remove one with ~key.

--cfg job shows the composed configuration, --cfg job -p kd a part of it; --hydra-help is about Hydra itself."""


def groups(folders: list[str]) -> dict[str, set[str]]:
    """What can be chosen.

    Args:
        folders: folders of yaml files.

    Returns:
        Group, as `pruning/score`, to its choices.
    """
    choices: dict[str, set[str]] = {}
    for folder in folders:
        for file in Path(folder).glob("*/**/*.yaml"):
            choices.setdefault(file.parent.relative_to(folder).as_posix(), set()).add(file.stem)
    return choices


def text(config_dirs: list[str]) -> str:
    """What `--help` prints.

    Args:
        config_dirs: the user's own folders of yaml files (`--config-dir`).

    Returns:
        The most used commands and settings, and every group with its choices.
    """
    choices = {group: sorted(names) for group, names in sorted(groups([str(CONF), *config_dirs]).items())}
    tasks = " | ".join(["train (default)", *(name for name in choices["task"] if name != "train")])
    lines = [f"{group}: {', '.join(names)}" for group, names in choices.items() if not group.startswith("hydra")]
    return "\n".join([_HEAD.format(tasks=tasks), *lines, "", _TAIL])
