"""Fovea's networks in Keras 3: its own layers where it has them, layers in keras.ops elsewhere.

Maps are [N, H, W, C]. Weights have Keras's shapes in Fovea's description already.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from network import Activation, Layer, Network, Weight, inhibition_bands

# The weights of a layer in the order in which Keras keeps them
ORDER = (
    "kernel", "depthwiseKernel", "pointwiseKernel", "query", "key", "value", "bias",
    "gamma", "beta", "mask", "movingMean", "movingVariance",
)  # fmt: skip


def activation_of(activation: Activation) -> str | Callable[[Any], Any]:
    if activation.name == "leakyRelu":
        return lambda x: ops.leaky_relu(x, negative_slope=activation.slope)
    return activation.name


class SparseDense(keras.layers.Layer):
    """A dense layer whose kernel is multiplied by a mask that stays."""

    def __init__(self, units: int, activation: Any, use_bias: bool, kernel_regularizer: Any) -> None:
        super().__init__()
        self.units, self.use_bias, self.regularizer = units, use_bias, kernel_regularizer
        self.activation = keras.activations.get(activation)

    def build(self, shape: tuple[int, ...]) -> None:
        size = (shape[-1], self.units)
        self.kernel = self.add_weight(shape=size, regularizer=self.regularizer)
        self.bias = self.add_weight(shape=(self.units,)) if self.use_bias else None
        self.mask = self.add_weight(shape=size, trainable=False)

    def call(self, x: Any) -> Any:
        y = ops.matmul(x, self.kernel * self.mask)
        return self.activation(y if self.bias is None else y + self.bias)


class LateralInhibition(keras.layers.Layer):
    """As products with banded matrices, from the left: neither needs a map to be turned."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.own, rows, columns = inhibition_bands(layer)
        self.rows, self.columns = rows.astype(np.float32), columns.astype(np.float32)

    def call(self, x: Any) -> Any:
        _, height, width, channels = x.shape
        along = ops.matmul(self.columns, x)  # Bands are symmetric
        both = ops.matmul(self.rows, ops.reshape(along, (-1, height, width * channels)))
        return self.own * x + ops.reshape(both, (-1, height, width, channels))


class PixelAttention(keras.layers.Layer):
    """Queries, keys and values by one product: their kernels are one weight."""

    def __init__(self, key_dim: int) -> None:
        super().__init__()
        self.key_dim = key_dim

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 2 * self.key_dim + shape[-1]))

    def call(self, x: Any) -> Any:
        _, height, width, channels = x.shape
        tokens = ops.reshape(x, (-1, height * width, channels))
        projected = ops.matmul(tokens, self.kernel)
        query, key, value = ops.split(projected, (self.key_dim, 2 * self.key_dim), axis=2)
        scores = ops.matmul(query * self.key_dim**-0.5, ops.transpose(key, (0, 2, 1)))
        attended = ops.matmul(ops.softmax(scores), value)
        return x + ops.reshape(attended, (-1, height, width, channels))


class ChannelPadding(keras.layers.Layer):
    def __init__(self, missing: int) -> None:
        super().__init__()
        self.missing = missing

    def call(self, x: Any) -> Any:
        return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.missing)))


def keras_layer(layer: Layer) -> keras.layers.Layer:
    options: dict[str, Any] = {}
    regularizer = keras.regularizers.L2(layer.l2) if layer.l2 else None
    if "useBias" in layer.options:
        options = {"activation": activation_of(layer.activation), "use_bias": layer["useBias"]}
    if "kernelSize" in layer.options:
        size = "pool_size" if "Pooling" in layer.kind else "kernel_size"
        options |= {size: layer["kernelSize"], "strides": layer["strides"], "padding": layer["padding"]}
        if "Pooling" not in layer.kind:
            options["dilation_rate"] = layer["dilationRate"]
    layers = keras.layers
    makers: dict[str, Callable[[], keras.layers.Layer]] = {
        "rescaling": lambda: layers.Rescaling(layer["scale"], layer["offset"]),
        "conv2d": lambda: layers.Conv2D(
            layer["filters"], groups=layer["groups"], kernel_regularizer=regularizer, **options
        ),
        "separableConv2d": lambda: layers.SeparableConv2D(
            layer["filters"],
            depth_multiplier=layer["depthMultiplier"],
            depthwise_regularizer=regularizer,
            pointwise_regularizer=regularizer,
            **options,
        ),
        "maxPooling2d": lambda: layers.MaxPooling2D(**options),
        "averagePooling2d": lambda: layers.AveragePooling2D(**options),
        "globalAveragePooling2d": layers.GlobalAveragePooling2D,
        "flatten": layers.Flatten,
        "dense": lambda: layers.Dense(layer["units"], kernel_regularizer=regularizer, **options),
        "sparseDense": lambda: SparseDense(layer["units"], kernel_regularizer=regularizer, **options),
        "lateralInhibition": lambda: LateralInhibition(layer),
        "batchNormalization": lambda: layers.BatchNormalization(
            momentum=layer["momentum"],
            epsilon=layer["epsilon"],
            center=layer["center"],
            scale=layer["scale"],
        ),
        "activation": lambda: layers.Activation(activation_of(layer.activation)),
        "pixelAttention": lambda: PixelAttention(layer.options.get("keyDim") or layer.input_shape[2]),
        "add": layers.Add,
        "channelPadding": lambda: ChannelPadding(layer["channels"] - layer.input_shape[2]),
        "zeroPadding2d": lambda: layers.ZeroPadding2D(layer["padding"]),
    }
    return makers[layer.kind]()


def keras_model(network: Network, weights: dict[str, Weight]) -> keras.Model:
    """Images, uint8 [N, H, W, C], to logits [N, classes]."""
    images = keras.Input(network.input, dtype="uint8")
    known = {"input": images}
    for layer in network.layers:
        made = keras_layer(layer)
        sources = [known[name] for name in layer.inputs]
        known[layer.name] = made(sources if len(sources) > 1 else sources[0])
        values = [
            weights[f"{layer.name}/{name}"].values for name in ORDER if f"{layer.name}/{name}" in weights
        ]
        if layer.kind == "pixelAttention":
            values = [np.concatenate(values, axis=1)]
        made.set_weights(values)
    return keras.Model(images, known[network.output])
