"""A progress bar on a terminal; none in a log."""

import logging
import sys
import warnings

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import RichProgressBar


def progress() -> list[Callback]:
    """Callbacks that show progress on the terminal."""
    return [RichProgressBar(leave=False)] if sys.stdout.isatty() else []


def quiet_lightning() -> None:
    """Leave out Lightning's remarks to developers: the callbacks report what a user needs."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # what trainer.profiler=simple prints
    news = ("not resumable", "smaller than the logging interval", "does not have many workers", "sync_dist=True",
            "in eval mode at the start", "exists and is not empty")  # fmt: skip
    for words in news:
        warnings.filterwarnings("ignore", f".*{words}")
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
    # Deterministic torch also fills every new tensor with nan: a debugging aid that costs 4 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
