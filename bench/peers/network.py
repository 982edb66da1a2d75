"""Fovea's description of a network, read and checked once for all Python peers: shapes, weights, penalties.

Kinds and options are those of src/nn; one that is not known here is an error. Maps are [H, W, C] and vectors
[F], for one image; weights have Fovea's names, shapes and distributions, so that every peer begins with the
same values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from protocol import PeerError

Shape = tuple[int, ...]

KERNEL = {"activation", "useBias", "kernelInitializer", "biasInitializer", "kernelRegularizer"}
WINDOW = {"kernelSize", "strides", "padding", "dilationRate"}

OPTIONS: dict[str, set[str]] = {
    "rescaling": {"scale", "offset"},
    "conv2d": {"filters", "groups"} | WINDOW | KERNEL,
    "separableConv2d": {"filters", "depthMultiplier"} | WINDOW | KERNEL,
    "maxPooling2d": WINDOW,
    "averagePooling2d": WINDOW,
    "globalAveragePooling2d": set(),
    "flatten": set(),
    "dense": {"units"} | KERNEL,
    "sparseDense": {"units", "connectivity"} | KERNEL,
    "lateralInhibition": {"radius", "sigma", "strength", "learned"},
    "batchNormalization": {"momentum", "epsilon", "center", "scale"},
    "activation": {"activation"},
    "pixelAttention": {"keyDim", "kernelInitializer", "valueInitializer"},
    "add": set(),
    "channelPadding": {"channels"},
    "zeroPadding2d": {"padding"},
}

ACTIVATIONS = ("linear", "relu", "leakyRelu", "tanh", "sigmoid")


@dataclass(frozen=True)
class Activation:
    """`leakyRelu` has a slope; the others have none."""

    name: str
    slope: float = 0.2


@dataclass(frozen=True)
class Layer:
    name: str
    kind: str
    inputs: tuple[str, ...]
    options: dict[str, Any]
    # Of its first input, and of its result
    input_shape: Shape
    shape: Shape

    def __getitem__(self, option: str) -> Any:
        return self.options[option]

    @property
    def activation(self) -> Activation:
        value = self.options["activation"]
        if isinstance(value, str):
            return Activation(value)
        return Activation(value["activation"], value["slope"])

    @property
    def l2(self) -> float:
        """The penalty's factor of the sum of squares of each kernel; 0: none."""
        return (self.options.get("kernelRegularizer") or {}).get("l2", 0.0)


@dataclass(frozen=True)
class Weight:
    values: np.ndarray
    trained: bool


@dataclass(frozen=True)
class Network:
    input: Shape
    layers: tuple[Layer, ...]
    output: str

    def readers(self, name: str) -> list[Layer]:
        return [layer for layer in self.layers if name in layer.inputs]

    def weights(self, seed: int) -> dict[str, Weight]:
        """First values of all parameters and buffers by name: `conv1/kernel`."""
        random = np.random.default_rng(seed)
        return {
            f"{layer.name}/{name}": weight
            for layer in self.layers
            for name, weight in layer_weights(layer, random).items()
        }


