"""PyTorch's training throughput on the CPU, the peer of `npm run bench`.

    python -m venv .venv && .venv/bin/pip install torch==2.15.0 numpy==2.4.6
    .venv/bin/python bench/peers/pytorch.py --data DIR --model basic --threads 2

Trains one of Fovea's benchmark nets on the real Fashion-MNIST (DIR holds train-images-idx3-ubyte.gz and
train-labels-idx1-ubyte.gz) with Adam at 1e-3, and prints one JSON line. To be fair to PyTorch: minibatches
are gathered from one uint8 tensor (no DataLoader), denormals are flushed, the loss is never read back, and
every variant of memory layout and of Adam's implementation is timed; the fastest is reported. A repeat is
--steps consecutive steps; msPerStep is the minimum, and the median, over the repeats. torch.compile is not
used.
"""

import argparse
import gzip
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def basic() -> nn.Module:
    """Singh & Brar's basic CNN."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 13 * 13, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def mlp() -> nn.Module:
    """Korssjoen's dense net, without its L2 penalty; batch norm by Keras's constants."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, units in ((784, 1024), (1024, 512), (512, 256)):
        layers += [
            nn.Linear(inputs, units),
            nn.LeakyReLU(0.1),
            nn.BatchNorm1d(units, eps=1e-3, momentum=0.01),
        ]
    return nn.Sequential(*layers, nn.Linear(256, 10))


def mlp3() -> nn.Module:
    """Bassas, Johnson & Granade's three hidden layers of 128."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (784, 128, 128):
        layers += [nn.Linear(inputs, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def korssjoen_cnn() -> nn.Module:
    """Korssjoen's CNN, without its L2 penalty."""
    return nn.Sequential(
        nn.Conv2d(1, 128, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2),
        nn.Conv2d(128, 256, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2),
        nn.Conv2d(256, 512, 5, padding=2), nn.Tanh(),
        nn.Flatten(), nn.Linear(512 * 7 * 7, 128), nn.LeakyReLU(0.1),
        nn.Linear(128, 64), nn.LeakyReLU(0.1), nn.Linear(64, 10),
    )  # fmt: skip


MODELS = {"basic": basic, "mlp": mlp, "mlp3": mlp3, "korssjoen-cnn": korssjoen_cnn}
# PyTorch's channels_last is a layout of 4-D maps: it cannot matter to a dense net
HAS_MAPS = {"basic", "korssjoen-cnn"}
ADAM = {
    "for-loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"foreach": False, "fused": True},
}


def read_idx(path: Path) -> np.ndarray:
    with gzip.open(path, "rb") as file:
        content = file.read()
    rank = content[3]
    shape = np.frombuffer(content, ">i4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


class Trainer:
    def __init__(
        self, model: str, layout: str, adam: str, images: torch.Tensor, labels: torch.Tensor, batch: int
    ) -> None:
        torch.manual_seed(1)
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.model = MODELS[model]().to(memory_format=self.format)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, eps=1e-7, **ADAM[adam])
        self.images, self.labels, self.batch = images, labels, batch
        self.order = torch.randperm(len(images))
        self.at = 0

    def step(self) -> None:
        if self.at + self.batch > len(self.order):
            self.order = torch.randperm(len(self.order))
            self.at = 0
        index = self.order[self.at : self.at + self.batch]
        self.at += self.batch
        x = self.images[index].float().div_(255).contiguous(memory_format=self.format)
        loss = F.cross_entropy(self.model(x), self.labels[index])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def time(self, steps: int) -> float:
        """Milliseconds a step."""
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - start) * 1e3 / steps

    def accuracy(self) -> float:
        """On the first 2000 training images: shows that the timed net did learn."""
        self.model.eval()
        with torch.no_grad():
            x = self.images[:2000].float().div_(255).contiguous(memory_format=self.format)
            return (self.model(x).argmax(1) == self.labels[:2000]).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="PyTorch's training throughput on Fashion-MNIST, as one JSON line"
    )
    parser.add_argument("--model", choices=MODELS, default="basic")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200, help="steps in one repeat")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of each variant")
    parser.add_argument("--data", type=Path, required=True, help="folder of the Fashion-MNIST .gz files")
    args = parser.parse_args()
    for name in ("threads", "batch", "steps", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, received {getattr(args, name)}")
    files = [args.data / "train-images-idx3-ubyte.gz", args.data / "train-labels-idx1-ubyte.gz"]
    for file in files:
        if not file.is_file():
            parser.error(f"--data: no file {file.name} in {args.data}")

    torch.set_num_threads(args.threads)
    flushed = torch.set_flush_denormal(True)
    images = torch.from_numpy(read_idx(files[0]).copy())[:, None]
    labels = torch.from_numpy(read_idx(files[1]).astype(np.int64))

    layouts = ["contiguous", "channels_last"] if args.model in HAS_MAPS else ["contiguous"]
    trainers = {
        (layout, adam): Trainer(args.model, layout, adam, images, labels, args.batch)
        for layout in layouts
        for adam in ADAM
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in trainers}
    for trainer in trainers.values():
        trainer.time(max(10, args.steps // 4))
    # Round by round, so that a slow moment of the machine does not fall on one variant
    for _ in range(args.repeats):
        for key, trainer in trainers.items():
            times[key].append(trainer.time(args.steps))

    best = min(times, key=lambda key: min(times[key]))
    print(
        json.dumps(
            {
                "peer": "pytorch",
                "version": torch.__version__,
                "model": args.model,
                "threads": args.threads,
                "batch": args.batch,
                "steps": args.steps,
                "repeats": args.repeats,
                "variant": {"layout": best[0], "adam": best[1]},
                "msPerStep": {
                    "min": round(min(times[best]), 4),
                    "median": round(statistics.median(times[best]), 4),
                },
                "imagesPerSecond": round(args.batch * 1e3 / min(times[best])),
                "accuracy": round(trainers[best].accuracy(), 4),
                "flushDenormal": flushed,
                "variants": {" ".join(key): round(min(values), 4) for key, values in times.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
