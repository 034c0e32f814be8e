"""User-fixable errors: printed as one message, without a traceback."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class ConfigError(ValueError):
    """Bad input. The message names the configuration key to change.

    Raised again by a DataLoader, it drops the worker's traceback from its message.

    Args:
        message: what is wrong.
    """

    def __init__(self, message: str = ""):
        if "Original Traceback (most recent call last)" in message:
            message = message.partition(f"{type(self).__name__}: ")[2].strip()
        super().__init__(message)


def reason(error: BaseException) -> str:
    """The error in one line.

    Args:
        error: any error.

    Returns:
        Its message; ahead of it the type, where the message was not written for users.
    """
    text = " ".join(str(error).split())[:400]
    return text if text and isinstance(error, ValueError | TypeError | OSError) else f"{type(error).__name__}: {text}"


@contextmanager
def named(key: str) -> Iterator[None]:
    """Turns any error of a block into a `ConfigError` that starts with a key.

    Args:
        key: of the configuration, where the fault is to be looked for.

    Yields:
        Nothing.

    Raises:
        ConfigError: the block raised.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{key}: {reason(error)}") from error


def require(made: Any, kind: type, key: str) -> Any:
    """The object, which must be of a kind.

    Args:
        made: what a node of the configuration gave.
        kind: the class that it must be of.
        key: where the node stands.

    Returns:
        `made`.

    Raises:
        ConfigError: it is of another kind.
    """
    if not isinstance(made, kind):
        names = type(made).__name__, f"{kind.__module__.partition('.')[0]} {kind.__name__}"
        raise ConfigError(f"{key}: it is a {names[0]}, not a {names[1]}")
    return made


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
