"""Where the numbers of a run come from: its data, its networks, and which weights were measured."""

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from kd_runner.data.module import DataModule
from kd_runner.errors import ConfigError
from kd_runner.runtime.files import read_json

# Arguments of a dataset that tell one pool of samples from another.
_NAMING = ("version", "split", "images", "annotations", "first", "count")


def data_pools(cfg: DictConfig, data: DataModule) -> dict[str, dict[str, Any]]:
    """`train`, `unlabeled` (where it is used) and `val`, each with `samples` and `source`.

    Args:
        cfg: configuration of the run.
        data: its data, which counts the samples.

    Returns:
        Name of the pool to its number of `samples` and its `source` (see `source`).
    """
    counts = {"train": data.num_labeled, "unlabeled": data.num_unlabeled, "val": len(cast(Sized, data.val))}
    pools: dict[str, dict[str, Any]] = {}
    for part, samples in counts.items():
        node = OmegaConf.select(cfg, f"data.{part}")
        used = samples > 0 or part != "unlabeled"
        if used and node is not None:
            pools[part] = {"samples": samples, "source": source(node)}
    return pools


def source(node: Any) -> str:
    """A dataset in a few words: its class, and the arguments that choose its samples.

    Args:
        node: configuration of the dataset or of a sampler around it; anything else stands for itself.

    Returns:
        The words, e.g. `VOCSegmentation, split val`.
    """
    content: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(content, Mapping):
        return str(content)
    inner = content.get("samples") or content.get("dataset")
    if isinstance(inner, Mapping) and "_target_" in inner:  # a sampler around the dataset
        content = inner
    words = [f"{key} {content[key]}" for key in _NAMING if content.get(key) is not None]
    name = str(content.get("_target_", "dataset")).rpartition(".")[2]
    return f"{name}, {', '.join(words)}" if words else name


def measured_weights(cfg: DictConfig, chosen: str) -> dict[str, str]:
    """How the measured weights were chosen, for `comparison.weights_sentence`.

    Args:
        cfg: configuration of the run.
        chosen: `best` (by the monitored metric on the validation data) or `last`.

    Returns:
        `chosen`, `monitor` (name of the metric) and `split` (the validation data, in words).
    """
    node = OmegaConf.select(cfg, "data.val")
    split = None if node is None else node.get("split", None)
    name = f"data.val ({source(node)})" if split is None else f"the {split} split"
    return {"chosen": chosen, "monitor": str(cfg.monitor), "split": name}


def protocols(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Metric to its protocol (attribute `protocol`), of those that have one.

    Args:
        metrics: name to the metric object.

    Returns:
        Name of the metric to its protocol, in words.
    """
    return {
        name: metric.protocol for name, metric in metrics.items() if isinstance(getattr(metric, "protocol", None), str)
    }


def recorded_run(file: Path) -> dict[str, Any]:
    """What the run in whose folder a weights file lies recorded of it.

    Args:
        file: the weights.

    Returns:
        Content of `metrics.json`; empty where there is none.
    """
    try:
        content = read_json(file.parent / "metrics.json")
    except (OSError, ConfigError):
        return {}
    return dict(content) if isinstance(content, dict) else {}


def recorded_score(file: Path) -> dict[str, float]:
    """The metric that chose the weights of a file, and its value.

    Args:
        file: the weights.

    Returns:
        One entry; empty where nothing is recorded.
    """
    recorded = recorded_run(file)
    monitor, score = recorded.get("monitor"), recorded.get("score")
    return {str(monitor): float(score)} if monitor is not None and isinstance(score, int | float) else {}


def recorded_weights(file: Path) -> dict[str, str]:
    """How the weights of a file were chosen, as the run in whose folder it lies recorded it.

    Args:
        file: the weights.

    Returns:
        As `measured_weights`; empty where unknown.
    """
    weights = recorded_run(file).get("weights")
    return dict(weights) if isinstance(weights, dict) else {}


def evaluation_sentence(cfg: DictConfig, role: str, file: Path) -> str:
    """Which weights an evaluation has measured, and on which data.

    Args:
        cfg: configuration of the evaluation.
        role: `student` or `teacher`.
        file: its weights.

    Returns:
        Two sentences of markdown.
    """
    weights, split = recorded_weights(file), measured_weights(cfg, "last")["split"]
    if not weights:
        chosen = "how they were chosen is not recorded beside them"
    elif weights["chosen"] == "last":
        chosen = "those after the last step; no checkpoint was selected"
    elif weights["split"] == split:
        chosen = f"the checkpoint with the best {weights['monitor']} on the same split; such a score is optimistic"
    else:
        chosen = f"the checkpoint with the best {weights['monitor']} on {weights['split']}"
    return f"Weights of the {role}: `{file}`, {chosen}. Measured on {split}."


def network(cfg: DictConfig, role: str) -> str:
    """The network of a role in a few words: its class or function, and its weights file.

    Args:
        cfg: configuration of the run.
        role: `student` or `teacher`.

    Returns:
        The words; without the file where the role has no `checkpoint`.
    """
    node = cfg[role]
    name = str(node.net.get("_target_", "network")).rpartition(".")[2]
    return name if node.checkpoint is None else f"{name}, weights {Path(str(node.checkpoint)).name}"
