"""`python -m kd_runner` and `kd-runner`: `--help` at once, all else by `cli.main`."""

import sys

from kd_runner.cli import arguments
from kd_runner.errors import ConfigError


def main() -> None:
    """Run the command line."""
    try:
        words = arguments.flags_first(sys.argv[1:])
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    if {"--help", "-h"} & set(words):
        from kd_runner.cli import help

        print(help.text(arguments.config_dirs(words)))
        return
    from kd_runner.cli.main import main  # Hydra takes a third of a second to import

    main()
