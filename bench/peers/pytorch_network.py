"""Fovea's networks in PyTorch: the same maths, each layer in the form that is fastest there.

Maps are [N, C, H, W] in either memory layout, vectors [N, F]. Where a layer is alone in reading what the one
before has computed, it overwrites it.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from network import Activation, Layer, Network, Weight, inhibition_bands, inhibition_kernel, same_padding
from protocol import PeerError
from torch import Tensor, nn

# Layers whose backward pass does not read their own result
OVERWRITABLE = ("rescaling", "conv2d", "separableConv2d", "dense", "sparseDense", "batchNormalization", "add")

Values = dict[str, np.ndarray]


def parameter(values: np.ndarray, layout: torch.memory_format = torch.contiguous_format) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values).contiguous(memory_format=layout))


def activate(x: Tensor, activation: Activation, overwrite: bool = True) -> Tensor:
    match activation.name:
        case "relu":
            return torch.relu_(x) if overwrite else torch.relu(x)
        case "tanh":
            return torch.tanh_(x) if overwrite else torch.tanh(x)
        case "sigmoid":
            return torch.sigmoid_(x) if overwrite else torch.sigmoid(x)
        case "leakyRelu":
            return F.leaky_relu(x, activation.slope, inplace=overwrite)
    return x


class Rescaling(nn.Module):
    def __init__(self, layer: Layer, overwrite: bool) -> None:
        super().__init__()
        self.scale, self.offset, self.overwrite = layer["scale"], layer["offset"], overwrite

    def forward(self, x: Tensor) -> Tensor:
        x = x.mul_(self.scale) if self.overwrite else x.mul(self.scale)
        return x.add_(self.offset) if self.offset else x


class Padding(nn.Module):
    """A window's cells around a map: those that are the same on both sides are left to the window itself."""

    def __init__(self, layer: Layer, value: float = 0) -> None:
        super().__init__()
        sides = [(0, 0), (0, 0)]
        if layer["padding"] == "same":
            windows = zip(layer.input_shape, layer["kernelSize"], layer["strides"], layer["dilationRate"])
            sides = [same_padding(*window) for window in windows]
        self.sides = sides
        (above, below), (left, right) = sides
        self.value = value
        self.even = (above, left) if (above, left) == (below, right) else None
        self.around = (left, right, above, below)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.even else F.pad(x, self.around, value=self.value)


class Convolution(nn.Module):
    """conv2d; with `depthwise` the first half of separableConv2d."""

    def __init__(self, layer: Layer, values: Values, layout: torch.memory_format, depthwise: bool) -> None:
        super().__init__()
        if depthwise:
            kernel = values["depthwiseKernel"]  # [kH, kW, C, m]
            size = kernel.shape[:2]
            kernel = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *size)  # output channel c m + j
            self.groups = layer.input_shape[2]
        else:
            kernel = values["kernel"].transpose(3, 2, 0, 1)
            self.groups = layer["groups"]
        self.weight = parameter(kernel, layout)
        biased = layer["useBias"] and not depthwise
        self.bias = parameter(values["bias"]) if biased else None
        self.strides, self.dilation = tuple(layer["strides"]), tuple(layer["dilationRate"])
        self.padding = Padding(layer)
        self.activation = Activation("linear") if depthwise else layer.activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.padding(x)
        even = self.padding.even or 0
        y = F.conv2d(x, self.weight, self.bias, self.strides, even, self.dilation, self.groups)
        return activate(y, self.activation)


class SeparableConvolution(nn.Module):
    def __init__(self, layer: Layer, values: Values, layout: torch.memory_format) -> None:
        super().__init__()
        self.depthwise = Convolution(layer, values, layout, depthwise=True)
        self.weight = parameter(values["pointwiseKernel"].transpose(3, 2, 0, 1), layout)
        self.bias = parameter(values["bias"]) if layer["useBias"] else None
        self.activation = layer.activation

    def forward(self, x: Tensor) -> Tensor:
        return activate(F.conv2d(self.depthwise(x), self.weight, self.bias), self.activation)


