"""One process of a run that `runtime.launch` started: `python -m kd_runner.cli.worker <job.json>`."""

import json
import logging
import sys
from pathlib import Path

from omegaconf import OmegaConf

from kd_runner.cli.main import log_unexpected, perform
from kd_runner.errors import ConfigError
from kd_runner.runtime.processes import exit_with_parent
from kd_runner.runtime.ranks import global_rank, is_first, launcher_pid
from kd_runner.runtime.resolvers import register_resolvers
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.runtime.signals import Stopped, raise_on_stop

log = logging.getLogger("kd_runner")


def main() -> None:
    """Do the job of the file; the messages of its first process are those of the command."""
    exit_with_parent(launcher_pid())
    raise_on_stop()
    job = json.loads(Path(sys.argv[1]).read_text())
    sys.path[:] = [*job["path"], *(path for path in sys.path if path not in job["path"])]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    register_resolvers()
    run = RunFolder(job["folder"], job["hydra"])
    with run.log_to_file():
        try:
            perform(OmegaConf.create(job["config"]), run)  # type: ignore[arg-type]
        except Stopped:
            run.stop()  # the launcher says so
            raise
        except ConfigError as error:
            log.error("%s", error)
            run.fail(str(error))
            raise SystemExit(1) from None
        except Exception as error:
            run.fail(f"{type(error).__name__}: {error}")
            message = log_unexpected(error, run.path)
            if not is_first():  # its standard output is not shown
                print(f"process {global_rank()}: {message}", file=sys.stderr)
            raise SystemExit(1) from None


if __name__ == "__main__":
    main()
