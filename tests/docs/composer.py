"""Commands of the documentation as configurations, composed as Hydra composes them."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from kd_runner.config.compose import register
from kd_runner.config.location import CONF

FLAGS_WITH_VALUE = {"--cfg", "--info", "-p", "--package"}
OTHER_FLAGS = {"-m", "--help", "--resolve"}


class Composer:
    """Composes commands.

    Only the choice of groups is composed, once for all commands that share it; the values are set on a copy by the
    function that Hydra itself uses for them.
    """

    def __init__(self, my_kd: Path):
        register()
        version.setbase("1.3")
        self.my_kd = my_kd
        self.bases: dict[tuple[str, ...], DictConfig] = {}

    def configurations(self, words: list[str]) -> Iterator[DictConfig]:
        """The configurations of a command: one, or the first and the last point of a sweep."""
        with_my_kd, words = self._without_flags(words)
        search_path = create_config_search_path(str(CONF))
        if with_my_kd:
            search_path.append("docs", f"file://{self.my_kd}", anchor="main")
        GlobalHydra.instance().clear()
        loader = Hydra.create_main_hydra2("docs", search_path).config_loader
        parser = OverridesParser.create()
        try:
            for point in self._points(parser.parse_overrides(words)):
                overrides = parser.parse_overrides(point)
                groups = [o for o in overrides if loader.get_group_options(o.key_or_group)]
                choice = (str(with_my_kd), *sorted(str(o.input_line) for o in groups))
                if choice not in self.bases:
                    lines = [str(o.input_line) for o in groups]
                    self.bases[choice] = compose("config", overrides=lines, return_hydra_config=True)
                cfg = copy.deepcopy(self.bases[choice])
                ConfigLoaderImpl._apply_overrides_to_config([o for o in overrides if o not in groups], cfg)
                HydraConfig.instance().set_config(cfg)
                yield cfg
        finally:
            HydraConfig.instance().cfg = None
            GlobalHydra.instance().clear()

    @staticmethod
    def _without_flags(words: list[str]) -> tuple[bool, list[str]]:
        """Whether the command names the user's folder, and its overrides."""
        plain, words, with_my_kd = [], list(words), False
        while words:
            word = words.pop(0)
            if word == "--config-dir":
                with_my_kd = words.pop(0) == "my_kd"
                assert with_my_kd
            elif word in FLAGS_WITH_VALUE:
                words.pop(0)
            elif word.startswith("-"):
                assert word in OTHER_FLAGS, f"unknown flag {word}"
            else:
                plain.append(word)
        return with_my_kd, plain

    @staticmethod
    def _points(overrides: list[Override]) -> list[list[str]]:
        """The first and the last point of a sweep, or the only one."""
        values = []
        for override in overrides:
            line = str(override.input_line)
            choices = list(override.sweep_string_iterator()) if override.is_sweep_override() else []
            values.append([f"{line.partition('=')[0]}={choice}" for choice in choices] or [line])
        points = list(itertools.product(*values))
        return [list(point) for point in dict.fromkeys((points[0], points[-1]))]
