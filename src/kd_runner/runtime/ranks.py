"""Which process of a job this one is: one definition for torchrun, srun and this package's own launcher."""

import os

# Set by `runtime.launch` in the processes that it starts: the process id of the launcher.
LAUNCHER = "KD_RUNNER_LAUNCHER"


def global_rank() -> int:
    """Rank over all nodes: RANK of torchrun and of our launcher, else SLURM_PROCID, else 0."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def world_size() -> int:
    """Processes of the job: WORLD_SIZE of torchrun and of our launcher, else SLURM_NTASKS, else 1."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))


def is_first() -> bool:
    """Whether this process writes the files of the run."""
    return global_rank() == 0


def launcher_pid() -> int | None:
    """Process id of our launcher where it started this process, else None."""
    return int(os.environ[LAUNCHER]) if LAUNCHER in os.environ else None


def is_grouped() -> bool:
    """Whether this process was started as one of several."""
    return "LOCAL_RANK" in os.environ or launcher_pid() is not None or world_size() > 1
