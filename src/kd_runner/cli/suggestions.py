"""The nearest right word, where Hydra refuses one of the command line."""

from collections.abc import Iterator

from hydra.errors import HydraException
from omegaconf import OmegaConf

from kd_runner.cli import help
from kd_runner.config.compose import compose
from kd_runner.config.keys import paths
from kd_runner.config.location import CONF
from kd_runner.errors import nearest


def suggestions(words: list[str], config_dirs: list[str]) -> Iterator[str]:
    """A line for every word whose key, group or choice the configuration does not know.

    Args:
        words: of the command line.
        config_dirs: the user's own folders of yaml files (`--config-dir`).

    Yields:
        The lines.
    """
    groups = help.groups([str(CONF), *config_dirs])
    chosen = []
    for word in words:
        group, _, value = word.partition("=")
        if (group := group.lstrip("+~")) not in groups:
            continue
        wrong = [choice for choice in value.strip("[]").split(",") if choice not in groups[group]]
        chosen += [] if wrong else [word]
        for choice in wrong:
            yield f"{group}={choice}: no such choice.{nearest(choice, groups[group])}"
    keys = _keys(config_dirs, chosen)
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or key[:1] in "-+~" or key in groups.keys() | keys or key.startswith("hydra"):
            continue
        siblings = {k for k in keys | groups.keys() if (k.count("."), k.count("/")) == (key.count("."), key.count("/"))}
        yield f"{key}: no such key.{nearest(key, siblings)} To add a key of your own write +{word}"


def _keys(config_dirs: list[str], chosen: list[str]) -> set[str]:
    """Keys of the configuration with these groups."""
    try:
        return paths(OmegaConf.to_container(compose(chosen, config_dirs)))
    except HydraException:  # a sweep over choices
        return paths(OmegaConf.to_container(compose()))
