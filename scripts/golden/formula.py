"""Weights that Python and TypeScript compute alike: streams of Threefry-2x32, as in src/util/random.ts."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

# A tensor's values repeat after so many, a prime: drawing all 60 million takes TypeScript a minute.
PERIOD = 65_521

Application = tuple[str, Callable[..., keras.Model], Callable[[np.ndarray], np.ndarray], int]


def applications() -> list[Application]:
    """Name, constructor, preprocessing, and the least side of an image, of each network."""
    a = keras.applications
    return [
        ("vgg16", a.VGG16, a.vgg16.preprocess_input, 32),
        ("resnet50", a.ResNet50, a.resnet50.preprocess_input, 32),
        ("xception", a.Xception, a.xception.preprocess_input, 71),
    ]


def uniform(count: int, *path: str) -> np.ndarray:
    """`uniform(key(0, ...path), count)`: float64 in [0, 1)."""
    text = json.dumps([0, *path], separators=(",", ":"))
    k0, k1 = np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], "<u4")
    blocks = (count + 1) // 2
    x0 = np.arange(blocks, dtype=np.uint32)
    x1 = np.zeros(blocks, dtype=np.uint32)
    keys = [np.uint32(k0), np.uint32(k1), np.uint32(k0 ^ k1 ^ np.uint32(0x1BD11BDA))]
    rotations = [(13, 15, 26, 6), (17, 29, 16, 24)]
    with np.errstate(over="ignore"):
        x0 += keys[0]
        x1 += keys[1]
        for group in range(5):
            for r in rotations[group % 2]:
                x0 += x1
                x1 = ((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))) ^ x0
            x0 += keys[(group + 1) % 3]
            x1 += keys[(group + 2) % 3] + np.uint32(group + 1)
    return np.stack([x0, x1], axis=1).reshape(-1)[:count] / 2**32


def formula_weights(layer: str, weight: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels keep the scale of what they multiply; all else is uniform, one wide."""
    count = math.prod(shape)
    u = np.resize(uniform(min(count, PERIOD), "weights", layer, weight), count)
    if weight.endswith("kernel"):
        taps = shape[0] * shape[1] if weight == "depthwise_kernel" else math.prod(shape[:-1])
        values = (u - 0.5) * (2 * math.sqrt(3 / taps))
    elif weight in ("gamma", "moving_variance"):
        values = u + 0.5
    else:
        values = u - 0.5
    return values.astype(np.float32).reshape(shape)


def assign_formula(model: keras.Model) -> None:
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(formula_weights(layer.name, weight.name, tuple(weight.shape)))


def formula_image(name: str, side: int) -> np.ndarray:
    """Pixels 0 to 255 [1, side, side, 3]."""
    return np.floor(uniform(side * side * 3, "image", name) * 256).astype(np.uint8).reshape(1, side, side, 3)


def layer_list(model: keras.Model) -> list[Any]:
    return [
        {"name": layer.name, "weights": [{"name": w.name, "shape": list(w.shape)} for w in layer.weights]}
        for layer in model.layers
        if layer.weights
    ]
