"""SIGTERM and SIGINT end a run in order: files whole, one line, the exit code that schedulers expect."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stopped(SystemExit):
    """The run was told to stop by a signal; the exit code is 128 + the signal's number (SIGTERM 143, SIGINT 130).

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)


def raise_on_stop() -> None:
    """Raise `Stopped` in this process's main thread on SIGTERM and SIGINT.

    Raising is safe at any moment: files are replaced whole, and a run goes on from its last checkpoint. To be called
    again after Lightning has set its own handlers, whose answer to SIGTERM is an exit code of 0.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked data loader process
            os._exit(128 + number)
        raise Stopped(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """`raise_on_stop` for a block; what was set before is set again."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    raise_on_stop()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
