"""Functions in processes of their own."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch


def exit_with_parent(parent: int | None = None) -> None:
    """End this process when the one that started it is gone, even by kill -9: none is left writing.

    Args:
        parent: process id of the parent as it knows itself, in case it is gone already; None for the present one.
    """
    parent = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_parallel(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """Call `function` with each of `calls`, `workers` at a time; results as they come.

    Each process has an equal part of the cores. The first exception is raised here; calls not yet started are dropped,
    and those at work are ended where this process is told to stop.
    """
    calls = list(calls)
    cores = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_initialize, initargs=(cores, os.getpid())) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        try:
            for future in as_completed(futures):
                yield future.result()
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            for future in futures:
                future.cancel()


def _initialize(threads: int, parent: int) -> None:
    exit_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a whole group on Ctrl-C; the parent ends this process
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as in run.perform
    logging.basicConfig(level=logging.INFO, format="%(message)s")
