"""User-fixable errors: printed as one message, without a traceback."""

import difflib
from collections.abc import Iterable
from typing import Any


class ConfigError(ValueError):
    """Bad input. The message names the configuration key to change."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a misspelt name: " Did you mean 'x'?", or the list of names.

    Args:
        name: what was given.
        known: the right names.

    Returns:
        The nearest name in a question; where none is near, all names if they are few, else nothing.
    """
    known = sorted({str(k) for k in known})
    close = [k for k in known if k.lower() == name.lower()] or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    # A path whose last part is right: 'layer4' for 'backbone.layer4'.
    close = [k for k in known if k.split(".")[-1] == name.split(".")[-1]]
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(known)}." if known and len(known) <= 30 else ""


def find_module(net: Any, path: str, subject: str) -> Any:
    """The module of a net at a dotted path, or an error with the nearest path.

    Args:
        net: an `nn.Module`.
        path: as in `net.named_modules()`; empty for the net itself.
        subject: how the message starts, e.g. `features.low: the student`.

    Returns:
        The module.

    Raises:
        ConfigError: `<subject> has no module <path>`, and the nearest one.
    """
    modules = dict(net.named_modules(remove_duplicate=False))
    if path not in modules:
        raise ConfigError(f"{subject} has no module {path!r}.{nearest(path, [name for name in modules if name])}")
    return modules[path]
