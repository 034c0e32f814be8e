"""A generated folder that is written once and never half: complete with its manifest, or not there."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from kd_runner.errors import ConfigError


def write_once(root: Path, manifest: Mapping[str, int], fill: Callable[[Path], None]) -> None:
    """Fill a folder beside `root` and rename it to `root`; a complete one of the same manifest is left as it is.

    A stopped run leaves nothing half done, and of two runs at once one wins.

    Args:
        root: the folder.
        manifest: all that its content depends on, kept in `manifest.json`.
        fill: writes the content into a new folder.

    Raises:
        ConfigError: `root` holds anything else.
    """
    if _is_complete(root, manifest):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        draft.chmod(0o755)  # mkdtemp makes it private; the data set is not
        fill(draft)
        (draft / "manifest.json").write_text(json.dumps(dict(manifest), indent=2) + "\n")
        os.replace(draft, root)  # fails where another process was faster: then its folder is used
    except OSError:
        if not _is_complete(root, manifest):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_complete(root: Path, manifest: Mapping[str, int]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    file = root / "manifest.json"
    if not file.is_file():
        raise ConfigError(f"data.root={root} holds something else than the generated data set: give an empty folder")
    saved = json.loads(file.read_text())
    if saved != dict(manifest):
        raise ConfigError(
            f"data.root={root} holds the generated data set of other arguments ({saved}, asked for {dict(manifest)}): "
            "give another folder, or delete that one"
        )
    return True
