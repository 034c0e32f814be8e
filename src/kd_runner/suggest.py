"""The nearest right word, where Hydra refuses one of the command line."""

import sys
from collections.abc import Iterator

from kd_runner.errors import nearest


def suggestions(words: list[str], conf: str) -> Iterator[str]:
    """A line for every word whose key, group or choice the configuration does not know."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from kd_runner.checks import paths

    GlobalHydra.instance().clear()
    with initialize_config_dir(conf, version_base="1.3"):
        keys = paths(OmegaConf.to_container(compose("config")))
        loader = GlobalHydra.instance().config_loader()
        groups = set(loader.list_groups(""))
        for word in words:
            key, equals, value = word.partition("=")
            if word.startswith("-") or not equals:
                continue
            group = key.lstrip("+~")
            if group in groups:
                options = loader.get_group_options(group)
                for choice in value.strip("[]").split(","):
                    if choice not in options:
                        yield f"{group}={choice}: no such choice.{nearest(choice, options)}"
            elif key[0] not in "+~" and key not in keys and not key.startswith("hydra"):
                siblings = {other for other in keys | groups if other.count(".") == key.count(".")}
                yield f"{key}: no such key.{nearest(key, siblings)} To add a key of your own write +{word}"


def print_suggestions(words: list[str], conf: str) -> None:
    for line in suggestions(words, conf):
        print(line, file=sys.stderr)
