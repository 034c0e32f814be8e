"""Hydra without repeated work: files are parsed once, and a command is composed once instead of twice."""

from typing import Any

import yaml
from hydra._internal.hydra import Hydra


def patch() -> None:
    """Affects this process and those forked from it; what is composed stays the same."""
    # A first composition only tells whether hydra.mode is set in a file, which no file does.
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    if yaml.load.__module__ == yaml.__name__:
        yaml.load = _remember(yaml.load)


def _remember(parse: Any) -> Any:
    parsed: dict[tuple[str, Any], Any] = {}

    def load(stream: Any, Loader: Any) -> Any:
        text = stream if isinstance(stream, str) else stream.read()
        key = (text, Loader)
        if key not in parsed:
            if not isinstance(stream, str):
                stream.seek(0)  # parsed as a stream: errors name the file
            parsed[key] = parse(stream, Loader)
        return parsed[key]

    return load
