"""The words of the command line: flags, folders, and names of versions before."""

import argparse
import os
from itertools import pairwise

from kd_runner.errors import ConfigError

_FLAGS_WITH_VALUE = (
    ("--config-dir", "-cd"), ("--config-path", "-cp"), ("--config-name", "-cn"), ("--cfg", "-c"), ("--package", "-p"),
)  # fmt: skip

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


def flags_first(words: list[str]) -> list[str]:
    """Put flags before overrides: Hydra's parser takes no flag behind the first override.

    Args:
        words: of the command line.

    Returns:
        The words in that order.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in _FLAGS_WITH_VALUE:
        parser.add_argument(*names, dest=names[0])
    try:
        known, rest = parser.parse_known_args(words)
    except SystemExit:  # a flag without its value, which argparse has said
        raise SystemExit(1) from None
    flags = [part for flag, value in vars(known).items() if value is not None for part in (flag, value)]
    return [*flags, *sorted(rest, key=lambda word: not word.startswith("-"))]


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
