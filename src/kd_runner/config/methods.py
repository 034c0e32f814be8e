"""Distillation methods by name: which losses they switch on beside the experiment's task losses."""

from dataclasses import dataclass, field
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from kd_runner.distillation.inputs import InputSpec
from kd_runner.errors import ConfigError, nearest

_FIELDS = ("loss", "set")


@dataclass(frozen=True)
class Method:
    """A distillation method of a league: the losses it switches on and the settings it changes.

    Attributes:
        name: its name in `methods`.
        losses: names of the files of `loss/` that it switches on.
        settings: keys of the configuration that it sets, `a.b.c` to value.
    """

    name: str
    losses: list[str]
    settings: dict[str, Any] = field(default_factory=dict)


def find(name: str) -> Method:
    """The method that `method/NAME.yaml` describes, else the one loss of `loss/NAME.yaml`, in any folder of yaml files.

    Args:
        name: of the file.

    Returns:
        The method.

    Raises:
        ConfigError: there is neither, or the file is none of a method.
    """
    loader: Any = GlobalHydra.instance().config_loader()
    groups = {group: loader.get_group_options(group) for group in ("method", "loss")}
    if name not in groups["method"]:
        if name in groups["loss"]:
            return Method(name, [name])
        known = sorted({*groups["method"], *groups["loss"]})
        raise ConfigError(
            f"methods: there is no method/{name}.yaml and no loss/{name}.yaml, here or in a folder of --config-dir."
            f"{nearest(name, known)}"
        )
    content: Any = OmegaConf.to_container(loader.repository.load_config(f"method/{name}").config)
    losses = content.get("loss") if isinstance(content, dict) else None
    if not losses or not isinstance(losses, list):
        raise ConfigError(f"method/{name}.yaml: loss is not set; it lists files of loss/, e.g. loss: [kl_logits]")
    for key in content:
        if key not in _FIELDS:
            raise ConfigError(f"method/{name}.yaml: no such key {key!r}; it has loss and set.{nearest(key, _FIELDS)}")
    for loss in losses:
        if loss not in groups["loss"]:
            raise ConfigError(f"method/{name}.yaml: there is no loss/{loss}.yaml.{nearest(str(loss), groups['loss'])}")
    return Method(name, [str(loss) for loss in losses], dict(content.get("set") or {}))


def task_losses(cfg: DictConfig) -> list[str]:
    """Losses of a configuration that read no teacher.

    Args:
        cfg: the composed configuration.

    Returns:
        Their names.
    """
    return [
        str(name)
        for name, node in cfg.loss.items()
        if "teacher" not in InputSpec(OmegaConf.to_container(node.inputs)).sources
    ]


def configuration(method: Method, kept: list[str]) -> DictConfig:
    """The command's configuration, with the losses of a method in place of the experiment's own.

    What the experiment sets in an entry of `loss` counts for the method's as well.

    Args:
        method: the method.
        kept: losses that stay, see `task_losses`.

    Returns:
        The configuration.

    Raises:
        ConfigError: there is no command, because the task was called from Python.
    """
    if not HydraConfig.initialized():
        raise ConfigError("task=league composes a configuration for each method: start it from the command line")
    hydra = HydraConfig.get()
    names = [*kept, *(name for name in method.losses if name not in kept)]
    words = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath")]
    words += [word for word in hydra.overrides.task if not _is_of_other_loss(word, names)]
    cfg = compose("config", overrides=[*words, f"loss=[{','.join(names)}]"])
    with open_dict(cfg):
        for name in set(cfg.loss) - set(names):
            del cfg.loss[name]  # what the experiment sets in an entry that is not chosen
    return cfg


def _is_of_other_loss(word: str, names: list[str]) -> bool:
    """Whether a word of the command line chooses losses, or sets something in one that is not chosen."""
    key = word.lstrip("+~").partition("=")[0]
    group, _, rest = key.partition(".")
    return group == "loss" and rest.partition(".")[0] not in names
