"""Unknown keys: Hydra merges a misspelt one into an open part of the configuration in silence; we do not."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from kd_runner.config.entries import GROUPS
from kd_runner.errors import ConfigError, nearest
from kd_runner.runtime.flatten import flatten

# Groups whose files only adjust what other groups define.
_ADJUSTING = ("experiment", "variant")
# Arguments of the Trainer that the runner gives: key -> where to say it instead.
_GIVEN_BY_RUNNER = {
    "callbacks": "choose callbacks=[...]", "logger": "choose logger=...", "default_root_dir": "give hydra.run.dir=...",
    "fast_dev_run": "task=check tries one step", "barebones": "take logger=none export=none",
    **dict.fromkeys(
        ("plugins", "num_sanity_val_steps", "use_distributed_sampler", "enable_model_summary", "enable_progress_bar"),
        "take it away",
    ),
}  # fmt: skip
# Mappings whose keys are the user's own.
_OPEN = (
    "teacher.features", "student.features", "teacher.inputs", "student.inputs", "teacher.train_inputs",
    "student.train_inputs", "teacher.checkpoint_keys.rename", "student.checkpoint_keys.rename", "task.arms",
    "task.stages", "layer_decay", "teacher.pretrained", "student.pretrained", "teacher.feature_transforms",
    "student.feature_transforms", "teacher.input_transforms", "student.input_transforms",
)  # fmt: skip
# What the runner reads of a model. A model file of one's own may be plain.
_NET = {
    *("net", "inputs", "train_inputs", "input_transforms", "features", "feature_transforms"),
    *("checkpoint", "checkpoint_keys", "channels_last", "pretrained"),
}
_NETS = {"teacher": _NET | {"fast"}, "student": _NET | {"init", "trained"}}


def paths(node: Any, prefix: str = "") -> set[str]:
    """Every key of a nested dict, dotted: of mappings and of values.

    Args:
        node: the dict.
        prefix: key of the dict itself.

    Returns:
        The keys.
    """
    keys = set()
    if isinstance(node, dict):
        for key, part in node.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            keys |= {path} | paths(part, path)
    return keys


def check(cfg: DictConfig) -> None:
    """Check that every key is known.

    Args:
        cfg: the composed configuration.

    Raises:
        ConfigError: a key that nothing reads.
    """
    for role, known in _NETS.items():
        check_known(role, cfg[role], known)
        check_known(f"{role}.checkpoint_keys", cfg[role].checkpoint_keys or (), {"strip", "rename", "drop", "convert"})
    for name, hint in _GIVEN_BY_RUNNER.items():
        if name in cfg.trainer:
            raise ConfigError(f"trainer.{name}: the runner gives it; {hint}")
    if cfg.layer_decay is not None:
        check_known("layer_decay", cfg.layer_decay, {"blocks", "decay", "module"})
        for name in ("blocks", "decay"):
            if name not in cfg.layer_decay:
                raise ConfigError(f"layer_decay.{name} is missing, e.g. layer_decay={{blocks:backbone,decay:0.9}}")
    for group, fields in {"loss": {"weight", "inputs", "fn"}, "metric": {"inputs", "fn"}}.items():
        for name, node in cfg[group].items():
            check_known(f"{group}.{name}", node, fields)
    if GlobalHydra.instance().is_initialized() and HydraConfig.initialized():
        _check_composed(cfg)


def check_known(key: str, node: Iterable[Any], known: set[str]) -> None:
    """Check the keys of a node.

    Args:
        key: the node's own key, for messages.
        node: its keys.
        known: the right ones.

    Raises:
        ConfigError: a key of the node is not among the known ones.
    """
    for name in sorted({str(part) for part in node} - known):
        raise ConfigError(f"{key}.{name}: no such key.{nearest(name, known)}")


def _check_composed(cfg: DictConfig) -> None:
    """Keys that an experiment or the command line sets must exist in the groups that are chosen."""
    known = _known_keys()
    content = OmegaConf.to_container(cfg)
    composed = paths(content)
    called = {path for path in composed if path.endswith("._target_")}
    for path in sorted(composed - known):
        parents = [path.rsplit(".", count)[0] for count in range(1, path.count(".") + 1)]
        if any(f"{parent}._target_" in called for parent in parents):
            continue  # an argument: check_call knows them
        if any(path.startswith(f"{root}.") for root in _OPEN):
            continue
        group, _, rest = path.partition(".")
        if group in GROUPS and rest and f"{group}.{rest.split('.')[0]}" not in known:
            continue  # a whole entry of the experiment's own
        if f"${{{path}}}" in str(content) or any(f"${{{parent}}}" in str(content) for parent in parents):
            continue  # another value refers to it
        if any(f"{path}._target_" == other for other in called):
            continue  # an object, where the group has null
        siblings = {other for other in known if other.count(".") == path.count(".")}
        raise ConfigError(f"{path}: no such key.{nearest(path, siblings)}")


def _known_keys() -> frozenset[str]:
    """The keys of the chosen groups, before experiment and variant adjust them."""
    hydra = HydraConfig.get()
    overrides = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath")]
    overrides.append("experiment=none")
    for group, choice in hydra.runtime.choices.items():
        root = group.lstrip("/").partition("/")[0].partition("@")[0]
        if root not in (*_ADJUSTING, "hydra") and choice is not None:
            overrides.append(f"{group}={choice if isinstance(choice, str) else '[' + ','.join(choice) + ']'}")
    return _composed_keys(tuple(overrides), tuple(source.path for source in hydra.runtime.config_sources))


@cache  # composing takes half a second, and the arms of a comparison have the same groups
def _composed_keys(overrides: tuple[str, ...], sources: tuple[str, ...]) -> frozenset[str]:
    """The keys of a configuration that these words make of the files in these folders."""
    from hydra import compose

    words = list(overrides)
    while True:
        try:
            return frozenset(paths(OmegaConf.to_container(compose("config", overrides=words))))
        except ConfigCompositionException as error:
            # A group that the experiment or variant brings with it.
            brought = re.search(r"Could not override '(.+?)'", str(error))
            kept = [word for word in words if brought is None or not word.startswith(f"{brought[1]}=")]
            if len(kept) == len(words):
                raise
            words = kept


def check_missing(cfg: DictConfig) -> None:
    """Check that all mandatory values are given.

    Args:
        cfg: the composed configuration.

    Raises:
        ConfigError: a value that must be given is still `???`.
    """
    missing = sorted(path for path, value in flatten(OmegaConf.to_container(cfg)).items() if value == "???")
    if missing:
        hint = " (scale=full reads real data from there)" if "data.root" in missing else ""
        raise ConfigError(f"{missing[0]} is not set; give {missing[0]}=...{hint}")
