"""The configuration against types, ranges, signatures and feature names: builds nothing, needs no data."""

from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_runner.config import calls, entries, hardware, keys, ranges, recipes, unread
from kd_runner.config.type_errors import check_types
from kd_runner.errors import ConfigError, nearest


def check(cfg: DictConfig, set_by_hand: Iterable[str] | None = None) -> None:
    """Raises for what cannot work.

    Args:
        cfg: the configuration, after `entries.clean`.
        set_by_hand: keys that must have an effect; None for those of the command line.

    Raises:
        ConfigError: an unknown key, a key without effect, a value that is missing or out of range, a `_target_` that
            is not there or cannot be called with these arguments, an input that no feature gives.
    """
    check_types(cfg)
    keys.check_missing(cfg)
    try:
        content = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from error
    entries.check_choices(cfg)
    ranges.check(cfg)
    keys.check(cfg)
    recipes.check_pretrained(cfg)
    calls.locate(cfg.task._target_, "task")
    for key, node in calls.targets(content):
        calls.check_call(key, node)
    hardware.check_precision(cfg)
    _check_inputs(cfg)
    unread.check(cfg, unread.words() if set_by_hand is None else set_by_hand)


def _check_inputs(cfg: DictConfig) -> None:
    """Every input of a loss or metric is a feature of its net."""
    from kd_runner.distillation.inputs import InputSpec

    for group in ("loss", "metric"):
        for name, node in cfg[group].items():
            try:
                spec = InputSpec(OmegaConf.to_container(node.inputs))
            except ConfigError as error:
                raise ConfigError(f"{group}.{name}.inputs: {error}") from error
            for role in ("student", "teacher"):
                for feature in sorted(set(spec.required_features(role)) - set(cfg[role].features)):
                    hint = nearest(feature, cfg[role].features)
                    raise ConfigError(f"{group}.{name}.inputs: {role}.features has no {feature!r}.{hint}")
