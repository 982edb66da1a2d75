"""test/golden/attention.json: self-attention layers for feature maps, each written down from its equation in PyTorch,
in float64, with gradients by autograd. Every matrix of scores is computed whole. Multi-head attention is PyTorch's own, and
is checked against Keras's layer before it is written.
"""

import math
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F
from brain import Tensors, case, clear_of_zero
from common import Json, distinct, normal, rng

ABOUT = (
    "Self-attention layers in PyTorch, float64; maps are [N, H, W, C]. config holds the options given. weights are the "
    "values before the call, and gradients are of sum(output * cotangent)."
)


def tokens(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(x.shape[0], -1, x.shape[-1])


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.softmax(scale * q @ k.transpose(-1, -2), -1) @ v


def value_attention() -> list[Json]:
    rows = []
    for config, shape in (
        ({}, (2, 3, 4, 3)),
        ({"scoresAtOnce": 500}, (2, 3, 4, 3)),
        ({"evaluation": "grid"}, (2, 3, 4, 3)),
        ({"evaluation": "grid", "intervals": 100, "scoresAtOnce": 1000}, (3, 4, 5, 2)),
    ):

        def mechanism(x: torch.Tensor, w: Tensors) -> torch.Tensor:
            flat = x.reshape(x.shape[0], -1, 1)
            y = attend(w["query"] * flat, w["key"] * flat, w["value"] * flat, 1)
            return x + y.reshape(x.shape)

        r = rng(f"value attention {config}")
        weights = {k: normal(r, 1) for k in ("query", "key", "value")}
        rows.append(case("valueAttention", config, normal(r, *shape), mechanism, weights))
    return rows


def pixel_attention() -> list[Json]:
    rows = []
    for config, shape in (({}, (2, 3, 4, 3)), ({"keyDim": 2}, (1, 4, 3, 5))):
        channels = shape[-1]
        width = config.get("keyDim", channels)

        def mechanism(x: torch.Tensor, w: Tensors, width=width) -> torch.Tensor:
            t = tokens(x)
            y = attend(t @ w["query"], t @ w["key"], t @ w["value"], 1 / math.sqrt(width))
            return x + y.reshape(x.shape)

        r = rng(f"pixel attention {config}")
        weights = {
            "query": normal(r, channels, width),
            "key": normal(r, channels, width),
            "value": normal(r, channels, channels),
        }
        rows.append(case("pixelAttention", config, normal(r, *shape), mechanism, weights))
    return rows


def map_attention() -> list[Json]:
    rows = []
    for config, shape in (({"keyDim": 3}, (2, 3, 4, 5)), ({"keyDim": 2, "join": "add"}, (3, 2, 3, 4)), ({}, (1, 3, 2, 3))):
        size, width = shape[1] * shape[2], config.get("keyDim", 64)

        def mechanism(x: torch.Tensor, w: Tensors, config=config, width=width) -> torch.Tensor:
            maps = x.permute(0, 3, 1, 2).reshape(x.shape[0], x.shape[3], -1)
            y = attend(maps @ w["query"], maps @ w["key"], maps, 1 / math.sqrt(width))
            y = y.reshape(x.shape[0], x.shape[3], x.shape[1], x.shape[2]).permute(0, 2, 3, 1)
            return x + y if config.get("join") == "add" else torch.cat([x, y], -1)

        r = rng(f"map attention {config}")
        weights = {k: normal(r, size, width, scale=0.5) for k in ("query", "key")}
        rows.append(case("mapAttention", config, normal(r, *shape), mechanism, weights))
    return rows


def squeeze_excitation() -> list[Json]:
    rows = []
    for config, shape in (
        ({}, (2, 2, 3, 16)),
        ({"reduction": 2, "useBias": True}, (3, 3, 2, 5)),
        ({"reduction": 8}, (2, 2, 2, 3)),
    ):
        channels = shape[-1]
        hidden = max(1, channels // config.get("reduction", 16))

        def mechanism(x: torch.Tensor, w: Tensors) -> torch.Tensor:
            z = x.mean((1, 2))
            h = torch.relu(clear_of_zero(z @ w["squeeze/kernel"] + w.get("squeeze/bias", 0)))
            s = torch.sigmoid(h @ w["excite/kernel"] + w.get("excite/bias", 0))
            return x * s[:, None, None, :]

        r = rng(f"squeeze excitation {config}")
        weights = {}
        for part, sizes in (("squeeze", (channels, hidden)), ("excite", (hidden, channels))):
            weights[f"{part}/kernel"] = normal(r, *sizes)
            if config.get("useBias"):
                weights[f"{part}/bias"] = normal(r, sizes[1])
        rows.append(case("squeezeExcitation", config, normal(r, *shape), mechanism, weights))
    return rows


def cbam() -> list[Json]:
    """Woo et al. 2018, equations 1 to 3; `amax` shares the gradient among equal maxima, as TensorFlow's reduce_max does."""

    def by_channel(x: torch.Tensor, w: Tensors, part: str = "") -> torch.Tensor:
        def mlp(z: torch.Tensor) -> torch.Tensor:
            h = torch.relu(clear_of_zero(z @ w[f"{part}squeeze/kernel"] + w.get(f"{part}squeeze/bias", 0)))
            return h @ w[f"{part}excite/kernel"] + w.get(f"{part}excite/bias", 0)

        return x * torch.sigmoid(mlp(x.mean((1, 2))) + mlp(x.amax((1, 2))))[:, None, None, :]

    def by_position(x: torch.Tensor, w: Tensors, part: str = "") -> torch.Tensor:
        kernel = w[f"{part}kernel"].permute(3, 2, 0, 1)
        maps = torch.stack([x.mean(3), x.amax(3)], 1)
        return x * torch.sigmoid(F.conv2d(maps, kernel, padding="same"))[:, 0, :, :, None]

    rows = []
    for layer, config, shape in (
        ("channelAttention", {}, (2, 3, 2, 16)),
        ("channelAttention", {"reduction": 2, "useBias": True}, (3, 2, 3, 5)),
        ("spatialAttention", {}, (2, 5, 8, 3)),
        ("spatialAttention", {"kernelSize": 3}, (1, 4, 3, 4)),
        ("cbam", {}, (2, 4, 5, 4)),
        ("cbam", {"reduction": 3, "kernelSize": 5, "useBias": True}, (2, 3, 6, 7)),
    ):
        channels, size = shape[-1], config.get("kernelSize", 7)
        hidden = max(1, channels // config.get("reduction", 16))
        parts = ("channel/", "spatial/") if layer == "cbam" else ("", "")

        def mechanism(x: torch.Tensor, w: Tensors, layer=layer, parts=parts) -> torch.Tensor:
            if layer != "spatialAttention":
                x = by_channel(x, w, parts[0])
            return x if layer == "channelAttention" else by_position(x, w, parts[1])

        r = rng(f"{layer} {config}")
        weights = {}
        if layer != "spatialAttention":
            for part, sizes in (("squeeze", (channels, hidden)), ("excite", (hidden, channels))):
                weights[f"{parts[0]}{part}/kernel"] = normal(r, *sizes)
                if config.get("useBias"):
                    weights[f"{parts[0]}{part}/bias"] = normal(r, sizes[1])
        if layer != "channelAttention":
            weights[f"{parts[1]}kernel"] = normal(r, size, size, 2, 1, scale=0.5)
        # Halves: maxima that are equal over a map and over channels, as zeros are after relu. In cbam none,
        # since the first part tells equal values apart by rounding only.
        x = np.round(2 * normal(r, *shape)) / 2 if layer != "cbam" else distinct(r, *shape)
        rows.append(case(layer, config, x, mechanism, weights))
    return rows


def bottlenecks() -> list[Json]:
    rows = []
    for layer, usual in (("nonLocal", 2), ("saganAttention", 8)):
        for config, shape in (({}, (2, 3, 2, 5)), ({"reduction": 3}, (1, 3, 3, 6))):
            channels = shape[-1]
            width = max(1, channels // config.get("reduction", usual))

            def mechanism(x: torch.Tensor, w: Tensors) -> torch.Tensor:
                t = tokens(x)
                y = attend(t @ w["query"], t @ w["key"], t @ w["value"], 1) @ w["output"]
                return x + w.get("gamma", 1) * y.reshape(x.shape)

            r = rng(f"{layer} {config}")
            weights = {k: normal(r, channels, width) for k in ("query", "key", "value")}
            weights["output"] = normal(r, width, channels)
            if layer == "saganAttention":
                weights["gamma"] = normal(r, 1)
            rows.append(case(layer, config, normal(r, *shape), mechanism, weights))
    return rows


def multi_head_attention() -> list[Json]:
    rows = []
    for config, shape in (
        ({"numHeads": 2, "keyDim": 3}, (2, 3, 2, 6)),
        ({"numHeads": 3, "keyDim": 1, "useBias": False}, (1, 2, 4, 3)),
        ({"numHeads": 1, "keyDim": 4}, (2, 2, 2, 4)),
    ):
        channels, heads, size = shape[-1], config["numHeads"], config["keyDim"]
        biased = config.get("useBias", True)
        parts = ("query", "key", "value")

        def mechanism(x: torch.Tensor, w: Tensors, heads=heads, channels=channels, biased=biased) -> Any:
            t = tokens(x).transpose(0, 1)  # [T, N, C]
            into = torch.cat([w[f"{p}/kernel"].reshape(channels, -1).T for p in parts])
            y, _ = F.multi_head_attention_forward(
                t,
                t,
                t,
                channels,
                heads,
                into,
                torch.cat([w[f"{p}/bias"].reshape(-1) for p in parts]) if biased else None,
                None,
                None,
                False,
                0.0,
                w["output/kernel"].reshape(-1, channels).T,
                w["output/bias"] if biased else None,
            )
            return y.transpose(0, 1).reshape(x.shape)

        r = rng(f"multi-head attention {config}")
        weights = {}
        for part in (*parts, "output"):
            out = part == "output"
            weights[f"{part}/kernel"] = normal(r, *((heads, size, channels) if out else (channels, heads, size)))
            if biased:
                weights[f"{part}/bias"] = normal(r, *((channels,) if out else (heads, size)))
        x = normal(r, *shape)
        row = case("multiHeadAttention", config, x, mechanism, weights)
        layer = keras.layers.MultiHeadAttention(heads, size, use_bias=biased, dtype="float64")
        flat = x.reshape(shape[0], -1, channels)
        layer(flat, flat)
        layer.set_weights(list(weights.values()))
        theirs = np.asarray(layer(flat, flat)).reshape(-1)
        error = np.abs(theirs - row["output"]["data"]).max()
        # Keras has 1 / sqrt(D) in single precision: 7e-8 for D = 3, below 1e-8 where the root is exact.
        if error > 1e-7:
            raise ValueError(f"PyTorch's and Keras's multi-head attention differ by {error}")
        rows.append(row)
    return rows


def make() -> dict[str, Json]:
    groups = (
        value_attention,
        pixel_attention,
        map_attention,
        squeeze_excitation,
        cbam,
        bottlenecks,
        multi_head_attention,
    )
    return {"cases": [row for group in groups for row in group()]}
