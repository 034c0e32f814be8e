"""The nearest right word, where Hydra refuses one of the command line."""

import sys
from collections.abc import Iterator

from kd_runner.errors import nearest


def suggestions(words: list[str], conf: str) -> Iterator[str]:
    """A line for every word whose key, group or choice the configuration does not know."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from kd_runner.checks import paths

    GlobalHydra.instance().clear()
    with initialize_config_dir(conf, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        groups = set(loader.list_groups(""))
        chosen = []
        for word in words:
            group, _, value = word.partition("=")
            if (group := group.lstrip("+~")) not in groups:
                continue
            options = loader.get_group_options(group)
            wrong = [choice for choice in value.strip("[]").split(",") if choice not in options]
            chosen += [] if wrong else [word]
            for choice in wrong:
                yield f"{group}={choice}: no such choice.{nearest(choice, options)}"
        try:
            keys = paths(OmegaConf.to_container(compose("config", overrides=chosen)))
        except HydraException:  # a sweep over choices
            keys = paths(OmegaConf.to_container(compose("config")))
        for word in words:
            key, equals, _ = word.partition("=")
            if not equals or key[:1] in "-+~" or key in groups | keys or key.startswith("hydra"):
                continue
            siblings = {other for other in keys | groups if other.count(".") == key.count(".")}
            yield f"{key}: no such key.{nearest(key, siblings)} To add a key of your own write +{word}"


def print_suggestions(words: list[str], conf: str) -> None:
    for line in suggestions(words, conf):
        print(line, file=sys.stderr)
