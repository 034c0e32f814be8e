"""Where the yaml files of this package lie."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CONF = next(p for p in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if p.is_dir())  # in a wheel; in a checkout
