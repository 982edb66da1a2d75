"""test/golden/layers.json: layers of Keras in float64, their outputs and their gradients; and two
frameworks' local response normalization, whose constants differ.
"""

import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from common import (
    Json,
    away_from,
    camel_keys,
    distinct,
    named,
    normal,
    numpy,
    rng,
    snake_keys,
    tensor,
    uniform,
)

ABOUT = (
    "Layers of Keras in float64; maps are [N, H, W, C]. config holds the options given, in camelCase; all "
    "others are Keras's defaults, which kerasConfig lists. Gradients are of sum(output * cotangent). "
    "updatedBuffers are the batch-norm averages after one call in training mode. Activation layers: the "
    "class Activation with Keras's function name and its arguments. localResponseNormalization: see "
    "alphaConvention in each case."
)

Weights = dict[str, np.ndarray]


def initial_weights(layer: keras.Layer, name: str) -> Weights:
    r = rng("weights " + name)
    weights: Weights = {}
    for variable in layer.weights:
        shape = variable.shape
        if variable.name in ("gamma", "moving_variance"):
            weights[variable.name] = uniform(r, 0.5, 1.5, *shape)
        else:
            weights[variable.name] = normal(r, *shape, scale=0.5)
        variable.assign(weights[variable.name])
    return weights


