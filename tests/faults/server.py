"""Runs commands of kd_runner, each in a process forked from this one, which has imported torch and the rest once.

Reads one JSON object per line, `{"words": [...], "folder": "...", "output": "...", "seconds": 120}`, and answers each
with the exit code on a line. Started by `harness.Commands`.
"""

import gc
import json
import os
import signal
import sys
import traceback


def main() -> None:
    import lightning.pytorch  # noqa: F401
    import torch

    import kd_runner.cli.main
    import kd_runner.config.build
    import kd_runner.config.compose
    import kd_runner.config.validate
    import kd_runner.tasks.check
    import kd_runner.tasks.train
    from tests import quick_hydra

    torch.set_num_threads(1)
    quick_hydra.patch()
    for experiment in ("voc_kd", "hierarchical_unet_kd", "orion_kd", "bevfusion_crd"):
        for words in (["task=train"], ["task=train", "logger=none"], ["task=train_teacher"]):
            kd_runner.config.compose.compose_checked([f"experiment={experiment}", *words, "data.root=nowhere"])
    gc.collect()
    gc.freeze()  # a collection in a forked process need not walk through the objects of PyTorch
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            _run(request)
        print(_exit_code(process, request["seconds"]), flush=True)


def _run(request: dict) -> None:
    """In the forked process: the command, as `python -m kd_runner` would run it."""
    os.setsid()
    os.chdir(request["folder"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["kd_runner", *request["words"]]
    code = 0
    try:
        from kd_runner.cli.main import main as command

        command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _exit_code(process: int, seconds: float) -> int:
    """The exit code of a process; 124 where it has to be killed after so many seconds."""
    late = []

    def kill(*_: object) -> None:
        late.append(True)
        os.killpg(process, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _, status = os.waitpid(process, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return 124 if late else os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
