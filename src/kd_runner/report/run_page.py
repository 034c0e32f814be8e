"""report.md of one training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kd_runner.pruning import report as pruning_report
from kd_runner.report.comparison import protocol_sentences, weights_sentence
from kd_runner.report.provenance import network
from kd_runner.report.tables import Table, markdown, without_empty
from kd_runner.report.training_level import untrained_sentence


def run_page(cfg: DictConfig, result: Mapping[str, Any], folder: Path) -> str:
    """What was trained, from which data, what it reaches and costs.

    Args:
        cfg: configuration of the run.
        result: content of its `metrics.json`.
        folder: where the run lies.

    Returns:
        The page, as markdown.
    """
    sections = [f"# {folder.name}", markdown(without_empty([["", "value"], *_facts(cfg, result)]))]
    if result.get("weights"):
        sections.append(weights_sentence(result["weights"]))
    sections += protocol_sentences(result.get("protocols"))
    monitor, level = result["monitor"], result.get("constant_level")
    if (sentence := untrained_sentence(monitor, {"it": result["metrics"][monitor]}, level)) is not None:
        sections.append(sentence)
    classes = _classes(result["metrics"])
    if len(classes) > 1:
        sections += ["## Per class", markdown(classes)]
    if result.get("pruning"):
        table = pruning_report.table(result["pruning"]["before"], result["pruning"]["after"])
        sections += ["## Pruning", table]
    if (folder / "pictures.png").exists():
        sections.append("![ground truth, teacher and student](pictures.png)")
    sections.append("The settings are in `config.yaml`; curves: `tensorboard --logdir` this folder.")
    return "\n\n".join(sections) + "\n"


def _facts(cfg: DictConfig, result: Mapping[str, Any]) -> Table:
    trains_teacher = str(cfg.task.get("_target_", "")).endswith(".train_teacher")
    rows: Table = []
    if trains_teacher:
        rows.append(["trained network", network(cfg, "teacher")])
    else:
        rows.append(["student", network(cfg, "student")])
        rows.append(["teacher", network(cfg, "teacher") if cfg.kd.enabled else "none (kd.enabled=false)"])
    for part, pool in (result.get("data") or {}).items():
        if pool:
            rows.append([f"{part} data", f"{pool['samples']:,} samples of {pool['source']}"])
    rows += [["scale", result["scale"]], ["seed", result["seed"]], ["optimizer steps", result["steps"]]]
    rows.append(["seconds", round(result["seconds"])])
    rows += [[name, value] for name, value in result["metrics"].items() if "/" not in name]
    sizes = ", ".join("x".join(map(str, shape)) for shape in result["input"].values())
    rows += [["parameters", result["parameters"]], [f"multiply-adds at {sizes}", result["macs"]]]
    rows.append(["weights, MB", result["weights_bytes"] / 1e6])
    return [*rows, *_onnx(result.get("onnx")), *_int8(result.get("int8"), result["monitor"])]


def _onnx(onnx: Mapping[str, Any] | None) -> Table:
    if not onnx:
        return []
    error, agreement = onnx["max_error"], onnx["agreement"]
    return [
        ["ONNX, MB", onnx["bytes"] / 1e6],
        ["ONNX dynamic axes", ", ".join(onnx["dynamic"]) or "none"],
        ["ONNX against torch, largest error", None if error is None else f"{error:.1e}"],
        ["ONNX against torch, same class", None if agreement is None else f"{agreement:.4%}"],
    ]


def _int8(int8: Mapping[str, Any] | None, monitor: str) -> Table:
    if not int8:
        return []
    scores = [[f"{kind} ONNX, {monitor}", metrics[monitor]] for kind, metrics in int8["metrics"].items()]
    return [["INT8 ONNX, MB", int8["bytes"] / 1e6], *scores]


def _classes(metrics: Mapping[str, float]) -> Table:
    """One line per class, one column per kind of metric; classes without any value are left out."""
    per_class = [name.split("/", 1) for name in metrics if "/" in name]
    kinds = sorted({kind for kind, _ in per_class})
    labels = dict.fromkeys(label for _, label in per_class)
    return without_empty([["class", *kinds], *([x, *(metrics.get(f"{kind}/{x}") for kind in kinds)] for x in labels)])
