"""The log file of a run."""

import logging
from pathlib import Path

from kd_runner.runtime.files import storage_error

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class RunLog(logging.Handler):
    """Keeps records in memory until the run's folder is claimed, then appends them to `run.log` there.

    So a command that is refused leaves no line in the folder of an ended run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[logging.LogRecord] = []
        self._file: logging.FileHandler | None = None

    def open(self, folder: Path) -> None:
        """Write what was kept, and from now on directly.

        Args:
            folder: of the run.
        """
        if self._file is None:
            try:
                self._file = logging.FileHandler(folder / "run.log")
            except OSError as error:
                raise storage_error(folder, error) from error
            self._file.setFormatter(logging.Formatter(FORMAT))
            for record in self._kept:
                self._file.emit(record)
            self._kept = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep or write a record.

        Args:
            record: the record.
        """
        if self._file is None:
            self._kept.append(record)
        else:
            self._file.emit(record)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()
