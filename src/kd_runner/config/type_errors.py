"""One line for what OmegaConf says of a value of a wrong type, or of a key that the schema does not have."""

import re
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_runner.config.schema import Config
from kd_runner.errors import ConfigError, nearest

_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}


def check_types(cfg: DictConfig) -> None:
    """Check the types of a configuration that Hydra did not compose (an arm of a comparison, a notebook's).

    Args:
        cfg: the configuration.

    Raises:
        ConfigError: a value of a wrong type.
    """
    try:
        OmegaConf.merge(OmegaConf.structured(Config), cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_type(str(error)) or str(error).splitlines()[0]) from error


def explain_type(text: str) -> str | None:
    """Key, value and what is expected, from the text of an error of OmegaConf.

    Args:
        text: the whole text, with its line `full_key: ...`.

    Returns:
        The message; None where the error is about something else.
    """
    key_match = re.search(r"full_key: (\S+)", text)
    if key_match is None:
        return None
    key = key_match[1]
    if missing := re.search(r"Key '(.+?)' (?:not in|is not in)", text):
        parent = key.rpartition(".")[0]
        name = missing[1]
        if not parent and name in ("experiment", "variant", "scale", "task"):
            return f"{name}: its file must begin with the line '# @package _global_'"
        known = [f"{parent}.{field}" if parent else field for field in field_names(parent)]
        return f"{key}: no such key.{nearest(key, known)}"
    if wrong := re.search(r"Value '(.*?)' of type '.*?' could not be converted to (\w+)", text, re.DOTALL):
        return f"{key}={wrong[1]}: expected {_TYPES.get(wrong[2], wrong[2].lower())}"
    if wrong := re.search(r"Value '(.*?)' is not a valid (\w+)", text):
        return f"{key}={wrong[1]}: expected {_expected(key)}"
    if override := re.search(r"Error merging override (.+)", text):
        entry = re.match(r"\+{1,2}(loss|metric)\.(\w+)", override[1])
        if entry is not None:  # OmegaConf makes no typed entry from a word
            group, name = entry.groups()
            file = f"{group}/{name}.yaml in a folder of your own, and give --config-dir=FOLDER {group}=[...,{name}]"
            return f"{override[1]}: a word cannot add an entry; write {file}"
        return f"{override[1]}: expected {_expected(key)}"
    if "is not Optional" in text or "not nullable" in text or "None to non" in text:
        return f"{key}=null: expected {_expected(key)}"
    return f"{key}: {text.splitlines()[0]}; expected {_expected(key)}"


def _expected(key: str) -> str:
    hint: Any = _type_of(key)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if hint in names:
        return names[hint]
    if typing.get_origin(hint) is list:
        return f"a list, e.g. {key}=[0,1,2]" if typing.get_args(hint)[0] is int else "a list"
    return "keys with values" if is_dataclass(hint) or typing.get_origin(hint) is dict else "another value"


def field_names(key: str) -> list[str]:
    """Keys that the schema has below a key.

    Args:
        key: the key.

    Returns:
        The keys; none where the schema is open.
    """
    hint = _type_of(key)
    return [field.name for field in fields(hint)] if is_dataclass(hint) else []


def _type_of(key: str) -> Any:
    """The type that the schema gives a key, without `| None`."""
    hint: Any = Config
    for part in key.split(".") if key else []:
        if is_dataclass(hint):
            hint = typing.get_type_hints(hint).get(part)
        elif typing.get_origin(hint) is dict:
            hint = typing.get_args(hint)[1]
        else:
            return None
        if isinstance(hint, types.UnionType):
            hint = next(option for option in typing.get_args(hint) if option is not type(None))
    return hint
