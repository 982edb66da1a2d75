"""test/golden/brain.json: the brain-inspired mechanisms, each written down from its equation in PyTorch,
in float64, with gradients by autograd. Filters are applied tap by tap, matrices filled entry by entry and
inverted as they are: none of the shortcuts that Fovea takes.
"""

import itertools
import json
import math
from typing import Any, Callable

import numpy as np
import torch
import torch.nn.functional as F
from common import Json, away_from, named, normal, number, rng, tensor, uniform

ABOUT = (
    "Brain-inspired mechanisms in PyTorch, float64; maps are [N, H, W, C]. config holds the options given. "
    "weights and buffers are the values before the call, gradients are of sum(output * cotangent), and "
    "updatedBuffers the buffers after one call in training mode."
)

Values = dict[str, np.ndarray]
Tensors = dict[str, torch.Tensor]
# (x, weights and buffers) -> output, or output and updated buffers
Mechanism = Callable[[torch.Tensor, Tensors], Any]


def case(
    layer: str,
    config: dict[str, Any],
    x: np.ndarray,
    mechanism: Mechanism,
    weights: Values | None = None,
    buffers: Values | None = None,
    training: bool = False,
) -> Json:
    shown = {k: v for k, v in config.items() if not isinstance(v, dict)}
    place = "maps" if x.ndim == 4 else "vectors"
    name = f"{layer} {json.dumps(shown)} on {place} {list(x.shape)}{' training' if training else ''}"
    weights, buffers = weights or {}, buffers or {}
    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in weights.items()}
    source = torch.tensor(x, requires_grad=True)
    result = mechanism(source, {**leaves, **{k: torch.tensor(v) for k, v in buffers.items()}})
    y, updated = result if isinstance(result, tuple) else (result, {})
    cotangent = normal(rng("cotangent " + name), *y.shape)
    gradients = torch.autograd.grad(y, [source, *leaves.values()], torch.tensor(cotangent))
    row: Json = {
        "name": name,
        "layer": layer,
        "config": {k: number(v) if isinstance(v, float) else v for k, v in config.items()},
        "training": training,
        "input": tensor(x),
        "weights": [named(k, v) for k, v in weights.items()],
        "buffers": [named(k, v) for k, v in buffers.items()],
        "output": tensor(y),
        "cotangent": tensor(cotangent),
        "inputGradient": tensor(gradients[0]),
        "weightGradients": [named(k, g) for k, g in zip(leaves, gradients[1:], strict=True)],
    }
    if training:
        row["updatedBuffers"] = [named(k, v) for k, v in updated.items()]
    return row


def clear_of_zero(x: torch.Tensor, margin: float = 1e-4) -> torch.Tensor:
    """Checks that no value is so near to a kink that float32 could fall on its other side."""
    if x.abs().min() < margin:
        raise ValueError(f"a value of {x.abs().min():.2g} is too near to zero: choose another input")
    return x


def filter_maps(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """The same kernel [2r+1, 2r+1] over each channel of [N, H, W, C]; zeros outside."""
    radius = kernel.shape[0] // 2
    planes = x.permute(0, 3, 1, 2).reshape(-1, 1, x.shape[1], x.shape[2])
    y = F.conv2d(planes, kernel[None, None], padding=radius)
    return y.reshape(x.shape[0], x.shape[3], x.shape[1], x.shape[2]).permute(0, 2, 3, 1)


def gaussian(radius: int, sigma: float) -> torch.Tensor:
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return torch.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * sigma**2))


def lateral_inhibition() -> list[Json]:
    rows = []
    for config, shape in (
        ({}, (2, 5, 7, 3)),
        ({"radius": 1, "sigma": 0.7, "strength": 0.5}, (2, 4, 4, 2)),
        ({"radius": 4, "strength": 0.25}, (1, 3, 4, 2)),
        ({"learned": True}, (2, 6, 5, 3)),
        ({"learned": True, "radius": 3, "sigma": 2.0}, (1, 4, 6, 2)),
    ):
        radius = config.get("radius", 2)
        kernel = gaussian(radius, config.get("sigma", radius / 2))
        kernel[radius, radius] = 0
        kernel = kernel / kernel.sum()

        def mechanism(x: torch.Tensor, w: Tensors, kernel=kernel, config=config) -> torch.Tensor:
            return x - w.get("strength", config.get("strength", 0.1)) * filter_maps(x, kernel)

        r = rng(f"lateral inhibition {config}")
        weights = {"strength": uniform(r, -0.5, 1, shape[3])} if config.get("learned") else {}
        rows.append(case("lateralInhibition", config, normal(r, *shape), mechanism, weights))
    return rows


