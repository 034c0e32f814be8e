"""The nearest right word, where Hydra refuses one of the command line."""

import sys
from collections.abc import Iterator
from pathlib import Path

from kd_runner.errors import nearest


def suggestions(words: list[str], conf: str, own: list[str]) -> Iterator[str]:
    """A line for every word whose key, group or choice the configuration does not know.

    Args:
        conf, own: the folder of yaml files that ships, and the user's (`--config-dir`).
    """
    groups = _groups([conf, *own])
    chosen = []
    for word in words:
        group, _, value = word.partition("=")
        if (group := group.lstrip("+~")) not in groups:
            continue
        wrong = [choice for choice in value.strip("[]").split(",") if choice not in groups[group]]
        chosen += [] if wrong else [word]
        for choice in wrong:
            yield f"{group}={choice}: no such choice.{nearest(choice, groups[group])}"
    keys = _keys(conf, own, chosen)
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or key[:1] in "-+~" or key in groups.keys() | keys or key.startswith("hydra"):
            continue
        siblings = {k for k in keys | groups.keys() if (k.count("."), k.count("/")) == (key.count("."), key.count("/"))}
        yield f"{key}: no such key.{nearest(key, siblings)} To add a key of your own write +{word}"


def _groups(folders: list[str]) -> dict[str, set[str]]:
    """Group, as `pruning/score`, to its choices."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in Path(folder).glob("*/**/*.yaml"):
            found.setdefault(file.parent.relative_to(folder).as_posix(), set()).add(file.stem)
    return found


def _keys(conf: str, own: list[str], chosen: list[str]) -> set[str]:
    """Keys of the configuration with these groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from kd_runner.config.validate import paths

    GlobalHydra.instance().clear()
    with initialize_config_dir(conf, version_base="1.3"):
        found = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in own)}]"]
        try:
            return paths(OmegaConf.to_container(compose("config", overrides=[*found, *chosen])))
        except HydraException:  # a sweep over choices
            return paths(OmegaConf.to_container(compose("config")))


def print_suggestions(words: list[str], conf: str, own: list[str]) -> None:
    for line in suggestions(words, conf, own):
        print(line, file=sys.stderr)
