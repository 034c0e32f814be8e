"""Rows on disk: whole or missing, whoever wrote them and however that ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kd_runner.distillation.teacher_cache.rows import Rows, create
from kd_runner.errors import ConfigError

LAYOUT = {"logits": ("float32", (1, 3)), "map": ("float16", (1, 2, 4, 4))}
EVERY = np.arange(5)


def values(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.normal(size=shape).astype(dtype) for name, (dtype, shape) in LAYOUT.items()}


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    create(tmp_path, 5, LAYOUT)
    return Rows(tmp_path, LAYOUT)


def test_what_is_written_is_read_by_every_process(rows: Rows) -> None:
    assert rows.missing(EVERY).all()
    rows.write(3, values(3))
    rows.write(1, values(1))
    for reader in (rows, Rows(rows.folder, LAYOUT)):
        assert reader.missing(EVERY).tolist() == [True, False, True, False, True]
        stored = reader.read(np.array([3, 1, 3]))
        for name in LAYOUT:
            np.testing.assert_array_equal(stored[name], np.stack([values(s)[name] for s in (3, 1, 3)]))


@pytest.mark.parametrize("name", ["logits", "map", "checksums"])
def test_a_torn_row_is_missing(rows: Rows, name: str) -> None:
    rows.write(2, values(2))
    torn = np.load(rows.folder / f"{name}.npy", mmap_mode="r+")
    torn[2] = torn[2] + 1
    torn.flush()
    assert Rows(rows.folder, LAYOUT).missing(EVERY).all()


def test_the_checksum_is_written_last(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """However early a writer is stopped, the row is missing until all of it is there."""
    order: list[int] = []
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: (order.append(file), real(file, data, offset))[1])
    rows.write(0, values(0))
    assert order[-1] == rows._files["checksums"] and len(order) == 3


def test_a_writer_killed_at_any_time_leaves_whole_rows_only(rows: Rows) -> None:
    code = (
        "import sys, itertools, numpy as np; sys.path[:0] = ['.']\n"
        "from pathlib import Path; from tests.distillation.teacher_cache.test_rows import *\n"
        "rows = Rows(Path(sys.argv[1]), LAYOUT); print('go', flush=True)\n"
        "for i in itertools.count(): rows.write(i % 5, values(i % 5))"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(rows.folder)], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline() == b"go\n"
    while rows.missing(EVERY).all():
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    reader = Rows(rows.folder, LAYOUT)
    there = EVERY[~reader.missing(EVERY)]
    for name in LAYOUT:
        np.testing.assert_array_equal(reader.read(there)[name], np.stack([values(s)[name] for s in there]))


def test_a_full_disk_is_named(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ConfigError, match="No space left"):
        rows.write(0, values(0))
