"""The configuration against signatures and wiring: builds nothing, needs no data, takes a moment."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_runner.distillation.inputs import InputSpec
from kd_runner.errors import ConfigError, nearest

# Groups whose files only adjust what other groups define.
_ADJUSTING = ("experiment", "variant", "variant@_global_")
# Mappings whose keys are the user's own.
_OPEN = ("teacher.features", "student.features", "teacher.inputs", "student.inputs", "task.arms", "task.stages")
# Groups of which several files are chosen, and what makes an entry of them whole.
_LISTS = {"loss": "fn._target_", "metric": "fn._target_", "callbacks": "_target_"}
# What the runner reads of a model.
_MODEL = {"net", "inputs", "train_inputs", "features", "checkpoint", "checkpoint_keys", "channels_last"}
_MODELS = {"teacher": _MODEL, "student": _MODEL | {"init", "trained"}}
_CALL_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def check(cfg: DictConfig) -> None:
    """Raise for what cannot work.

    Raises:
        ConfigError: an unknown key, a value that is missing, a `_target_` that is not there or cannot be called with
            these arguments, a wire to a feature that is not defined.
    """
    _check_keys(cfg)
    for role, known in _MODELS.items():
        _check_known(role, cfg[role], known)
        _check_known(f"{role}.checkpoint_keys", cfg[role].checkpoint_keys or (), {"strip", "rename", "drop", "convert"})
    _check_values(cfg)
    content = OmegaConf.to_container(cfg, resolve=True)
    locate(cfg.task._target_, "task")
    for key, node in targets(content):
        check_call(key, node)
    _check_terms(cfg)


def _check_keys(cfg: DictConfig) -> None:
    """Keys that an experiment sets must exist in the groups it chose: a misspelt one would be merged in silence."""
    if not GlobalHydra.instance().is_initialized() or not HydraConfig.initialized():
        return
    known = paths(OmegaConf.to_container(_without_adjustments()))
    ours = paths(OmegaConf.to_container(cfg))
    called = {path for path in ours if path.endswith("._target_")}
    for group, mark in _LISTS.items():
        _check_whole(cfg, group, mark)
    for path in sorted(ours - known):
        parents = [path.rsplit(".", cut)[0] for cut in range(1, path.count(".") + 1)]
        if any(f"{parent}._target_" in called for parent in parents):
            continue  # an argument: check_call knows them
        if any(path.startswith(f"{root}.") for root in _OPEN) or path in _added():
            continue
        group, _, rest = path.partition(".")
        if group in _LISTS and rest and f"{group}.{rest.split('.')[0]}" not in known:
            continue  # a whole entry of the experiment's own
        siblings = {other for other in known if other.count(".") == path.count(".")}
        raise ConfigError(f"{path}: no such key.{nearest(path, siblings)}")


def _check_whole(cfg: DictConfig, group: str, mark: str) -> None:
    """Settings of an experiment for an entry that is not chosen would leave a part of one."""
    entries = cfg.get(group) or {}
    whole = [name for name in entries if OmegaConf.select(entries[name], mark) is not None]
    for name in entries:
        if name not in whole:
            raise ConfigError(
                f"{group}.{name}: no {group} {name!r} is chosen.{nearest(name, whole)} Choose it with {group}=[...], "
                f"or take the setting away with ~{group}.{name}."
            )


def _without_adjustments() -> DictConfig:
    """The configuration of the chosen groups, before experiment and variant adjust it."""
    from hydra import compose

    overrides = ["experiment=none"]
    for group, choice in HydraConfig.get().runtime.choices.items():
        if not group.startswith("hydra/") and group not in _ADJUSTING and choice is not None:
            overrides.append(f"{group}={choice if isinstance(choice, str) else '[' + ','.join(choice) + ']'}")
    return compose("config", overrides=overrides)


def _added() -> set[str]:
    """Keys that the command line adds with `+key=value`, or sets, and those above them."""
    keys = {word.lstrip("+").partition("=")[0] for word in HydraConfig.get().overrides.task}
    return keys | {key.rsplit(".", cut)[0] for key in keys for cut in range(1, key.count(".") + 1)}


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, part in node.items():
            yield from _leaves(part, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def paths(node: Any, prefix: str = "") -> set[str]:
    found = set()
    if isinstance(node, dict):
        for key, part in node.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            found |= {path} | paths(part, path)
    return found


def _check_known(key: str, node: Iterable[Any], known: set[str]) -> None:
    for name in sorted(set(node) - known):
        raise ConfigError(f"{key}.{name}: no such key.{nearest(name, known)}")


def _check_values(cfg: DictConfig) -> None:
    missing = sorted(path for path, value in _leaves(OmegaConf.to_container(cfg)) if value == "???")
    if missing:
        hint = " (scale=full reads real data from there)" if "data.root" in missing else ""
        raise ConfigError(f"{missing[0]} is not set; give {missing[0]}=...{hint}")
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from error
    alpha = cfg.kd.alpha
    if alpha is not None and not 0 <= alpha <= 1:
        raise ConfigError(f"kd.alpha={alpha}: the share of distillation lies in 0..1")
    if cfg.kd.temperature <= 0:
        raise ConfigError(f"kd.temperature={cfg.kd.temperature}: it must be above 0")
    views, map_dtype = cfg.kd.teacher_cache.views, cfg.kd.teacher_cache.map_dtype
    if views is not None and views < 1:
        raise ConfigError(f"kd.teacher_cache.views={views}: at least one, or null for transforms that are not random")
    if map_dtype not in ("float16", "float32"):
        raise ConfigError(f"kd.teacher_cache.map_dtype={map_dtype}: float16 or float32")


def targets(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        for at, part in enumerate(node):
            yield from targets(part, f"{key}[{at}]")
    if isinstance(node, dict):
        if "_target_" in node and key != "task":
            yield key, node
        for name, part in node.items():
            yield from targets(part, f"{key}.{name}" if key else str(name))


def check_call(key: str, node: dict[str, Any]) -> None:
    """Find the class or function, and bind the arguments to its signature."""
    target = locate(node["_target_"], key)
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return  # built in C, without a signature
    given = set(node) - _CALL_KEYS
    kinds = {p.kind for p in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in sorted(given - set(parameters)):
            raise ConfigError(f"{key}.{name}: {node['_target_']} takes no {name!r}.{nearest(name, parameters)}")
    if node.get("_partial_") or node.get("_args_"):
        return
    # These are completed by the runner.
    if key in ("trainer", "logger"):
        return
    for name, parameter in parameters.items():
        positional = parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if positional and parameter.default is inspect.Parameter.empty and name not in given:
            raise ConfigError(f"{key}.{name}: {node['_target_']} needs it")


def locate(path: str, key: str) -> Any:
    """The object of a dotted path, with the nearest name where a part is misspelt."""
    import importlib

    module_path, _, name = path.rpartition(".")
    parts = module_path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name is None or not ".".join(parts).startswith(error.name):
                raise ConfigError(f"{key}._target_: {path} needs the package {error.name!r}") from error
            continue
        for part in [*parts[cut:], name]:
            if not hasattr(found, part):
                raise ConfigError(f"{key}._target_: no {part!r} in {found.__name__}.{nearest(part, _public(found))}")
            found = getattr(found, part)
        return found
    raise ConfigError(
        f"{key}._target_: no module {parts[0]!r} (is its folder the current one, or that of --config-dir?)"
    )


def _public(module: Any) -> list[str]:
    import pkgutil

    inside = [m.name for m in pkgutil.iter_modules(module.__path__)] if hasattr(module, "__path__") else []
    return [name for name in dir(module) if not name.startswith("_")] + inside


def _check_terms(cfg: DictConfig) -> None:
    """Every wire of loss and metric leads to a feature."""
    for group in ("loss", "metric"):
        for name, node in cfg[group].items():
            _check_known(f"{group}.{name}", node, {"weight", "inputs", "fn"})
            spec = InputSpec(OmegaConf.to_container(node.inputs))
            for role in ("student", "teacher"):
                for feature in sorted(set(spec.required_features(role)) - set(cfg[role].features)):
                    hint = nearest(feature, cfg[role].features)
                    raise ConfigError(f"{group}.{name}.inputs: {role}.features has no {feature!r}.{hint}")
