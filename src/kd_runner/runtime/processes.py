"""Functions in processes of their own."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
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


Later = Callable[[], tuple[Any, ...] | None]
"""Arguments of a call that depends on others, or None as long as they are not known."""


def in_parallel(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], workers: int, later: Iterable[Later] = ()
) -> Iterator[Any]:
    """Call `function` with each of `calls`, `workers` at a time; results as they come.

    Each process has an equal part of the cores. The first exception is raised here; calls not yet started are dropped,
    and those at work are ended where this process is told to stop.

    Args:
        function: what each process calls; importable by name.
        calls: its arguments.
        workers: processes at a time.
        later: calls that start once their arguments are known; asked once a second.

    Yields:
        A result of each call.
    """
    waiting = list(later)
    calls = list(calls)
    cores = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_initialize, initargs=(cores, os.getpid())) as pool:
        running = {pool.submit(function, *call) for call in calls}
        try:
            while running or waiting:
                for arguments in list(waiting):
                    if (call := arguments()) is not None:
                        running.add(pool.submit(function, *call))
                        waiting.remove(arguments)
                if not running:
                    raise RuntimeError("calls wait for what no other call makes known")
                ended, running = wait(running, timeout=1 if waiting else None, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            for future in running:
                future.cancel()


def _initialize(threads: int, parent: int) -> None:
    exit_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a whole group on Ctrl-C; the parent ends this process
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as in run.perform
    logging.basicConfig(level=logging.INFO, format="%(message)s")
