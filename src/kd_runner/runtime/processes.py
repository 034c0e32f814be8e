"""Functions in processes of their own."""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch


def exit_with_parent() -> None:
    """End this process when the one that started it is gone, even by kill -9: none is left writing."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_parallel(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """Call `function` with each of `calls`, `workers` at a time; results as they come.

    Each process has its share of the cores. The first exception is raised here; calls not yet begun are dropped.
    """
    calls = list(calls)
    cores = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(cores,)) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _begin(threads: int) -> None:
    exit_with_parent()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as in run.perform
    logging.basicConfig(level=logging.INFO, format="%(message)s")
