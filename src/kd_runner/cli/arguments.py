"""The words of the command line: flags, folders, and names of versions before."""

import argparse
import os
from itertools import pairwise
from typing import Any, NoReturn

from kd_runner.config.location import CONF
from kd_runner.errors import ConfigError, nearest

_FLAGS_WITH_VALUE = (
    ("--config-dir", "-cd"), ("--config-path", "-cp"), ("--config-name", "-cn"), ("--cfg", "-c"), ("--package", "-p"),
)  # fmt: skip

_CHOICES = {"--cfg": ("job", "hydra", "all")}
_FLAGS = {
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m", "--info", "-i"),
    *("--shell-completion", "-sc", "--experimental-rerun"),
}

# Names of versions before: a group or key -> what it is called now.
_RENAMED_KEYS = {
    "run": "task",
    "size": "scale (a scale's settings: variant/<experiment>/<scale>.yaml)",
    "recipe": "task (a task's settings: variant/<experiment>/<scale>_<task>.yaml)",
    "teacher.taps": "teacher.features",
    "student.taps": "student.features",
    "teacher.features.look_0": "teacher.features.cross_attn_0",
    "teacher.features.look_1": "teacher.features.cross_attn_1",
    "teacher.features.look_2": "teacher.features.cross_attn_2",
    "teacher.features.kept_mid": "teacher.features.kept_heads_mid",
    "teacher.features.kept_high": "teacher.features.kept_heads_high",
    "teacher.features.lines_many": "teacher.features.lines_one2many",
    "pruning.heads.scope": "pruning.heads.ranking",
    "teacher.net.max_boxes": "teacher.net.num_detections",
    "data.train.paste": "data.train.object_sample",
    "callbacks.epoch_line": "callbacks.epoch_summary",
    "callbacks.gt_paste_off": "callbacks.disable_object_sample",
    "callbacks.student_files": "callbacks.save_weights",
}
# Group -> choice of versions before -> what it is called now.
_RENAMED_CHOICES = {
    "run": {
        "distill": "train", "teacher": "train_teacher", "chain": "assistant_chain", "submit": "nuscenes_submission",
    },
    "callbacks": {
        "epoch_line": "epoch_summary", "gt_paste_off": "disable_object_sample", "pictures": "segmentation_visualizer",
        "driving_pictures": "detection_visualizer", "lidar_pictures": "lidar_visualizer",
        "roi_pictures": "roi_visualizer",
    },
}  # fmt: skip
_RENAMED_CHOICES["task"] = _RENAMED_CHOICES["run"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def flags_first(words: list[str]) -> list[str]:
    """Put flags before overrides: Hydra's parser takes no flag behind the first override.

    Args:
        words: of the command line.

    Returns:
        The words in that order.

    Raises:
        ConfigError: an unknown flag, or a flag without its value.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for names in _FLAGS_WITH_VALUE:
        parser.add_argument(*names, dest=names[0], choices=_CHOICES.get(names[0]))
    known, rest = parser.parse_known_args(words)
    flags = [part for flag, value in vars(known).items() if value is not None for part in (flag, value)]
    for word in rest:
        if word.startswith("-") and word.partition("=")[0] not in _FLAGS:
            every = _FLAGS | {name for names in _FLAGS_WITH_VALUE for name in names}
            raise ConfigError(f"{word}: no such flag.{nearest(word, every)}")
    return [*flags, *sorted(rest, key=lambda word: not word.startswith("-"))]


def check_choices(words: list[str]) -> None:
    """What is chosen of a group is the name of a file, or a list of names where several may be chosen.

    Args:
        words: of the command line.

    Raises:
        ConfigError: anything else, which Hydra answers with an error of its own code.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser  # heavy, and `--help` does without
    from hydra.errors import HydraException

    from kd_runner.config.entries import GROUPS

    groups = {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra"}
    for word in words:
        try:
            (override,) = OverridesParser.create().parse_overrides([word])
        except HydraException:
            continue  # Hydra says what is wrong
        key = override.key_or_group
        if not key:
            raise ConfigError(f"{word}: no key stands ahead of the =")
        if key not in groups or override.is_delete() or override.is_sweep_override():
            continue
        value: Any = override.value()
        names = value if isinstance(value, list) and key in GROUPS else [value]
        if isinstance(value, dict) or all(isinstance(name, str) for name in names):
            continue
        several = f", or a list of names, e.g. {key}=[...]" if key in GROUPS else ""
        none = f"; for nothing: {key}=none" if (CONF / key / "none.yaml").is_file() else ""
        raise ConfigError(f"{word}: expected the name of a file of conf/{key}{several}{none}")


def config_dirs(words: list[str]) -> list[str]:
    """Folders of the user's own yaml files.

    Args:
        words: of the command line, as `flags_first` gives them.

    Returns:
        Absolute paths.
    """
    return [os.path.abspath(value) for flag, value in pairwise(words) if flag == "--config-dir"]


def check_renamed(words: list[str]) -> None:
    """Refuse names of versions before.

    Args:
        words: of the command line.

    Raises:
        ConfigError: a word of a version before, with the one of today.
    """
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        if key.startswith("-") or not equals:
            continue
        choices = _RENAMED_CHOICES.get(key, {})
        for choice in value.strip("[]").split(","):
            if choice in choices or key == "run":
                new = choices.get(choice, choice)
                raise ConfigError(f"{word}: {key}={choice} is called {'task' if key == 'run' else key}={new} now")
        if (new_key := renamed_key(key)) is not None:
            raise ConfigError(f"{word}: {new_key}")


def renamed_key(key: str) -> str | None:
    """What a key of a version before is called now.

    Args:
        key: the key.

    Returns:
        The end of a message; None for any other key.
    """
    for old, new in _RENAMED_KEYS.items():
        if key == old or key.startswith(f"{old}."):
            return f"{old} is called {new} now"
    return None