def difference_of_gaussians() -> list[Json]:
    rows = []
    for config, shape in (
        ({}, (1, 6, 5, 2)),
        ({"sigma1": 0.5, "sigma2": 1.5, "radius": 2, "strength": 2.0}, (2, 5, 5, 2)),
        ({"learned": True, "radius": 3}, (2, 5, 6, 3)),
    ):
        sigma1, sigma2 = config.get("sigma1", 1), config.get("sigma2", 2)
        radius = config.get("radius", math.ceil(3 * sigma2))
        centre, surround = gaussian(radius, sigma1), gaussian(radius, sigma2)
        kernel = centre / centre.sum() - surround / surround.sum()

        def mechanism(x: torch.Tensor, w: Tensors, kernel=kernel, config=config) -> torch.Tensor:
            strength = w.get("strength", config.get("strength", 0.1))
            return torch.relu(clear_of_zero(x + strength * filter_maps(x, kernel)))

        r = rng(f"difference of gaussians {config}")
        weights = {"strength": uniform(r, 0, 2, shape[3])} if config.get("learned") else {}
        rows.append(case("differenceOfGaussians", config, normal(r, *shape), mechanism, weights))
    return rows


def mexican_hat() -> list[Json]:
    rows = []
    for config, shape in (
        ({}, (2, 3, 2, 16)),
        ({"mode": "one-shot"}, (2, 2, 2, 9)),
        ({"width": 1.5, "strength": 0.2}, (4, 7)),
        ({"mode": "one-shot", "width": 2.0, "strength": 0.5, "learned": True}, (3, 8)),
        ({"learned": True}, (1, 2, 3, 12)),
        ({"learned": True, "width": 1.25, "strength": 0.25}, (4, 5)),
    ):
        channels = shape[-1]

        def mechanism(x: torch.Tensor, w: Tensors, config=config, channels=channels) -> torch.Tensor:
            width = w.get("width", torch.tensor([float(config.get("width", 3))]))
            strength = w.get("strength", torch.tensor([float(config.get("strength", 0.12))]))
            transition = torch.zeros(channels, channels)
            for i, j in itertools.product(range(channels), repeat=2):
                d = min(abs(i - j), channels - abs(i - j))
                if d == 0 or 2 * d == channels:
                    continue
                factor = 2 / (torch.sqrt(3 * width) * math.pi**0.25)
                wavelet = factor * (1 - d**2 / width**2) * torch.exp(-(d**2) / (2 * width**2))
                place = torch.zeros(channels, channels)
                place[i, j] = 1
                transition = transition + strength * wavelet * place
            if config.get("mode") == "one-shot":
                return x + x @ transition
            return x @ torch.linalg.inv(torch.eye(channels) - transition)

        r = rng(f"mexican hat {config}")
        weights = {}
        if config.get("learned"):
            weights = {"width": uniform(r, 1.5, 3, 1), "strength": uniform(r, 0.05, 0.15, 1)}
        rows.append(case("mexicanHat", config, normal(r, *shape), mechanism, weights))
    return rows


def divisive_normalization() -> list[Json]:
    rows = []
    for config, shape in (
        ({}, (2, 3, 2, 5)),
        ({}, (3, 6)),
        ({"radius": 1, "sigma": 0.5, "gamma": 2.0}, (2, 2, 3, 5)),
        ({"radius": 2, "exponent": 1.5, "strength": 0.75}, (4, 7)),
        ({"over": "space", "exponent": 1}, (2, 4, 5, 2)),
        ({"over": "space", "radius": 1, "learned": True}, (2, 5, 4, 3)),
        ({"learned": True, "exponent": 3, "sigma": 0.75}, (2, 3, 2, 4)),
    ):
        channels = shape[-1]
        radius = config.get("radius")

        def mechanism(x: torch.Tensor, w: Tensors, config=config, channels=channels, radius=radius) -> Any:
            n = config.get("exponent", 2)
            a = torch.where(clear_of_zero(x) > 0, x, 0) ** n
            if config.get("over") == "space":
                reach = radius or 2
                kernel = gaussian(reach, reach / 2)
                pool = filter_maps(a, kernel / kernel.sum())
            else:
                size = 2 * radius + 1 if radius else channels
                weights = torch.zeros(channels, channels)
                for i, j in itertools.product(range(channels), repeat=2):
                    if radius is None or abs(i - j) <= radius:
                        weights[i, j] = 1 / size
                pool = a @ weights.T
            strength = w["strength"].abs() if "strength" in w else config.get("strength", 1)
            return config.get("gamma", 1) * a / (config.get("sigma", 1) ** n + strength * pool)

        r = rng(f"divisive normalization {config} {shape}")
        weights = {}
        if config.get("learned"):
            weights = {"strength": uniform(r, -1.5, 1.5, channels)}
        x = away_from(normal(r, *shape), 0)
        rows.append(case("divisiveNormalization", config, x, mechanism, weights))
    return rows


