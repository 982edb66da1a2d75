"""Training by PyTorch: what pytorch.py serves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from network import Network, count, read_network
from protocol import Job, Peer, Trainer
from pytorch_network import TorchNetwork
from torch import Tensor

# Options of torch.optim.Adam; "compiled" is its step by torch.compile
ADAM: dict[str, dict[str, bool]] = {
    "for-loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"foreach": False, "fused": True},
    "compiled": {"foreach": True, "fused": False},
}
EAGER = ("for-loop", "foreach", "fused")
COMPILED = ("fused", "compiled")


class SumOfSquares(torch.autograd.Function):
    """factor times the sum of squares of all kernels: autograd's own way reads and writes them more often."""

    @staticmethod
    def forward(ctx: Any, factor: float, *kernels: Tensor) -> Tensor:
        ctx.factor = factor
        ctx.save_for_backward(*kernels)
        return torch.stack(torch._foreach_norm(kernels)).square().sum().mul_(factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch._foreach_mul(ctx.saved_tensors, 2 * ctx.factor * gradient.item())


class TorchTrainer(Trainer):
    def __init__(self, peer: "PytorchPeer", variant: str) -> None:
        job = peer.job
        layout, adam = variant.split(", ")
        self.format = torch.channels_last if layout == "channels last" else torch.contiguous_format
        self.images, self.labels, self.size = peer.images, peer.labels, job.shape[1:]
        self.model = TorchNetwork(peer.network, peer.network.weights(job.seed), self.format)
        self.kernels = penalized(self.model, peer.network)
        self.compiled = peer.compiled
        self.last = torch.zeros(())
        optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, eps=1e-7, **ADAM[adam])
        self.clear = optimizer.zero_grad
        self.update: Callable[[], Any] = optimizer.step
        self.loss_of = self.forward_loss
        self.result_of = self.forward_evaluation
        if peer.compiled:
            self.loss_of = torch.compile(self.forward_loss, fullgraph=True, dynamic=False)
            self.result_of = torch.compile(self.forward_evaluation, fullgraph=True, dynamic=False)
        if adam == "compiled":
            self.update = torch.compile(optimizer.step, dynamic=False)

    def train(self, rows: np.ndarray) -> None:
        self.model.train()
        for index in torch.from_numpy(rows):
            loss = self.loss_of(self.images.index_select(0, index), self.labels.index_select(0, index))
            self.clear(set_to_none=True)
            loss.backward()
            self.update()
        self.last = loss.detach()

    def loss(self) -> float:
        return self.last.item()

    @torch.no_grad()
    def evaluate(self, rows: np.ndarray) -> tuple[float, float]:
        self.model.eval()
        losses, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for index in torch.from_numpy(rows):
            x, labels = self.images.index_select(0, index), self.labels.index_select(0, index)
            loss, right = self.result_of(x, labels)
            losses += loss
            correct += right
        return (losses / len(rows) + self.penalty()).item(), correct.item() / rows.size

    def logits(self, x: Tensor) -> Tensor:
        maps = x.view(-1, *self.size).permute(0, 3, 1, 2)
        return self.model(maps.to(torch.float32, memory_format=self.format))

    def forward_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(self.logits(x), labels)
        return loss + self.penalty() if self.kernels else loss

    def forward_evaluation(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(x)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    def penalty(self) -> Tensor:
        total = torch.zeros(())
        for factor, kernels in self.kernels.items():
            if self.compiled:
                for kernel in kernels:
                    total = total + factor * kernel.square().sum()
            else:
                total = total + SumOfSquares.apply(factor, *kernels)
        return total


def penalized(model: TorchNetwork, network: Network) -> dict[float, list[Tensor]]:
    """The kernels that have a penalty, by its factor."""
    kernels: dict[float, list[Tensor]] = {}
    for layer, part in zip(network.layers, model.parts):
        if layer.l2:
            kernels.setdefault(layer.l2, []).extend(
                parameter for name, parameter in part.named_parameters() if name.endswith("weight")
            )
    return kernels


class PytorchPeer(Peer):
    def __init__(self, job: Job, compiled: bool) -> None:
        torch.set_num_threads(job.threads)
        torch.set_flush_denormal(True)
        if compiled:
            # What was compiled for an earlier job counts against the limit of recompilations
            torch._dynamo.reset()
        self.job, self.compiled = job, compiled
        self.name = "pytorch-compile" if compiled else "pytorch"
        self.version = torch.__version__
        self.network = read_network(job.model)
        self.parameters = count(self.network.weights(job.seed))
        images, labels = job.read_images()
        # One row an image: gathering is copying rows
        self.images = torch.from_numpy(images.reshape(len(images), -1))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        has_maps = any("kernelSize" in layer.options for layer in self.network.layers)
        layouts = ("contiguous", "channels last") if has_maps else ("contiguous",)
        forms = COMPILED if compiled else EAGER
        self.variants = tuple(f"{layout}, {form}" for form in forms for layout in layouts)

    def trainer(self, variant: str) -> TorchTrainer:
        return TorchTrainer(self, variant)
