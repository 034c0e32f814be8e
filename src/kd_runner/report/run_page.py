"""report.md of one run."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kd_runner.pruning.report import table
from kd_runner.report.tables import markdown


def run_page(cfg: DictConfig, result: dict[str, Any], folder: Path) -> str:
    """What was run, what it reached, what it costs."""
    metrics = result["metrics"]
    facts: list[list[Any]] = [["", "value"], ["scale", result["scale"]], ["seed", result["seed"]]]
    facts += [["optimizer steps", result["steps"]], ["seconds", round(result["seconds"])]]
    facts += [[name, value] for name, value in metrics.items() if "/" not in name]
    facts += [["parameters", result["parameters"]], [f"multiply-adds at {_sizes(result)}", result["macs"]]]
    facts += [["weights, MB", result["weights_bytes"] / 1e6]]
    if onnx := result.get("onnx"):
        facts += [
            ["ONNX, MB", onnx["bytes"] / 1e6],
            ["ONNX dynamic axes", ", ".join(onnx["dynamic"]) or "none"],
            ["ONNX against torch, largest error", f"{onnx['max_error']:.1e}"],
            ["ONNX against torch, same class", f"{onnx['agreement']:.4%}"],
        ]
    if int8 := result.get("int8"):
        facts += [["INT8 ONNX, MB", int8["bytes"] / 1e6]]
        facts += [
            [f"{kind} ONNX, {result['monitor']}", values[result["monitor"]]] for kind, values in int8["metrics"].items()
        ]
    parts = [["class", *sorted({n.split("/")[0] for n in metrics if "/" in n})]]
    classes = dict.fromkeys(n.split("/", 1)[1] for n in metrics if "/" in n)
    parts += [[name, *(metrics.get(f"{kind}/{name}") for kind in parts[0][1:])] for name in classes]
    sections = [f"# {folder.name}", markdown(facts)]
    if len(parts) > 1:
        sections += ["## Per class", markdown(parts)]
    if result.get("pruning"):
        sections += ["## Pruning", table(result["pruning"]["before"], result["pruning"]["after"])]
    if (folder / "pictures.png").exists():
        sections += ["![truth, teacher and student](pictures.png)"]
    sections += ["The settings are in `config.yaml`; curves: `tensorboard --logdir` this folder."]
    return "\n\n".join(sections) + "\n"


def _sizes(result: dict[str, Any]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in result["input"].values())
