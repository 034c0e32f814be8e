"""Finished runs of every kind, read back from their folders."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_runner.errors import ConfigError
from kd_runner.runtime.files import read_json
from kd_runner.runtime.flatten import flatten
from kd_runner.runtime.run_folder import RunFolder

_RUN_FILES = ("metrics.json", "status.json", "config.yaml", ".hydra")
_COSTS = ("parameters", "macs", "weights_bytes", "torch_ms", "onnxruntime_ms", "steps", "seconds")


@dataclass(frozen=True)
class Run:
    """One network, trained or measured once.

    Attributes:
        folder: where the run lies.
        experiment: name of the experiment.
        scale: `mini` or `full`.
        monitor: name of the metric that counts.
        arm: `teacher`, `undistilled`, `distilled`, or the name of a comparison's arm or chain's stage.
        seed: None for what no seed changes.
        settings: the configuration, `a.b.c` to value.
        metrics: name to value; per class `kind/class`.
        costs: what is known of parameters, macs, weights_bytes, torch_ms, onnxruntime_ms, steps, seconds.
        weights: how the weights were chosen, see `comparison.weights_sentence`; empty where unknown.
    """

    folder: Path
    experiment: str
    scale: str
    monitor: str
    arm: str
    seed: int | None
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    costs: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        return self.metrics[self.monitor]


@dataclass(frozen=True)
class Unread:
    """A folder that gave no run, and why."""

    folder: Path
    reason: str


class _NoRun(ValueError):
    """The folder holds no measured network."""


def collect(paths: Iterable[str | Path]) -> tuple[list[Run], list[Unread]]:
    """Read runs, comparisons, chains, sweeps, and folders of any of those.

    Args:
        paths: the folders; those inside are searched down to the first that holds a run's files.

    Returns:
        The runs, each once, and the folders that could not be read, with the reasons.
    """
    runs: dict[tuple[Path, str, int | None], Run] = {}
    unread: dict[Path, Unread] = {}
    for path in paths:
        for folder in _run_folders(Path(path)):
            try:
                for run in _read(folder):
                    runs[run.folder.resolve(), run.arm, run.seed] = run
            except (_NoRun, ConfigError) as error:
                unread[folder.resolve()] = Unread(folder, str(error))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, OmegaConfBaseException) as error:
                unread[folder.resolve()] = Unread(folder, f"unreadable: {type(error).__name__}: {error}")
    return list(runs.values()), list(unread.values())


def _run_folders(folder: Path) -> Iterator[Path]:
    inside = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if any((folder / name).exists() for name in _RUN_FILES) or not inside:
        yield folder
        return
    for part in inside:
        if not part.name.startswith("."):
            yield from _run_folders(part)


def _read(folder: Path) -> Iterator[Run]:
    """The runs of one folder. Metrics count, whatever a later stage such as the export did."""
    if not folder.exists():
        raise _NoRun("no such folder")
    if (folder / "metrics.json").is_file():
        yield from read_folder(folder, read_json(folder / "metrics.json"))
        return
    status = RunFolder(folder).read_status()
    if status.get("status") == "failed":
        raise _NoRun(f"failed: {status['error']}")
    if (folder / "config.yaml").is_file():
        raise _NoRun("not finished")
    raise _NoRun("refused at its start" if (folder / ".hydra").is_dir() else "holds no run")


def read_folder(folder: Path, result: Mapping[str, Any]) -> Iterator[Run]:
    """The runs of an ended folder.

    Args:
        folder: a training, evaluation, comparison or chain.
        result: what its `metrics.json` holds.

    Returns:
        The runs: one for a training, one per role for an evaluation, the teacher and one per arm and seed for a
        comparison or chain.

    Raises:
        ValueError: nothing was measured in the folder, its experiment is not known, or an arm has not one result per
            seed.
        KeyError: the result or the configuration lacks an entry.
        FileNotFoundError: the folder holds no configuration.
    """
    if "arms" not in result and "metrics" not in result:
        raise _NoRun("nothing was measured in it (task=export?)")
    settings = _settings(folder)
    common: dict[str, Any] = {
        "experiment": str(result.get("experiment") or _experiment(folder)),
        "scale": result["scale"],
        "monitor": settings["monitor"],
        "weights": result.get("weights") or {},
    }
    if "arms" in result:
        yield from _comparison(folder, result, settings, common)
    elif any(isinstance(value, dict) for value in result["metrics"].values()):
        for role, metrics in result["metrics"].items():
            yield Run(folder, **common, arm=f"{role}, evaluated", seed=None, settings=settings, metrics=metrics)
    else:
        arm = "distilled" if settings["kd.enabled"] else "undistilled"
        if settings["task._target_"].endswith(".train_teacher"):
            arm = "teacher, trained"
        yield Run(folder, **common, arm=arm, seed=result["seed"], settings=settings, metrics=result["metrics"],
                  costs=_costs(result))  # fmt: skip


def _comparison(
    folder: Path, result: Mapping[str, Any], settings: dict[str, Any], common: dict[str, Any]
) -> Iterator[Run]:
    """task=compare and task=assistant_chain: the teacher, and every arm and seed, each with a folder of its own."""
    costs = result.get("costs", {})
    yield Run(folder, **{**common, "weights": {}}, arm="teacher", seed=None, settings=settings,
              metrics=result["teacher"], costs=_costs(costs.get("teacher", {})))  # fmt: skip
    for arm, metrics in result["arms"].items():
        arm_costs = _costs(costs.get(arm, costs.get("student", {})))
        arm_costs |= {key: result[key][arm] for key in ("steps", "seconds") if key in result}
        for seed, values in zip(result["seeds"], metrics, strict=True):
            run_folder = folder / f"seed{seed}_{arm}"
            own = _settings(run_folder) if run_folder.is_dir() else {**settings, "seed": seed}
            yield Run(run_folder, **common, arm=arm, seed=seed, settings=own, metrics=values, costs=arm_costs)


def _costs(result: Mapping[str, Any]) -> dict[str, float]:
    return {name: result[name] for name in _COSTS if name in result}


def _settings(folder: Path) -> dict[str, Any]:
    """The configuration of a run: the resolved one that training writes, else the composed one that Hydra writes."""
    file = folder / "config.yaml"
    cfg = OmegaConf.load(file if file.is_file() else folder / ".hydra" / "config.yaml")
    try:
        content = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:
        content = OmegaConf.to_container(cfg)
    return flatten(content)


def _experiment(folder: Path) -> str:
    """The experiment that Hydra noted as chosen, in the folder or one above it."""
    for parent in (folder, *folder.resolve().parents):
        file = parent / ".hydra" / "hydra.yaml"
        if file.is_file():
            return str(OmegaConf.load(file).hydra.runtime.choices.experiment)
    raise _NoRun("no .hydra/hydra.yaml in it or above it says which experiment it is")