def layer_case(
    label: str, layer: keras.Layer, given: dict[str, Any], x: np.ndarray, training: bool = False
) -> Json:
    class_name = type(layer).__name__
    name = f"{class_name} {label}"
    layer.build(x.shape)
    weights = initial_weights(layer, name)
    source = tf.constant(x)

    # XLA has gradients of grouped convolutions on the CPU, which TensorFlow's own kernels lack
    @tf.function(jit_compile=given.get("groups", 1) > 1 and class_name == "Conv2D")
    def run(source: tf.Tensor, cotangent: tf.Tensor | None) -> Any:
        variables = [v.value for v in layer.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(source)
            y = layer(source, training=training) if training else layer(source)
            loss = tf.reduce_sum(y * cotangent)
        return y, tape.gradient(loss, [source, *variables])

    cotangent = normal(rng("cotangent " + name), *layer.compute_output_shape(x.shape))
    y, gradients = run(source, tf.constant(cotangent))
    # Keras writes a lambda (approximate GELU) as bytecode: what was given says more
    options = given if given.get("approximate") else layer.get_config()
    case: Json = {
        "name": name,
        "layer": class_name,
        "config": given,
        "kerasConfig": camel_keys(
            {k: v for k, v in options.items() if k not in ("name", "dtype", "trainable")}
        ),
        "training": training,
        "input": tensor(x),
        "weights": [named(k, v) for k, v in weights.items()],
        "output": tensor(y),
        "cotangent": tensor(cotangent),
        "inputGradient": tensor(gradients[0]),
        "weightGradients": [
            named(v.name, g) for v, g in zip(layer.trainable_weights, gradients[1:], strict=True)
        ],
    }
    if training and layer.non_trainable_weights:
        case["updatedBuffers"] = [named(v.name, numpy(v.value)) for v in layer.non_trainable_weights]
    return case


def simple(layer: str, label: str, config: dict[str, Any], x: np.ndarray, training: bool = False) -> Json:
    return layer_case(label, getattr(keras.layers, layer)(**snake_keys(config)), config, x, training)


def describe(config: dict[str, Any]) -> str:
    return " ".join(f"{key} {json.dumps(value)}" for key, value in config.items()) or "default"


def dense() -> list[Json]:
    x = normal(rng("dense"), 4, 5)
    return [
        simple("Dense", "bias", {"units": 3}, x),
        simple("Dense", "no bias", {"units": 3, "useBias": False}, x),
    ]


# label: (input shape, options)
CONVOLUTIONS: dict[str, tuple[list[int], dict[str, Any]]] = {
    "1 channel 3x3 valid": ([2, 6, 6, 1], {"filters": 4, "kernelSize": 3}),
    "no bias": ([2, 5, 5, 2], {"filters": 3, "kernelSize": 3, "useBias": False}),
    "3 channels same": ([2, 5, 6, 3], {"filters": 4, "kernelSize": 3, "padding": "same"}),
    "8 channels same": ([2, 4, 4, 8], {"filters": 8, "kernelSize": 3, "padding": "same"}),
    "5x5 same": ([2, 7, 7, 2], {"filters": 3, "kernelSize": 5, "padding": "same"}),
    "5x5 same on a map smaller than the kernel": (
        [1, 3, 4, 2],
        {"filters": 3, "kernelSize": 5, "padding": "same"},
    ),
    "2x2 same": ([2, 5, 5, 2], {"filters": 3, "kernelSize": 2, "padding": "same"}),
    "4x3 valid": ([2, 6, 5, 2], {"filters": 3, "kernelSize": [4, 3]}),
    "4x3 same": ([2, 6, 5, 2], {"filters": 3, "kernelSize": [4, 3], "padding": "same"}),
    "kernel as large as the map": ([2, 4, 4, 2], {"filters": 3, "kernelSize": 4}),
    "1x1": ([2, 4, 3, 4], {"filters": 3, "kernelSize": 1}),
    "1x1 stride 2": ([2, 5, 4, 4], {"filters": 3, "kernelSize": 1, "strides": 2}),
    "stride 2 same even": ([2, 6, 6, 2], {"filters": 3, "kernelSize": 3, "strides": 2, "padding": "same"}),
    "stride 2 same odd": ([2, 7, 7, 2], {"filters": 3, "kernelSize": 3, "strides": 2, "padding": "same"}),
    "stride 2 valid even": ([2, 6, 6, 2], {"filters": 3, "kernelSize": 3, "strides": 2}),
    "stride 2 valid odd": ([2, 7, 7, 2], {"filters": 3, "kernelSize": 3, "strides": 2}),
    "5x5 stride 2 same": ([1, 8, 7, 3], {"filters": 3, "kernelSize": 5, "strides": 2, "padding": "same"}),
    "strides 2 by 1": ([2, 6, 5, 2], {"filters": 3, "kernelSize": 3, "strides": [2, 1], "padding": "same"}),
    "stride 3 kernel 2": ([2, 8, 8, 2], {"filters": 3, "kernelSize": 2, "strides": 3}),
    "stride 3 kernel 2 same": (
        [2, 8, 7, 2],
        {"filters": 3, "kernelSize": 2, "strides": 3, "padding": "same"},
    ),
    "dilation 2 same": ([2, 6, 6, 2], {"filters": 3, "kernelSize": 3, "dilationRate": 2, "padding": "same"}),
    "dilation 2 valid": ([2, 7, 6, 2], {"filters": 3, "kernelSize": 3, "dilationRate": 2}),
    "groups 2": ([2, 5, 5, 4], {"filters": 6, "kernelSize": 3, "groups": 2, "padding": "same"}),
    "groups 2 stride 2": ([2, 6, 6, 4], {"filters": 4, "kernelSize": 3, "groups": 2, "strides": 2}),
    "groups of one channel": ([2, 5, 5, 3], {"filters": 3, "kernelSize": 3, "groups": 3}),
    "groups of one channel to two": (
        [2, 5, 5, 3],
        {"filters": 6, "kernelSize": 3, "groups": 3, "padding": "same"},
    ),
}

# TensorFlow's depthwise kernels have no unequal strides, nor stride with dilation
DEPTHWISE: dict[str, tuple[list[int], dict[str, Any]]] = {
    "valid": ([2, 5, 5, 3], {"kernelSize": 3}),
    "same": ([2, 5, 6, 3], {"kernelSize": 3, "padding": "same"}),
    "5x5 same": ([1, 6, 6, 2], {"kernelSize": 5, "padding": "same"}),
    "no bias": ([2, 5, 5, 2], {"kernelSize": 3, "useBias": False}),
    "multiplier 2 valid": ([2, 5, 5, 3], {"kernelSize": 3, "depthMultiplier": 2}),
    "multiplier 2 same stride 2": (
        [2, 6, 6, 3],
        {"kernelSize": 3, "depthMultiplier": 2, "strides": 2, "padding": "same"},
    ),
    "stride 2 valid": ([2, 7, 7, 2], {"kernelSize": 3, "strides": 2}),
    "stride 2 same odd": ([2, 7, 7, 2], {"kernelSize": 3, "strides": 2, "padding": "same"}),
    "stride 2 same even": ([2, 6, 6, 2], {"kernelSize": 3, "strides": 2, "padding": "same"}),
    "dilation 2 same": ([2, 6, 6, 2], {"kernelSize": 3, "dilationRate": 2, "padding": "same"}),
    "dilation 2 valid": ([2, 7, 6, 2], {"kernelSize": 3, "dilationRate": 2}),
}

SEPARABLE: dict[str, tuple[list[int], dict[str, Any]]] = {
    "stride 1 valid": ([2, 5, 5, 3], {"filters": 4, "kernelSize": 3}),
    "stride 1 same multiplier 2": (
        [2, 5, 5, 2],
        {"filters": 3, "kernelSize": 3, "depthMultiplier": 2, "padding": "same"},
    ),
    "stride 2 same": ([2, 6, 6, 3], {"filters": 4, "kernelSize": 3, "strides": 2, "padding": "same"}),
    "stride 2 valid no bias": ([2, 7, 7, 2], {"filters": 3, "kernelSize": 3, "strides": 2, "useBias": False}),
}

POOLING: dict[str, tuple[list[int], dict[str, Any]]] = {
    "2x2": ([2, 6, 6, 3], {"poolSize": 2}),
    "2x2 valid odd": ([2, 7, 5, 3], {"poolSize": 2}),
    "2x2 same odd": ([2, 7, 5, 2], {"poolSize": 2, "padding": "same"}),
    "2x2 stride 1 same": ([2, 4, 5, 2], {"poolSize": 2, "strides": 1, "padding": "same"}),
    "2x2 stride 1 valid": ([2, 4, 5, 2], {"poolSize": 2, "strides": 1}),
    "3x3": ([2, 6, 7, 2], {"poolSize": 3}),
    "3x3 stride 2 valid odd": ([2, 7, 7, 2], {"poolSize": 3, "strides": 2}),
    "3x3 stride 2 valid even": ([2, 6, 6, 2], {"poolSize": 3, "strides": 2}),
    "3x3 stride 2 same odd": ([2, 7, 7, 2], {"poolSize": 3, "strides": 2, "padding": "same"}),
    "3x3 stride 2 same even": ([2, 6, 6, 2], {"poolSize": 3, "strides": 2, "padding": "same"}),
    "2x3 with strides 2 by 1": ([2, 6, 5, 2], {"poolSize": [2, 3], "strides": [2, 1]}),
}


def convolutions() -> list[Json]:
    rows = []
    for layer, table in (
        ("Conv2D", CONVOLUTIONS),
        ("DepthwiseConv2D", DEPTHWISE),
        ("SeparableConv2D", SEPARABLE),
    ):
        for label, (shape, config) in table.items():
            rows.append(simple(layer, label, config, normal(rng(f"{layer} {label}"), *shape)))
    return rows


def pooling() -> list[Json]:
    rows = []
    for layer in ("MaxPooling2D", "AveragePooling2D"):
        for label, (shape, config) in POOLING.items():
            rows.append(simple(layer, label, config, distinct(rng(f"{layer} {label}"), *shape)))
    # A shift below zero: zeros of a padding must not win the maximum
    negative = distinct(rng("negative"), 1, 5, 5, 2) - 4
    rows.append(
        simple(
            "MaxPooling2D", "same of negatives", {"poolSize": 3, "strides": 2, "padding": "same"}, negative
        )
    )
    x = distinct(rng("global"), 2, 4, 3, 5)
    rows.append(simple("GlobalAveragePooling2D", "", {}, x))
    rows.append(simple("GlobalMaxPooling2D", "", {}, x))
    rows.append(simple("Flatten", "", {}, x))
    return rows


def normalization() -> list[Json]:
    rows = []
    flat = normal(rng("norm flat"), 6, 5, scale=2) + 0.5
    maps = normal(rng("norm maps"), 3, 4, 3, 4, scale=2) - 0.25
    for where, x in (("[N, F]", flat), ("[N, H, W, C]", maps)):
        for config in (
            {},
            {"momentum": 0.9},
            {"scale": False},
            {"center": False},
            {"scale": False, "center": False, "epsilon": 1e-5},
        ):
            for training in (True, False):
                label = f"{where} {describe(config)} {'training' if training else 'inference'}"
                rows.append(simple("BatchNormalization", label, config, x, training))
        for config in ({}, {"epsilon": 1e-6}, {"scale": False}, {"center": False}):
            rows.append(simple("LayerNormalization", f"{where} {describe(config)}", config, x))
    for groups in (1, 2, 4):
        rows.append(simple("GroupNormalization", f"groups {groups}", {"groups": groups}, maps))
    return rows


def activations() -> list[Json]:
    x = away_from(uniform(rng("activations"), -5, 5, 4, 6), 0)
    maps = away_from(uniform(rng("activation maps"), -3, 3, 1, 2, 3, 4), 0)
    rows = []
    for name in ("relu", "elu", "tanh", "sigmoid", "softmax", "silu", "softplus", "leaky_relu", "linear"):
        rows.append(simple("Activation", name, {"activation": name}, x))
    rows.append(simple("Activation", "softmax of maps", {"activation": "softmax"}, maps))
    rows.append(simple("Activation", "gelu exact", {"activation": "gelu"}, x))
    approximate = keras.layers.Activation(lambda v: keras.activations.gelu(v, approximate=True))
    rows.append(layer_case("gelu tanh", approximate, {"activation": "gelu", "approximate": True}, x))
    rows.append(simple("ReLU", "", {}, maps))
    rows.append(simple("LeakyReLU", "default", {}, x))
    rows.append(simple("LeakyReLU", "slope 0.1", {"negativeSlope": 0.1}, maps))
    rows.append(simple("ELU", "default", {}, x))
    rows.append(simple("ELU", "alpha 0.5", {"alpha": 0.5}, x))
    rows.append(simple("Softmax", "", {}, x))
    return rows


def response_normalization() -> list[Json]:
    rows = []

    def add(source: str, convention: str, config: dict[str, Any], forward: Any, check: Any = None) -> None:
        name = f"{source} {describe(config)}"
        x = normal(rng("lrn " + name), 2, 3, 2, 7, scale=2)
        cotangent = normal(rng("lrn cotangent " + name), *x.shape)
        leaf = torch.tensor(x, requires_grad=True)
        y = forward(leaf)
        (gradient,) = torch.autograd.grad(y, leaf, torch.tensor(cotangent))
        if check is not None:
            check(x, cotangent, numpy(y), numpy(gradient))
        rows.append(
            {
                "name": name,
                "source": source,
                "alphaConvention": convention,
                "config": config,
                "input": tensor(x),
                "output": tensor(y),
                "cotangent": tensor(cotangent),
                "inputGradient": tensor(gradient),
            }
        )

    torch_convention = (
        "x / (k + alpha / size * sum of squares over the channels c - floor(size / 2) .. "
        "c + floor((size - 1) / 2))^beta, channels outside count as zero"
    )
    for config in (
        {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1},
        {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 2},
        {"size": 3, "alpha": 1, "beta": 0.5, "k": 1},
        {"size": 4, "alpha": 0.5, "beta": 0.75, "k": 1},
    ):
        module = torch.nn.LocalResponseNorm(**config)
        add(
            "torch.nn.LocalResponseNorm",
            torch_convention,
            config,
            lambda x, m=module: m(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
        )

    tensorflow_convention = (
        "x / (bias + alpha * sum of squares over the channels c - depthRadius .. c + depthRadius)^beta: "
        "alpha is not divided"
    )
    for config in (
        {"depthRadius": 5, "bias": 1, "alpha": 1, "beta": 0.5},
        {"depthRadius": 2, "bias": 2, "alpha": 0.1, "beta": 0.75},
        {"depthRadius": 1, "bias": 1, "alpha": 0.5, "beta": 0.75},
    ):
        radius, bias, alpha, beta = config.values()

        def formula(x: torch.Tensor) -> torch.Tensor:
            channels = torch.arange(x.shape[-1])
            window = ((channels[:, None] - channels[None, :]).abs() <= radius).to(x.dtype)
            return x / (bias + alpha * (x**2) @ window) ** beta

        # TensorFlow's op knows float32 only: what is stored is its formula in float64, checked here
        def check(x: np.ndarray, cotangent: np.ndarray, y: np.ndarray, gradient: np.ndarray) -> None:
            source = tf.constant(x, tf.float32)
            with tf.GradientTape() as tape:
                tape.watch(source)
                actual = tf.nn.local_response_normalization(source, radius, bias, alpha, beta)
                loss = tf.reduce_sum(actual * tf.constant(cotangent, tf.float32))
            np.testing.assert_allclose(actual, y, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(tape.gradient(loss, source), gradient, rtol=1e-4, atol=1e-5)

        add("tf.nn.local_response_normalization", tensorflow_convention, config, formula, check)
    return rows


def make() -> dict[str, Json]:
    cases = [case for group in (dense, convolutions, pooling, normalization, activations) for case in group()]
    return {"cases": cases, "localResponseNormalization": response_normalization()}
