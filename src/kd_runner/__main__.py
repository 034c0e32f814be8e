"""`python -m kd_runner`."""

import os
import signal
import sys


def _stop(number: int, _: object) -> None:
    os.write(2, b"stopped before anything was written\n")
    os._exit(128 + number)


# Until `cli.main` answers them: Python's own answer while it imports is a traceback, or no word.
for _number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(_number, _stop)
# `python -m` puts the current folder first: a user's own `random.py` there would be imported in place of the standard
# library's. `cli.main` adds the folder behind it.
if sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from kd_runner.cli.entry import main  # noqa: E402

if __name__ == "__main__":
    main()
