"""Finished runs of every kind, read back from their folders."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kd_runner.runtime.files import read_json
from kd_runner.runtime.flatten import flatten

_MARKS = ("metrics.json", "failed.json", "config.yaml", ".hydra")


@dataclass(frozen=True)
class Run:
    """One net, trained or measured once.

    Attributes:
        arm: what kind it is: `teacher`, `undistilled`, `distilled`, or the name of a comparison's arm or chain's stage.
        seed: None for what no seed changes.
        settings: the configuration, `a.b.c` to value.
        metrics: name to value; per class `kind/class`.
        costs: what is known of parameters, macs, weights_bytes, torch_ms, onnxruntime_ms, steps, seconds.
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

    @property
    def score(self) -> float:
        return self.metrics[self.monitor]


@dataclass(frozen=True)
class Unread:
    """A folder that gave no run, and why."""

    folder: Path
    reason: str


def collect(paths: Iterable[str | Path]) -> tuple[list[Run], list[Unread]]:
    """Runs, comparisons, chains, sweeps, and folders of any of those. What cannot be read is named, the rest read."""
    runs: dict[tuple[Path, str, int | None], Run] = {}
    unread: dict[Path, Unread] = {}
    for path in paths:
        for folder in _run_folders(Path(path)):
            try:
                for run in _read(folder):
                    runs[run.folder.resolve(), run.arm, run.seed] = run
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                reason = f"{error}" if isinstance(error, _Unfit) else f"not to be read: {type(error).__name__}: {error}"
                unread[folder.resolve()] = Unread(folder, reason)
    return list(runs.values()), list(unread.values())


class _Unfit(ValueError):
    """The folder holds no measured net."""


def _run_folders(folder: Path) -> Iterator[Path]:
    inside = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if any((folder / mark).exists() for mark in _MARKS) or not inside:
        yield folder
        return
    for part in inside:
        if not part.name.startswith("."):
            yield from _run_folders(part)


def _read(folder: Path) -> Iterator[Run]:
    if not folder.exists():
        raise _Unfit("no such folder")
    if (folder / "failed.json").is_file():
        raise _Unfit(f"failed: {read_json(folder / 'failed.json')['error']}")
    if not (folder / "metrics.json").is_file():
        begun = (folder / "config.yaml").is_file()
        known = begun or (folder / ".hydra").is_dir()
        raise _Unfit("not finished" if begun else "refused at its start" if known else "holds no run")
    result, settings = read_json(folder / "metrics.json"), _settings(folder)
    if not {"metrics", "arms"} & result.keys():
        raise _Unfit("nothing was measured in it (task=export?)")
    told = {"experiment": _experiment(folder), "scale": result["scale"], "monitor": settings["monitor"]}
    if "arms" in result:
        yield from _comparison(folder, result, settings, told)
    elif any(isinstance(value, dict) for value in result["metrics"].values()):
        for role, metrics in result["metrics"].items():
            yield Run(folder, **told, arm=f"{role}, evaluated", seed=None, settings=settings, metrics=metrics)
    else:
        kind = "distilled" if settings["kd.enabled"] else "undistilled"
        arm = "teacher, trained" if settings["task._target_"].endswith(".train_teacher") else kind
        yield Run(folder, **told, arm=arm, seed=result["seed"], settings=settings, metrics=result["metrics"],
                  costs=_costs(result))  # fmt: skip


def _comparison(folder: Path, result: Any, settings: dict[str, Any], told: dict[str, Any]) -> Iterator[Run]:
    """task=compare and task=assistant_chain: the teacher, and every arm and seed, each with a folder of its own."""
    costs = result.get("costs", {})
    yield Run(folder, **told, arm="teacher", seed=None, settings=settings, metrics=result["teacher"],
              costs=_costs(costs.get("teacher", {})))  # fmt: skip
    for arm, metrics in result["arms"].items():
        measured = _costs(costs.get(arm, costs.get("student", {})))
        measured |= {key: result[key][arm] for key in ("steps", "seconds") if key in result}
        for seed, values in zip(result["seeds"], metrics, strict=True):
            place = folder / f"seed{seed}_{arm}"
            own = _settings(place) if place.is_dir() else {**settings, "seed": seed}
            yield Run(place, **told, arm=arm, seed=seed, settings=own, metrics=values, costs=measured)


def _costs(result: Mapping[str, Any]) -> dict[str, float]:
    names = ("parameters", "macs", "weights_bytes", "torch_ms", "onnxruntime_ms", "steps", "seconds")
    return {name: result[name] for name in names if name in result}


def _settings(folder: Path) -> dict[str, Any]:
    return flatten(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))


def _experiment(folder: Path) -> str:
    """Hydra's note of what was chosen, in the folder or one above it."""
    for place in (folder, *folder.resolve().parents):
        if (place / ".hydra" / "hydra.yaml").is_file():
            return str(OmegaConf.load(place / ".hydra" / "hydra.yaml").hydra.runtime.choices.experiment)
    raise _Unfit("no .hydra/hydra.yaml in it or above it says which experiment it is")
