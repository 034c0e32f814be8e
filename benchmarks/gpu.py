"""What was never measured on a GPU, in about ten minutes on one: writes docs/results/gpu.md, to be committed.

    .venv/bin/python benchmarks/gpu.py
    .venv/bin/python benchmarks/gpu.py --device cpu --steps 2 --only "mini voc_kd,step ratio"      without a GPU

Every check is a process of its own with a time limit; one that fails is a row that says how. Further packages are used
where they are installed (spconv, spconv-triton, onnxruntime-gpu).
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "gpu.md"
SYSTEMS = ("voc_kd", "orion_kd", "bevfusion_crd", "hierarchical_unet_kd")
QUIET = ["export=none", "logger=none", "callbacks=[checkpoints,epoch_summary]"]


class Bench:
    """The checks, by name.

    Args:
        device: `cuda` or `cpu`.
        steps: optimizer steps of a training, timed steps of a loop.
        folder: for everything that is written.
        limit: seconds that one check may take.
    """

    def __init__(self, device: str, steps: int, folder: Path, limit: float):
        self.device, self.steps, self.folder, self.limit = device, steps, folder, limit
        self.trainer = "trainer=gpu" if device == "cuda" else "trainer=cpu"
        self.checks: dict[str, Callable[[], str]] = {
            **{f"mini {name}, {steps} steps": lambda name=name: self.mini(name) for name in SYSTEMS},  # type: ignore[misc]
            "full voc_kd, one step": self.full_voc,
            "full hierarchical_unet_kd, one step": lambda: self.script("unet_full.py", self.trainer),
            "full orion_kd, one step": lambda: self.script("orion_full.py", "--cameras", "6", self.trainer),
            "step ratio": self.step_ratio,
            "torch.compile": self.compiled,
            "sparse backends": self.backends,
            "ONNX in onnxruntime": self.onnx,
            "DDP of one process": self.ddp,
            "resume is bit-equal": self.resume,
        }

    def run(self, *command: str, cwd: Path | None = None) -> float:
        """Seconds of a command.

        Raises:
            RuntimeError: it failed, with the last line that it wrote.
        """
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command], cwd=cwd or self.folder, capture_output=True, text=True, timeout=self.limit
        )
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1][:150])
        self.output = done.stdout
        return time.perf_counter() - started

    def train(self, name: str, *words: str, folder: str) -> float:
        """Seconds of a training, start and measuring included."""
        short = [f"data.steps_per_epoch={self.steps}", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"]
        own = [self.trainer, *short, *QUIET, *words]
        return self.run("-m", "kd_runner", f"experiment={name}", f"hydra.run.dir={folder}", *own)

    def mini(self, name: str) -> str:
        return f"{self.train(name, folder=f'mini_{name}'):.0f} s in all"

    def script(self, file: str, *words: str) -> str:
        self.run(str(ROOT / "benchmarks" / file), *words)
        return self.output.strip().splitlines()[-1]

    def full_voc(self) -> str:
        from kd_runner.models.segmentation.fcn_resnet import fcn_resnet50
        from kd_runner.synthetic import mini_voc

        mini_voc.write(self.folder / "voc", num_train=16, num_val=8, num_unlabeled=0, size=512)
        save_file(fcn_resnet50().state_dict(), self.folder / "fcn.safetensors")
        words = [f"data.root={self.folder / 'voc'}", f"teacher.checkpoint={self.folder / 'fcn.safetensors'}"]
        words += ["student.pretrained=null", "data.steps_per_epoch=1", "data.num_workers=0", "scale=full"]
        return f"{self.train('voc_kd', *words, folder='full_voc'):.0f} s in all"

    def step_ratio(self) -> str:
        """Hand-written loop against the same with a folded teacher, teacher and student in channels_last."""
        from torchvision.models import resnet18, resnet34

        from kd_runner.distillation.fast_teacher import fold
        from kd_runner.distillation.features import FeatureExtractor

        size, batch = (224, 64) if self.device == "cuda" else (64, 4)
        teacher, student = resnet34().eval().to(self.device), resnet18().to(self.device)
        image = torch.randn(batch, 3, size, size, device=self.device)
        features = FeatureExtractor(teacher, {"x": "image"}, {"logits": ":"}, "teacher")
        plain = self.step_ms(teacher, student, image)
        last = [
            net.to(memory_format=torch.channels_last)
            for net in (fold(features, {"image": image}, ["logits"]).net, student)
        ]
        fast = self.step_ms(*last, image.contiguous(memory_format=torch.channels_last))
        return f"{fast / plain:.2f} of a plain loop ({plain:.1f} ms, ResNet34 to ResNet18, {size} px, batch {batch})"

    def step_ms(self, teacher: nn.Module, student: nn.Module, image: torch.Tensor) -> float:
        """Milliseconds of a distillation step, median."""
        optimizer = torch.optim.SGD(student.parameters(), 1e-3)
        times = []
        for _ in range(self.steps + 3):
            self.wait()
            started = time.perf_counter()
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
                with torch.no_grad():
                    soft = teacher(image).softmax(1)
                loss = nn.functional.cross_entropy(student(image), soft)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.wait()
            times.append(1e3 * (time.perf_counter() - started))
        return sorted(times[3:])[self.steps // 2]

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def compiled(self) -> str:
        """What `torch.compile` of teacher and student would save of a step."""
        from torchvision.models import resnet18, resnet34

        size, batch = (224, 64) if self.device == "cuda" else (64, 4)
        nets = resnet34().eval().to(self.device), resnet18().to(self.device)
        image = torch.randn(batch, 3, size, size, device=self.device)
        plain = self.step_ms(*nets, image)
        started = time.perf_counter()
        fast = self.step_ms(*(torch.compile(net) for net in nets), image)  # type: ignore[arg-type]
        return f"{fast / plain:.2f} of the eager step; {time.perf_counter() - started:.0f} s with compilation"

    def backends(self) -> str:
        rows = []
        for name in ("spconv", "spconv_triton"):
            try:
                seconds = self.train(
                    "bevfusion_crd", f"teacher.net.backend={name}", f"student.net.backend={name}", folder=name
                )
                rows.append(f"{name} {seconds:.0f} s")
            except RuntimeError as error:
                rows.append(f"{name}: {error}")
        return "; ".join(rows)

    def onnx(self) -> str:
        import numpy as np
        import onnxruntime

        chosen = "CUDAExecutionProvider" if self.device == "cuda" else "CPUExecutionProvider"
        if chosen not in onnxruntime.get_available_providers():
            return "onnxruntime-gpu is not installed"
        self.train("voc_kd", "export=onnx", folder="onnx")
        file = self.folder / "onnx" / "model.onnx"
        outputs = []
        for provider in (chosen, "CPUExecutionProvider"):
            session = onnxruntime.InferenceSession(file, providers=[provider])
            feed = session.get_inputs()[0]
            shape = [side if isinstance(side, int) else 1 for side in feed.shape]
            image = np.random.default_rng(0).standard_normal(shape, np.float32)
            outputs.append(session.run(None, {feed.name: image})[0])
        return f"{chosen}: largest difference from the CPU {np.abs(outputs[0] - outputs[1]).max():.1e}"

    def ddp(self) -> str:
        words = ["trainer=ddp", "trainer.devices=1", f"trainer.accelerator={'gpu' if self.device == 'cuda' else 'cpu'}"]
        return (
            f"{self.train('voc_kd', *words, folder='ddp'):.0f} s in all, {'NCCL' if self.device == 'cuda' else 'gloo'}"
        )

    def resume(self) -> str:
        """A training of three epochs against the same one, stopped after the first epoch."""
        words = ["trainer.max_epochs=3", "trainer.deterministic=true"]
        self.train("voc_kd", *words, folder="whole")
        folder = self.folder / "stopped"
        command = ["-m", "kd_runner", f"hydra.run.dir={folder}", self.trainer, f"data.steps_per_epoch={self.steps}"]
        command += [*QUIET, "trainer.check_val_every_n_epoch=1", *words]
        process = subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ends = time.perf_counter() + self.limit
        while (
            not (folder / "checkpoints" / "last.ckpt").exists()
            and process.poll() is None
            and time.perf_counter() < ends
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        stopped = process.wait(self.limit) != 0
        self.run(*command, f"resume={folder}")
        equal = (folder / "student.safetensors").read_bytes() == (
            self.folder / "whole" / "student.safetensors"
        ).read_bytes()
        return f"{'equal' if equal else 'not equal'}{'' if stopped else ' (it ended before it was stopped)'}"


def page(name: str, rows: dict[str, str], command: str) -> str:
    versions = f"torch {torch.__version__}" + (f", CUDA {torch.version.cuda}" if torch.version.cuda else "")
    lines = [f"| {check} | {result.replace('|', '/')} |" for check, result in rows.items()]
    return "\n".join(
        ["# On a GPU", "", f"{name}, {versions}. `{command}`:", "", "| check | result |", "|---|---|", *lines, ""]
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    words.add_argument("--steps", type=int, default=30)
    words.add_argument("--only", default="", help="beginnings of the checks' names, separated by commas")
    words.add_argument("--limit", type=float, default=180, help="seconds that one check may take")
    words.add_argument("--folder", type=Path, default=Path("/tmp/kd_runner_gpu"))
    words.add_argument("--out", type=Path, help="the page; without a GPU none is written unless it is named")
    arguments = words.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU; --device cpu tries the checks without one")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.device, arguments.steps, arguments.folder, arguments.limit)
    rows = {}
    for name, check in bench.checks.items():
        if not name.startswith(tuple(arguments.only.split(","))):
            continue
        try:
            rows[name] = check()
        except Exception as error:  # one that fails stops no other check
            rows[name] = f"failed: {type(error).__name__}: {error}"[:200]
        print(f"{name}: {rows[name]}", flush=True)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    out = arguments.out or (PAGE if arguments.device == "cuda" else None)
    if out is not None:
        out.write_text(page(device, rows, "python benchmarks/gpu.py"))


if __name__ == "__main__":
    main()