def generalized_divisive_normalization() -> list[Json]:
    rows = []
    for config, shape in (({}, (2, 3, 2, 4)), ({"beta": 0.5, "gamma": 0.25}, (5, 6)), ({"gamma": 0.0}, (3, 3))):
        channels = shape[-1]

        def mechanism(x: torch.Tensor, w: Tensors, config=config, channels=channels) -> torch.Tensor:
            diagonal = max(math.sqrt(config.get("gamma", 0.1)), 2**-18)
            start = torch.full((channels, channels), 2.0**-18)
            start.fill_diagonal_(diagonal)
            gamma = (start + w["gammaRootChange"]) ** 2
            beta = w["betaRoot"] ** 2 + 1e-6
            norms = [
                torch.sqrt(beta[i] + sum(gamma[i, j] * x[..., j] ** 2 for j in range(channels)))
                for i in range(channels)
            ]
            return x / torch.stack(norms, -1)

        r = rng(f"gdn {config} {shape}")
        weights = {
            "betaRoot": uniform(r, 0.5, 1.5, channels),
            "gammaRootChange": normal(r, channels, channels, scale=0.5),
        }
        x = normal(r, *shape, scale=2)
        rows.append(case("generalizedDivisiveNormalization", config, x, mechanism, weights))
    return rows


