"""A progress bar where somebody watches; nothing in a log."""

import sys

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import RichProgressBar


def progress() -> list[Callback]:
    return [RichProgressBar(leave=False)] if sys.stdout.isatty() else []
