"""Entries of `loss`, `metric` and `callbacks`: the groups of which several files are chosen."""

from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from kd_runner.errors import ConfigError, nearest

# Group to what makes an entry of it whole.
GROUPS = {"loss": "fn._target_", "metric": "fn._target_", "callbacks": "_target_"}


def clean(cfg: DictConfig) -> DictConfig:
    """Remove what counts as not given, in place.

    These are entries and inputs that are null, and what an experiment or its variant sets in an entry that is not
    chosen.

    Args:
        cfg: the composed configuration.

    Returns:
        The same configuration.

    Raises:
        ConfigError: the command line sets something in an entry that is not chosen; an entry whose name no file of
            the group knows; an entry without a function.
    """
    with open_dict(cfg):
        for group in GROUPS:
            entries: Any = cfg.get(group) or {}
            for name in list(entries):
                if entries[name] is None or not _is_chosen(cfg, group, str(name)):
                    del entries[name]
            if group == "callbacks":
                continue
            for node in entries.values():
                inputs: Any = {} if OmegaConf.is_missing(node, "inputs") else node.inputs
                for argument in [key for key, value in inputs.items() if value is None]:
                    del inputs[argument]
    return cfg


def _is_chosen(cfg: DictConfig, group: str, name: str) -> bool:
    """Whether the entry is whole."""
    entries = cfg[group]
    if not OmegaConf.is_dict(entries[name]):
        raise ConfigError(f"{group}.{name}={entries[name]}: expected keys with values, among them {GROUPS[group]}")
    if OmegaConf.select(entries[name], GROUPS[group]) is not None:
        return True
    if not HydraConfig.initialized():  # from Python: nothing says whether it was set by hand
        return False
    in_files = _entries_in_files(group)
    if in_files.get(name) is False:
        raise ConfigError(f"{group}.{name}.{GROUPS[group]} is not set: the dotted name of a class or function")
    set_by_hand = any(word.lstrip("+").startswith(f"{group}.{name}") for word in HydraConfig.get().overrides.task)
    if name in in_files and not set_by_hand:
        return False
    whole = [o for o in entries if OmegaConf.is_dict(entries[o]) and OmegaConf.select(entries[o], GROUPS[group])]
    raise ConfigError(
        f"{group}.{name}: no {group} {name!r} is chosen.{nearest(name, map(str, whole))} Choose it with {group}=[...], "
        f"or take the setting away."
    )


def check_choices(cfg: DictConfig) -> None:
    """Check the choices of `loss`, `metric` and `callbacks`.

    Args:
        cfg: the composed configuration.

    Raises:
        ConfigError: nothing is chosen of a group, or a file twice.
    """
    needed = {
        "loss": "choose at least one, e.g. loss=[task_ce]",
        "metric": "choose at least one; it measures what `monitor` names",
        "callbacks": "choose at least callbacks=[checkpoints], which saves the weights",
    }
    for group, hint in needed.items():
        chosen = _choices(group)
        for choice in chosen:
            if chosen.count(choice) > 1:
                raise ConfigError(f"{group}=[{','.join(chosen)}]: {choice!r} is there twice; name it once")
        for choice in _empty_files(group, chosen):
            raise ConfigError(f"{group}={choice}: its file is empty; it holds an entry, e.g. {choice}: {{...}}")
        if not cfg.get(group):
            raise ConfigError(f"{group}=[]: {hint}")


def _empty_files(group: str, chosen: list[str]) -> list[str]:
    """Those of the chosen files that have no content."""
    loader: Any = GlobalHydra.instance().config_loader() if chosen else None
    files = {choice: loader.repository.load_config(f"{group}/{choice}") for choice in chosen}
    return [choice for choice, file in files.items() if file is not None and not file.config]


def _choices(group: str) -> list[str]:
    """What the command line chooses of a group; empty where it chooses nothing."""
    if not HydraConfig.initialized():
        return []
    parsed = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    chosen = [override.value() for override in parsed if override.key_or_group == group]
    return [str(choice) for choice in chosen[-1]] if chosen and isinstance(chosen[-1], list) else []


def _entries_in_files(group: str) -> dict[str, bool]:
    """Entries in all files of a group, in all folders of yaml files; whether they are whole there."""
    loader: Any = GlobalHydra.instance().config_loader()
    entries: dict[str, bool] = {}
    for option in loader.get_group_options(group):
        try:
            file = loader.repository.load_config(f"{group}/{option}")
        except yaml.YAMLError:
            continue  # a broken file that is not chosen
        content: Any = OmegaConf.create() if file is None else file.config
        for name in content:
            entries[str(name)] = OmegaConf.select(content, f"{name}.{GROUPS[group]}") is not None
    return entries
