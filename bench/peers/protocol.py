"""What the Python peers of the bench have in common: the requests, the job, the minibatches, the variants.

The protocol is that of bench/README.md. A peer gives `serve` a function that opens it for a job; all that is
specific to its library is in a `Peer` and its `Trainer`s.
"""

import importlib.util
import json
import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

INSTALL = "python3 -m venv .venv && .venv/bin/pip install -r bench/peers/requirements.txt"

# Steps that a variant takes before it is timed: the first compiles, or allocates
WARM_UP = 3
# Parts of the time that a variant is given, of which the fastest counts: others share the machine
PARTS = 3


class PeerError(Exception):
    """What a peer cannot do, in one line."""


@dataclass(frozen=True)
class Job:
    """A network to train, and on what."""

    model: dict[str, Any]
    images: str
    labels: str
    shape: tuple[int, int, int, int]
    classes: int
    batch: int
    threads: int
    seed: int

    @classmethod
    def read(cls, request: dict[str, Any]) -> "Job":
        names = cls.__dataclass_fields__
        if missing := [name for name in names if name not in request]:
            raise PeerError(f"prepare: expected {', '.join(names)}, received no {', '.join(missing)}")
        job = cls(**{name: request[name] for name in names} | {"shape": tuple(request["shape"])})
        for name in ("batch", "threads"):
            if getattr(job, name) < 1:
                raise PeerError(f"prepare: {name} must be at least 1, received {getattr(job, name)}")
        if job.batch > job.shape[0]:
            raise PeerError(f"prepare: batch must be at most {job.shape[0]}, received {job.batch}")
        return job

    def read_images(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [N, H, W, C], and labels uint8 [N]."""
        images = np.fromfile(self.images, np.uint8)
        labels = np.fromfile(self.labels, np.uint8)
        count, height, width, channels = self.shape
        if images.size != count * height * width * channels or labels.size != count:
            raise PeerError(
                f"prepare: expected {count} images {height} x {width} x {channels} and as many labels, "
                f"received {images.size} and {labels.size} bytes"
            )
        return images.reshape(self.shape), labels


class Order:
    """Rows of minibatches: a random order of all images, a new one when less than a minibatch is left."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch = count, batch
        self.random = np.random.default_rng(seed)
        self.order = np.arange(0)
        self.at = 0

    def take(self, steps: int) -> np.ndarray:
        """The rows of the next minibatches, int64 [steps, batch]."""
        rows = np.empty((steps, self.batch), np.int64)
        for i in range(steps):
            if self.at + self.batch > len(self.order):
                self.order = self.random.permutation(self.count)
                self.at = 0
            rows[i] = self.order[self.at : self.at + self.batch]
            self.at += self.batch
        return rows


class Trainer(ABC):
    """A network under training, in one variant."""

    @abstractmethod
    def train(self, rows: np.ndarray) -> None:
        """A step for each minibatch of `rows`, int64 [steps, batch]; returns when the last update is done."""

    @abstractmethod
    def loss(self) -> float:
        """The loss that the library has at hand after `train`: of the last step, or the mean of its steps."""

    @abstractmethod
    def evaluate(self, rows: np.ndarray) -> tuple[float, float]:
        """Loss, with the penalties, and accuracy of minibatches `rows`, int64 [batches, batch]."""


class Peer(ABC):
    """A library with a network to train."""

    name: str
    version: str
    # Trained values
    parameters: int
    # The first is the default
    variants: tuple[str, ...]

    @abstractmethod
    def trainer(self, variant: str) -> Trainer:
        """The network from its first values on."""


class Session:
    """A peer that answers requests."""

    def __init__(self, job: Job, peer: Peer) -> None:
        self.job, self.peer = job, peer
        self.order = Order(job.shape[0], job.batch, job.seed)
        self.trainer = peer.trainer(peer.variants[0])
        self.trainer.train(self.order.take(1))
        checked(self.trainer.loss())
        self.first_step = time.time() * 1e3
        self.evaluated = False

    def prepared(self) -> dict[str, Any]:
        peer = self.peer
        return {
            "peer": peer.name,
            "version": peer.version,
            "parameters": peer.parameters,
            "firstStep": self.first_step,
        }

    def choose(self, seconds: float) -> dict[str, Any]:
        variants = self.peer.variants
        if len(variants) == 1:
            return {"variant": variants[0], "tried": {}}
        tried: dict[str, float] = {}
        for variant in variants:
            try:
                trainer = self.trainer if variant == variants[0] else self.peer.trainer(variant)
                ms = self.time(trainer, seconds)
            except Exception as error:  # noqa: BLE001: whatever a library throws at one of its own options
                print(f"{self.peer.name}, {variant}: {one_line(error)}", file=sys.stderr, flush=True)
                continue
            if ms < min(tried.values(), default=float("inf")):
                self.trainer, best = trainer, variant
            tried[variant] = round(ms, 4)
            # Not two of them in memory beside the one that is kept
            del trainer
        if not tried:
            raise PeerError(f"choose: none of {', '.join(variants)} can train")
        self.evaluated = False
        return {"variant": best, "tried": tried}

    def time(self, trainer: Trainer, seconds: float) -> float:
        """Milliseconds a step: of parts of the time, the fastest."""
        trainer.train(self.order.take(WARM_UP))
        part = seconds * 1e3 / PARTS
        steps = 1
        # Not from the time of one step: a call of many may take hardly longer
        while (ms := self.train(steps, trainer)) < part / 2:
            steps *= 2
        best = ms / steps
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            best = min(best, self.train(steps, trainer) / steps)
        checked(trainer.loss())
        return best

    def train(self, steps: int, trainer: Trainer | None = None) -> float:
        """Milliseconds of so many steps."""
        start = time.perf_counter()
        (trainer or self.trainer).train(self.order.take(steps))
        return (time.perf_counter() - start) * 1e3

    def evaluate(self, batches: int) -> dict[str, float]:
        count, batch = self.job.shape[0], self.job.batch
        rows = (np.arange(batches * batch) % count).reshape(batches, batch)
        if not self.evaluated:
            # What is compiled for evaluation is compiled before it is timed, as it is for training
            self.trainer.evaluate(rows[:1])
            self.evaluated = True
        start = time.perf_counter()
        loss, accuracy = self.trainer.evaluate(rows)
        ms = (time.perf_counter() - start) * 1e3
        return {"ms": ms, "loss": checked(loss), "accuracy": accuracy}


def checked(loss: float) -> float:
    if loss - loss != 0:
        raise PeerError(f"the loss is not finite: {loss}")
    return loss


def whole(request: dict[str, Any], name: str) -> int:
    value = request.get(name)
    if not isinstance(value, int) or value < 1:
        raise PeerError(f"{request['do']}: expected {name} of at least 1, received {value}")
    return value


def peak_bytes() -> int:
    """The most that was resident since the process began."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage's maximum: on Linux it begins with what the parent had resident when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def pin(threads: int) -> None:
    """Leaves a process so many cores: for a library that has no reliable switch for its threads.

    It asks for as many threads as the process may use cores, so that this must come before it is loaded.
    """
    cores = os.cpu_count() or 1
    if not hasattr(os, "sched_setaffinity"):
        if threads < cores:
            raise PeerError(f"expected {cores} threads, received {threads}: this system cannot pin a process")
        return
    own = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, own[:threads])


def one_line(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and not importlib.util.find_spec(
        error.name.split(".")[0]
    ):
        return f"no Python module {error.name}; install it: {INSTALL}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:500] if isinstance(error, PeerError) else f"{type(error).__name__}: {text}"[:500]


def serve(open_peer: Callable[[Job], Peer]) -> None:
    """Answers the requests on the standard input, one a line, until it ends."""
    # What libraries print must not come between the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session: Session | None = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            do = request.get("do")
            if do == "prepare":
                session = None
                job = Job.read(request)
                session = Session(job, open_peer(job))
                reply: dict[str, Any] = session.prepared()
            elif do == "memory":
                reply = {"peakBytes": peak_bytes()}
            elif do not in ("choose", "train", "evaluate"):
                raise PeerError(f"expected prepare, choose, train, evaluate or memory, received {do}")
            elif session is None:
                raise PeerError(f'{do}: expected "prepare" first')
            elif do == "choose":
                reply = session.choose(request.get("seconds", 5))
            elif do == "train":
                reply = {"ms": session.train(whole(request, "steps"))}
            else:
                reply = session.evaluate(whole(request, "batches"))
        except Exception as error:  # noqa: BLE001: the process lives on, whatever fails
            if not isinstance(error, PeerError):
                traceback.print_exc()
            reply = {"error": one_line(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