def local_response_normalization() -> list[Json]:
    rows = []
    for config, shape in (
        ({}, (2, 3, 2, 7)),
        ({"size": 3, "k": 1.0, "alpha": 0.5, "beta": 0.5}, (4, 6)),
        ({"size": 4, "k": 1.0, "alpha": 0.5, "alphaDividedBy": "size"}, (2, 2, 3, 5)),
        ({"size": 9, "k": 2.0, "alpha": 1.0, "beta": 1.25}, (3, 4)),
    ):
        size = config.get("size", 5)
        alpha, beta = config.get("alpha", 1e-4), config.get("beta", 0.75)
        share = alpha / size if config.get("alphaDividedBy") == "size" else alpha

        def mechanism(x: torch.Tensor, _: Tensors, size=size, share=share, beta=beta, config=config) -> Any:
            channels = x.shape[-1]
            columns = []
            for c in range(channels):
                window = range(max(0, c - size // 2), min(channels - 1, c + (size - 1) // 2) + 1)
                squares = sum(x[..., j] ** 2 for j in window)
                columns.append(x[..., c] / (config.get("k", 2) + share * squares) ** beta)
            return torch.stack(columns, -1)

        r = rng(f"lrn {config}")
        rows.append(case("localResponseNormalization", config, normal(r, *shape, scale=2), mechanism))
    return rows


def k_winners_take_all() -> list[Json]:
    rows = []
    for config, shape, training in (
        ({"k": 2}, (2, 3, 2, 5), False),
        ({"k": 3, "boostStrength": 0.0}, (4, 7), False),
        ({"density": 0.3, "boostStrength": 2.0}, (4, 10), True),
        ({"density": 0.25, "over": "all", "dutyCyclePeriod": 8}, (3, 4, 3, 4), True),
        ({"k": 1, "boostStrength": 1.5, "dutyCyclePeriod": 2}, (3, 2, 2, 4), True),
    ):
        channels = shape[-1]
        whole = config.get("over") == "all"
        n = math.prod(shape[1:]) if whole else channels
        k = config.get("k", round(config.get("density", 0) * n))

        def mechanism(x: torch.Tensor, w: Tensors, config=config, n=n, k=k, whole=whole) -> Any:
            duty = w["dutyCycle"]
            boosted = (x * torch.exp(config.get("boostStrength", 1) * (k / n - duty))).detach()
            rows_ = boosted.reshape(x.shape[0] if whole else -1, n)
            mask = torch.zeros_like(rows_)
            for row, keep in zip(rows_, mask, strict=True):
                order = torch.argsort(row, descending=True)
                keep[order[:k]] = 1
                clear_of_zero(row[order[k - 1]] - row[order[k]])
            y = x * mask.reshape(x.shape)
            share = (y.detach() > 0).double().reshape(-1, x.shape[-1]).mean(0)
            rate = min(1, x.shape[0] / config.get("dutyCyclePeriod", 1000))
            return y, {"dutyCycle": (1 - rate) * duty + rate * share}

        r = rng(f"k winners {config}")
        buffers = {"dutyCycle": uniform(r, 0, 1, channels)}
        x = normal(r, *shape)
        rows.append(case("kWinnersTakeAll", config, x, mechanism, None, buffers, training))
    return rows


def same_padding(extent: int, size: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(extent / stride) - 1) * stride + size - extent, 0)
    return total // 2, total - total // 2


def convolve(
    x: torch.Tensor, kernel: torch.Tensor, bias: Any, stride: int, pads: tuple[int, int, int, int]
) -> torch.Tensor:
    """[N, H, W, C] with [kH, kW, C, K]; pads are left, right, top, bottom."""
    maps = F.pad(x.permute(0, 3, 1, 2), pads)
    return F.conv2d(maps, kernel.permute(3, 2, 0, 1), bias, stride).permute(0, 2, 3, 1)


def pads_of(config: dict[str, Any], x: torch.Tensor, size: int) -> tuple[int, int, int, int]:
    if config.get("padding") != "same":
        return 0, 0, 0, 0
    stride = config.get("strides", 1)
    return same_padding(x.shape[2], size, stride) + same_padding(x.shape[1], size, stride)


def push_pull() -> list[Json]:
    rows = []
    for config, shape in (
        ({"filters": 3, "kernelSize": 3, "padding": "same"}, (2, 5, 6, 2)),
        ({"filters": 2, "kernelSize": 3, "strides": 2, "useBias": False, "strength": 0.5}, (2, 7, 6, 3)),
        ({"filters": 2, "kernelSize": 3, "strides": 2, "padding": "same", "learned": True}, (1, 6, 7, 2)),
        ({"filters": 2, "kernelSize": 5, "scale": 1.5}, (1, 6, 7, 1)),
        ({"filters": 3, "kernelSize": 3, "scale": 1, "learned": True}, (1, 4, 5, 2)),
    ):

        def mechanism(x: torch.Tensor, w: Tensors, config=config) -> torch.Tensor:
            kernel, bias = w["kernel"], w.get("bias")
            size, scale, stride = config["kernelSize"], config.get("scale", 2), config.get("strides", 1)
            larger = size if scale == 1 else math.floor(size * scale)
            larger += 1 - larger % 2
            pull_kernel = F.interpolate(
                kernel.permute(3, 2, 0, 1), size=(larger, larger), mode="bilinear", align_corners=True
            ).permute(2, 3, 1, 0)
            pads = pads_of(config, x, size)
            more = larger // 2 - size // 2
            push = convolve(x, kernel, bias, stride, pads)
            minus = None if bias is None else -bias
            pull = convolve(x, -pull_kernel, minus, stride, tuple(p + more for p in pads))
            strength = torch.relu(w["strength"]) if "strength" in w else config.get("strength", 1)
            return torch.relu(clear_of_zero(push)) - strength * torch.relu(clear_of_zero(pull))

        r = rng(f"push pull {config}")
        size, filters = config["kernelSize"], config["filters"]
        weights = {"kernel": normal(r, size, size, shape[3], filters)}
        if config.get("useBias", True):
            weights["bias"] = normal(r, filters, scale=0.5)
        if config.get("learned"):
            weights["strength"] = np.array([0.75, -0.5, 1.25])[:filters]
        rows.append(case("pushPullConv2d", config, normal(r, *shape), mechanism, weights))
    return rows


def sparse() -> list[Json]:
    rows = []
    r = rng("sparse dense")
    half = {"connectivity": {"connectivity": "bernoulli", "density": 0.5}}
    three = {"connectivity": {"connectivity": "fixedFanIn", "fanIn": 3}}
    mask = (r.uniform(size=(6, 4)) < 0.5).astype(float)
    weights = {"kernel": normal(r, 6, 4), "bias": normal(r, 4)}
    rows.append(
        case(
            "sparseDense",
            {"units": 4, **half},
            normal(r, 3, 6),
            lambda x, w: x @ (w["kernel"] * w["mask"]) + w["bias"],
            weights,
            {"mask": mask},
        )
    )
    r = rng("sparse conv")
    for given in ({"padding": "same"}, {"strides": 2, "useBias": False}):
        config = {"filters": 4, "kernelSize": 3, **given, **three}
        weights = {"kernel": normal(r, 3, 3, 2, 4)}
        if given.get("useBias", True):
            weights["bias"] = normal(r, 4)

        def mechanism(x: torch.Tensor, w: Tensors, config=config) -> torch.Tensor:
            pads = pads_of(config, x, 3)
            return convolve(x, w["kernel"] * w["mask"], w.get("bias"), config.get("strides", 1), pads)

        mask = (r.uniform(size=(3, 3, 2, 4)) < 0.4).astype(float)
        x = normal(r, 2, 5, 6, 2)
        rows.append(case("sparseConv2d", config, x, mechanism, weights, {"mask": mask}))
    return rows


def make() -> dict[str, Json]:
    groups = (
        sparse,
        lateral_inhibition,
        difference_of_gaussians,
        mexican_hat,
        divisive_normalization,
        generalized_divisive_normalization,
        local_response_normalization,
        k_winners_take_all,
        push_pull,
    )
    return {"cases": [row for group in groups for row in group()]}
