"""One short message for every way in which a command can fail."""

import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from kd_runner.cli.arguments import renamed_key
from kd_runner.cli.suggestions import suggestions
from kd_runner.config.type_errors import explain_type
from kd_runner.errors import ConfigError

PACKAGE = Path(__file__).parents[1]


def explain(error: BaseException, words: list[str], config_dirs: list[str]) -> str:
    """What is wrong with a configuration that Hydra could not compose.

    Args:
        error: what was raised.
        words: of the command line.
        config_dirs: the user's own folders of yaml files.

    Returns:
        The message.
    """
    chain = list(_chain(error))
    for part in chain:
        if isinstance(part, ConfigError):
            return str(part)
        if isinstance(part, yaml.MarkedYAMLError):
            mark = part.problem_mark or part.context_mark
            where = f"{mark.name}, line {mark.line + 1}" if mark is not None else "a yaml file"
            return f"{where}: {part.problem or part.context or 'not YAML'}"
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0]
        return f"{error.override}: it cannot be read ({reason}). Is a bracket or quote open? Quote it for the shell."
    text = "\n".join(str(part) for part in chain)
    file = re.match(r"In '(.+?)'", str(error))
    where = f" (in {file[1]}.yaml)" if file is not None and file[1] != "config" else ""
    key = re.search(r"full_key: (\S+)", text)
    if key is not None and (renamed := renamed_key(key[1])) is not None:
        return f"{key[1]}: {renamed}{where}"
    if not (isinstance(error, MissingConfigException) or "Could not override" in text):
        if (line := explain_type(text)) is not None:
            return line + where
    elif lines := _suggestions(words, config_dirs):
        return "\n".join(lines[:3])
    if isinstance(error, OSError) and error.filename is not None:  # Hydra makes the folder
        return f"hydra.run.dir: {error.filename} cannot be written: {error.strerror}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        reason = next((str(part) for part in reversed(chain) if str(part)), type(error).__name__)
        return (explain_type(text) or " ".join(reason.split("\n\n")[0].split())) + where
    return unexpected(error)


def _suggestions(words: list[str], config_dirs: list[str]) -> list[str]:
    try:
        return list(suggestions(words, config_dirs))
    except Exception:  # the user's own files may not compose at all
        return []


def unexpected(error: BaseException) -> str:
    """Message for an error of an unknown kind.

    Args:
        error: what was raised.

    Returns:
        Its type and text, and the last line of the user's code, or of this package's, that ran.
    """
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    frames = traceback.extract_tb(error.__traceback__)
    libraries = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    own = [f for f in frames if not f.filename.startswith((*libraries, str(PACKAGE), "<"))]
    inside = [f for f in frames if f.filename.startswith(str(PACKAGE))]
    frame = next(iter([*own[-1:], *inside[-1:], *frames[-1:]]), None)
    message = f"{type(error).__name__}: {first[:300]}"
    if frame is None:
        return message
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{message}\n  {frame.filename}, line {frame.lineno}, in {frame.name}: {line[:120]}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