def count(weights: dict[str, Weight]) -> int:
    """Trained values, as Fovea counts them: masked ones too."""
    return sum(weight.values.size for weight in weights.values() if weight.trained)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Cells before and after an axis for `padding: "same"`: the odd one stands after it, as in Keras."""
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return total // 2, total - total // 2


def gaussian_taps(radius: int, sigma: float) -> np.ndarray:
    """e^(-d^2 / (2 sigma^2)) at d = -radius .. radius, scaled to a sum of 1; float64."""
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return taps / taps.sum()


def inhibition_kernel(layer: Layer) -> np.ndarray:
    """What lateral inhibition convolves each map with, float64 [2 radius + 1, 2 radius + 1].

    1 in the centre, -strength G around it; G is the Gaussian without its centre, scaled to a sum of 1.
    """
    taps = gaussian_taps(layer["radius"], layer["sigma"])
    kernel = np.outer(taps, taps)
    centre = (layer["radius"], layer["radius"])
    kernel[centre] = 0
    kernel *= -layer["strength"] / kernel.sum()
    kernel[centre] = 1
    return kernel


def inhibition_bands(layer: Layer) -> tuple[float, np.ndarray, np.ndarray]:
    """The same as y = a x + R x C: a, R [H, H] and C [W, W], for a map x [H, W]."""
    height, width, _ = layer.input_shape
    taps = gaussian_taps(layer["radius"], layer["sigma"])
    b = taps[layer["radius"]] ** 2
    share = layer["strength"] / (1 - b)

    def band(extent: int) -> np.ndarray:
        at = np.arange(extent)
        distance = at[:, None] - at[None, :] + layer["radius"]
        inside = (distance >= 0) & (distance < len(taps))
        return np.where(inside, taps[np.clip(distance, 0, len(taps) - 1)], 0)

    return 1 + b * share, -share * band(height), band(width)


def read_network(model: dict[str, Any]) -> Network:
    """Checks a description.

    :raises PeerError: for a kind, an option or a value that is not known here
    """
    shapes: dict[str, Shape] = {"input": tuple(model["input"])}
    layers: list[Layer] = []
    for use in model["layers"]:
        name, description = use["name"], use["layer"]
        kind = description["layer"]
        if kind not in OPTIONS:
            raise PeerError(f'"{name}": no layer {kind}')
        options = {key: value for key, value in description.items() if key not in ("layer", "name")}
        inputs = tuple(use["inputs"])
        input_shape = shapes[inputs[0]]
        check(f'{kind} "{name}"', kind, options)
        shapes[name] = output_shape(kind, options, input_shape)
        layers.append(Layer(name, kind, inputs, options, input_shape, shapes[name]))
    return Network(tuple(model["input"]), tuple(layers), model["output"])


def check(where: str, kind: str, options: dict[str, Any]) -> None:
    def expect(fine: bool, option: str) -> None:
        if not fine:
            raise PeerError(f"{where}: {option} {options[option]} is not known here")

    for option, value in options.items():
        if option not in OPTIONS[kind]:
            raise PeerError(f"{where}: no option {option}")
        if option == "activation":
            name = value if isinstance(value, str) else value.get("activation")
            slope = isinstance(value, str) or set(value) == {"activation", "slope"}
            expect(name in ACTIVATIONS and slope, option)
        elif option == "padding" and kind != "zeroPadding2d":
            expect(value in ("valid", "same"), option)
        elif option == "kernelRegularizer":
            expect(set(value) <= {"l1", "l2"} and value.get("l1", 0) == 0, option)
        elif option == "connectivity":
            expect(set(value) == {"connectivity", "density"} and value["connectivity"] == "bernoulli", option)
        elif option in ("kernelInitializer", "biasInitializer", "valueInitializer"):
            expect(set(value) == {"initializer"} and value["initializer"] in INITIALIZERS, option)
        elif option == "learned":
            expect(value is False, option)
        elif option == "dilationRate" and "Pooling" in kind:
            expect(value == [1, 1], option)


def output_shape(kind: str, options: dict[str, Any], x: Shape) -> Shape:
    if "kernelSize" in options:
        windows = zip(x, options["kernelSize"], options["strides"], options["dilationRate"])
        same = options["padding"] == "same"
        sizes = (
            -(-size // stride) if same else (size - (kernel - 1) * dilation - 1) // stride + 1
            for size, kernel, stride, dilation in windows
        )
        return (*sizes, options.get("filters", x[2]))
    match kind:
        case "dense" | "sparseDense":
            return (options["units"],)
        case "flatten":
            return (math.prod(x),)
        case "globalAveragePooling2d":
            return x[2:]
        case "channelPadding":
            return (*x[:2], options["channels"])
        case "zeroPadding2d":
            rows, columns = options["padding"]
            return (x[0] + sum(rows), x[1] + sum(columns), x[2])
    return x


# Values of a shape, by the connections into and out of a unit
Draw = Callable[[np.random.Generator, Shape, float, float], np.ndarray]


def uniform(random: np.random.Generator, shape: Shape, variance: float) -> np.ndarray:
    limit = math.sqrt(3 * variance)
    return random.uniform(-limit, limit, shape)


def truncated_normal(random: np.random.Generator, shape: Shape, variance: float) -> np.ndarray:
    """Cut at two deviations, of that variance after the cut."""
    values = random.standard_normal(shape)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = random.standard_normal(np.count_nonzero(beyond))
    return values * (math.sqrt(variance) / 0.87962566103423978)


INITIALIZERS: dict[str, Draw] = {
    "zeros": lambda random, shape, fan_in, fan_out: np.zeros(shape),
    "ones": lambda random, shape, fan_in, fan_out: np.ones(shape),
    "glorotUniform": lambda random, shape, fan_in, fan_out: uniform(random, shape, 2 / (fan_in + fan_out)),
    "glorotNormal": lambda random, shape, fan_in, fan_out: truncated_normal(
        random, shape, 2 / (fan_in + fan_out)
    ),
    "heUniform": lambda random, shape, fan_in, fan_out: uniform(random, shape, 2 / fan_in),
    "heNormal": lambda random, shape, fan_in, fan_out: truncated_normal(random, shape, 2 / fan_in),
}


def layer_weights(layer: Layer, random: np.random.Generator) -> dict[str, Weight]:
    def drawn(initializer: str, shape: Shape, density: float = 1) -> Weight:
        field = math.prod(shape[:-2])
        fans = (field * size * density for size in (shape[-2:] if len(shape) > 1 else shape * 2))
        values = INITIALIZERS[layer[initializer]["initializer"]](random, shape, *fans)
        return Weight(values.astype(np.float32), True)

    def filled(value: float, trained: bool) -> Weight:
        return Weight(np.full(channels, value, np.float32), trained)

    def with_bias(weights: dict[str, Weight]) -> dict[str, Weight]:
        return weights | ({"bias": drawn("biasInitializer", layer.shape[-1:])} if layer["useBias"] else {})

    channels = layer.input_shape[-1]
    match layer.kind:
        case "conv2d":
            shape = (*layer["kernelSize"], channels // layer["groups"], layer["filters"])
            return with_bias({"kernel": drawn("kernelInitializer", shape)})
        case "separableConv2d":
            depth = layer["depthMultiplier"]
            return with_bias(
                {
                    "depthwiseKernel": drawn("kernelInitializer", (*layer["kernelSize"], channels, depth)),
                    "pointwiseKernel": drawn(
                        "kernelInitializer", (1, 1, channels * depth, layer["filters"])
                    ),
                }
            )
        case "dense":
            return with_bias({"kernel": drawn("kernelInitializer", (channels, layer["units"]))})
        case "sparseDense":
            shape = (channels, layer["units"])
            density = layer["connectivity"]["density"]
            mask = (random.random(shape) < density).astype(np.float32)
            kernel = drawn("kernelInitializer", shape, density)
            return with_bias({"kernel": kernel, "mask": Weight(mask, False)})
        case "batchNormalization":
            return (
                ({"gamma": filled(1, True)} if layer["scale"] else {})
                | ({"beta": filled(0, True)} if layer["center"] else {})
                | {"movingMean": filled(0, False), "movingVariance": filled(1, False)}
            )
        case "pixelAttention":
            key = layer.options.get("keyDim") or channels
            of_values = "valueInitializer" if "valueInitializer" in layer.options else "kernelInitializer"
            return {
                "query": drawn("kernelInitializer", (channels, key)),
                "key": drawn("kernelInitializer", (channels, key)),
                "value": drawn(of_values, (channels, channels)),
            }
    return {}
