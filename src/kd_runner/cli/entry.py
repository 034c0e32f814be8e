"""`python -m kd_runner` and `kd-runner`: `--help` at once, all else by `cli.main`."""

import sys

from kd_runner.cli import arguments


def main() -> None:
    """Run the command line."""
    words = arguments.flags_first(sys.argv[1:])
    if {"--help", "-h"} & set(words):
        from kd_runner.cli import help

        print(help.text(arguments.config_dirs(words)))
        return
    from kd_runner.cli.main import main  # Hydra takes a third of a second to import

    main()