class MaxPooling(nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.size, self.strides = tuple(layer["kernelSize"]), tuple(layer["strides"])
        self.padding = Padding(layer, float("-inf"))
        # Windows that reach beyond the last row are cut there: no map has to be padded
        (above, _), (left, _) = self.padding.sides
        self.ceil = layer["padding"] == "same" and above == left == 0 and min(self.strides) > 1

    def forward(self, x: Tensor) -> Tensor:
        if self.ceil:
            return F.max_pool2d(x, self.size, self.strides, ceil_mode=True)
        return F.max_pool2d(self.padding(x), self.size, self.strides, self.padding.even or 0)


class AveragePooling(nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.size, self.strides = tuple(layer["kernelSize"]), tuple(layer["strides"])
        self.even = Padding(layer).even
        if self.even is None:
            raise PeerError(f'"{layer.name}": PyTorch has no averagePooling2d with uneven padding')

    def forward(self, x: Tensor) -> Tensor:
        if self.size == (1, 1):
            return x[:, :, :: self.strides[0], :: self.strides[1]]
        return F.avg_pool2d(x, self.size, self.strides, self.even, count_include_pad=False)


class GlobalAveragePooling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Flatten(nn.Module):
    """To vectors in the order of the memory: of rows, columns, channels only where the maps are so."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x
        return (x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1)


class Dense(nn.Module):
    """dense and sparseDense. `rows`: the order in which the layer before gives its values."""

    def __init__(self, layer: Layer, values: Values, rows: np.ndarray | None) -> None:
        super().__init__()

        def turned(kernel: np.ndarray) -> np.ndarray:
            return (kernel if rows is None else kernel[rows]).T

        self.weight = parameter(turned(values["kernel"]))
        self.bias = parameter(values["bias"]) if layer["useBias"] else None
        self.activation = layer.activation
        mask = torch.tensor(turned(values["mask"])).contiguous() if "mask" in values else None
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        return activate(F.linear(x, weight, self.bias), self.activation)


class BatchNormalization(nn.Module):
    def __init__(self, layer: Layer, values: Values) -> None:
        super().__init__()
        self.weight = parameter(values["gamma"]) if layer["scale"] else None
        self.bias = parameter(values["beta"]) if layer["center"] else None
        self.register_buffer("mean", torch.tensor(values["movingMean"]))
        self.register_buffer("variance", torch.tensor(values["movingVariance"]))
        self.momentum, self.epsilon = 1 - layer["momentum"], layer["epsilon"]

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.mean, self.variance, self.weight, self.bias, self.training, self.momentum, self.epsilon
        )


class ActivationLayer(nn.Module):
    def __init__(self, layer: Layer, overwrite: bool) -> None:
        super().__init__()
        self.activation, self.overwrite = layer.activation, overwrite

    def forward(self, x: Tensor) -> Tensor:
        return activate(x, self.activation, self.overwrite)


class LateralInhibition(nn.Module):
    """In either layout the faster form: one depthwise convolution, or products with banded matrices."""

    def __init__(self, layer: Layer, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        if channels_last:
            self.channels, self.radius = layer.input_shape[2], layer["radius"]
            kernel = torch.tensor(inhibition_kernel(layer), dtype=torch.float32)
            kernel = kernel.expand(self.channels, 1, -1, -1)
            self.register_buffer("kernel", kernel.contiguous(memory_format=torch.channels_last))
        else:
            self.own, rows, columns = inhibition_bands(layer)
            self.register_buffer("rows", torch.tensor(rows, dtype=torch.float32))
            self.register_buffer("columns", torch.tensor(columns, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last:
            return F.conv2d(x, self.kernel, padding=self.radius, groups=self.channels)
        return torch.add(torch.matmul(self.rows, torch.matmul(x, self.columns)), x, alpha=self.own)


class PixelAttention(nn.Module):
    """Queries, keys and values by one product: their kernels are one parameter."""

    def __init__(self, layer: Layer, values: Values) -> None:
        super().__init__()
        kernels = [values[name] for name in ("query", "key", "value")]
        self.weight = parameter(np.concatenate(kernels, axis=1).T)
        self.sizes = [kernel.shape[1] for kernel in kernels]

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, H W, C]
        query, key, value = F.linear(tokens, self.weight).unsqueeze(1).split(self.sizes, dim=3)
        attended = F.scaled_dot_product_attention(query, key, value).squeeze(1)
        return x + attended.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class Add(nn.Module):
    def __init__(self, overwrite: bool) -> None:
        super().__init__()
        self.overwrite = overwrite

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        y = first
        for i, other in enumerate(others):
            y = y.add_(other) if self.overwrite or i > 0 else y + other
        return y


class ZeroPadding(nn.Module):
    """zeroPadding2d and channelPadding."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        if layer.kind == "channelPadding":
            self.around: tuple[int, ...] = (0, 0, 0, 0, 0, layer["channels"] - layer.input_shape[2])
        else:
            rows, columns = layer["padding"]
            self.around = (*columns, *rows)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.around)


class TorchNetwork(nn.Module):
    """Images, float32 [N, C, H, W] in the given layout, to logits [N, classes]; overwrites the images."""

    def __init__(self, network: Network, weights: dict[str, Weight], layout: torch.memory_format) -> None:
        super().__init__()
        self.parts = nn.ModuleList(module_of(layer, network, weights, layout) for layer in network.layers)
        last: dict[str, int] = {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}
        # What each reads, what it is called, and what is not needed after it
        self.steps = [
            (layer.inputs, layer.name, [name for name in set(layer.inputs) if last[name] == i])
            for i, layer in enumerate(network.layers)
        ]
        self.output = network.output

    def forward(self, images: Tensor) -> Tensor:
        known = {"input": images}
        for part, (inputs, name, done) in zip(self.parts, self.steps):
            known[name] = part(*(known[source] for source in inputs))
            for source in done:
                del known[source]
        return known[self.output]


def module_of(
    layer: Layer, network: Network, weights: dict[str, Weight], layout: torch.memory_format
) -> nn.Module:
    prefix = f"{layer.name}/"
    values = {key.removeprefix(prefix): w.values for key, w in weights.items() if key.startswith(prefix)}
    channels_last = layout == torch.channels_last
    source = layer.inputs[0]
    before = next((other for other in network.layers if other.name == source), None)
    overwrite = len(network.readers(source)) == 1 and (before is None or before.kind in OVERWRITABLE)
    if overwrite and before is not None and before.options.get("activation", "linear") != "linear":
        overwrite = False
    makers: dict[str, Callable[[], nn.Module]] = {
        "rescaling": lambda: Rescaling(layer, overwrite),
        "conv2d": lambda: Convolution(layer, values, layout, depthwise=False),
        "separableConv2d": lambda: SeparableConvolution(layer, values, layout),
        "maxPooling2d": lambda: MaxPooling(layer),
        "averagePooling2d": lambda: AveragePooling(layer),
        "globalAveragePooling2d": GlobalAveragePooling,
        "flatten": lambda: Flatten(channels_last or not feeds_dense(layer, network)),
        "dense": lambda: Dense(layer, values, rows_of(before, network, channels_last)),
        "sparseDense": lambda: Dense(layer, values, rows_of(before, network, channels_last)),
        "lateralInhibition": lambda: LateralInhibition(layer, channels_last),
        "batchNormalization": lambda: BatchNormalization(layer, values),
        "activation": lambda: ActivationLayer(layer, overwrite),
        "pixelAttention": lambda: PixelAttention(layer, values),
        "add": lambda: Add(overwrite),
        "channelPadding": lambda: ZeroPadding(layer),
        "zeroPadding2d": lambda: ZeroPadding(layer),
    }
    return makers[layer.kind]()


def feeds_dense(layer: Layer, network: Network) -> bool:
    """Whether a flatten layer's order is of no consequence: only dense layers, their rows turned, read it."""
    readers = network.readers(layer.name)
    return layer.name != network.output and all(other.kind in ("dense", "sparseDense") for other in readers)


def rows_of(before: Layer | None, network: Network, channels_last: bool) -> np.ndarray | None:
    """The rows of a kernel in the order in which flattened maps come: channels, rows, columns."""
    if before is None or before.kind != "flatten" or len(before.input_shape) == 1:
        return None
    if channels_last or not feeds_dense(before, network):
        return None
    shape = before.input_shape
    return np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()
