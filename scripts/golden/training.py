"""test/golden/training.json: three small nets trained for eight steps in PyTorch, float64, by Keras's
conventions.

PyTorch does forward and backward; the optimizers are written out below as Keras has them. Each run is then
repeated in Keras itself, and must agree to 1e-9.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
import torch.nn.functional as F
from common import Json, in_float64, named, number, numpy, rng, snake_keys

ABOUT = (
    "Small nets trained for eight steps, PyTorch float64. Weights as Fovea and Keras hold them (conv [kH, "
    "kW, in, out], dense [in, out], flattening in the order H, W, C), named layer/weight. Images uint8 "
    "[N, H, W, C], scaled by 1 / 255. steps[i]: loss is what is minimized (mean cross-entropy plus the L2 "
    "penalty, l2 * sum of squares over the kernels), correct counts predictions in training mode; all "
    "before that step's update. finalBuffers: batch-norm averages."
)

STEPS = 8
BATCH = 8
CLASSES = 10

Weights = dict[str, torch.Tensor]
Update = Callable[[int, str, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]


def glorot(r: np.random.Generator, *shape: int) -> torch.Tensor:
    """Rounded to float32, so that a float32 engine starts from the same weights."""
    receptive = int(np.prod(shape[:-2]))
    limit = np.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
    values = r.uniform(-limit, limit, shape).astype(np.float32)
    # nine significant digits restore a float32 exactly: what is stored is what is trained
    return torch.tensor(np.array([number(v) for v in values.ravel()]).reshape(shape))


def adam(lr: float = 1e-3, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7) -> Update:
    def update(
        t: int, name: str, w: torch.Tensor, g: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        m = b1 * state.get(name + "/m", 0) + (1 - b1) * g
        v = b2 * state.get(name + "/v", 0) + (1 - b2) * g * g
        state.update({name + "/m": m, name + "/v": v})
        return w - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (v.sqrt() + epsilon)

    return update


def nesterov(lr: float, momentum: float) -> Update:
    def update(
        t: int, name: str, w: torch.Tensor, g: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        m = momentum * state.get(name, 0) - lr * g
        state[name] = m
        return w + momentum * m - lr * g

    return update


def rmsprop(lr: float = 1e-3, rho: float = 0.9, epsilon: float = 1e-7) -> Update:
    def update(
        t: int, name: str, w: torch.Tensor, g: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        v = rho * state.get(name, 0) + (1 - rho) * g * g
        state[name] = v
        return w - lr * g / (v + epsilon).sqrt()

    return update


def conv(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """x [N, C, H, W]; kernel [kH, kW, in, out]."""
    return F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, stride=stride)


def flatten(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [N, H * W * C]"""
    return x.permute(0, 2, 3, 1).flatten(1)


def cnn(x: torch.Tensor, w: Weights, buffers: Weights) -> torch.Tensor:
    x = F.max_pool2d(conv(x, w["conv/kernel"], w["conv/bias"]).relu(), 2)
    x = (flatten(x) @ w["dense/kernel"] + w["dense/bias"]).relu()
    return x @ w["logits/kernel"] + w["logits/bias"]


def mlp(x: torch.Tensor, w: Weights, buffers: Weights) -> torch.Tensor:
    x = flatten(x) @ w["dense1/kernel"] + w["dense1/bias"]
    mean = x.mean(0)
    variance = x.var(0, unbiased=False)
    with torch.no_grad():
        buffers["norm/moving_mean"] = 0.99 * buffers["norm/moving_mean"] + 0.01 * mean
        buffers["norm/moving_variance"] = 0.99 * buffers["norm/moving_variance"] + 0.01 * variance
    x = (x - mean) / (variance + 1e-3).sqrt() * w["norm/gamma"] + w["norm/beta"]
    x = F.leaky_relu(x, 0.1)
    x = F.leaky_relu(x @ w["dense2/kernel"] + w["dense2/bias"], 0.1)
    return x @ w["logits/kernel"] + w["logits/bias"]


def strided(x: torch.Tensor, w: Weights, buffers: Weights) -> torch.Tensor:
    # same padding of 6 at stride 2 with 5x5: 3 in all, 1 before and 2 after
    x = conv(F.pad(x, (1, 2, 1, 2)), w["conv/kernel"], w["conv/bias"], stride=2).tanh()
    return flatten(F.avg_pool2d(x, 2)) @ w["logits/kernel"] + w["logits/bias"]


def layer(kind: str, **options: Any) -> Json:
    return {"layer": kind, **options}


def nets() -> list[dict[str, Any]]:
    r = rng("training weights")
    zeros, ones = torch.zeros, torch.ones
    return [
        {
            "name": "cnn with adam",
            "inputShape": [8, 8, 1],
            "layers": [
                layer("Conv2D", name="conv", filters=4, kernelSize=3, activation="relu"),
                layer("MaxPooling2D", poolSize=2),
                layer("Flatten"),
                layer("Dense", name="dense", units=16, activation="relu"),
                layer("Dense", name="logits", units=CLASSES),
            ],
            "optimizer": {
                "name": "Adam",
                "learningRate": 1e-3,
                "beta1": 0.9,
                "beta2": 0.999,
                "epsilon": 1e-7,
            },
            "l2": 0,
            "forward": cnn,
            "update": adam(),
            "keras": lambda: keras.optimizers.Adam(),
            "weights": {
                "conv/kernel": glorot(r, 3, 3, 1, 4),
                "conv/bias": zeros(4),
                "dense/kernel": glorot(r, 36, 16),
                "dense/bias": zeros(16),
                "logits/kernel": glorot(r, 16, CLASSES),
                "logits/bias": zeros(CLASSES),
            },
            "buffers": {},
        },
        {
            "name": "mlp with batch norm, l2 and nesterov momentum",
            "inputShape": [8, 8, 1],
            "layers": [
                layer("Flatten"),
                layer("Dense", name="dense1", units=32),
                layer("BatchNormalization", name="norm", momentum=0.99, epsilon=1e-3),
                layer("LeakyReLU", negativeSlope=0.1),
                layer("Dense", name="dense2", units=16),
                layer("LeakyReLU", negativeSlope=0.1),
                layer("Dense", name="logits", units=CLASSES),
            ],
            "optimizer": {"name": "SGD", "learningRate": 0.05, "momentum": 0.9, "nesterov": True},
            "l2": 1e-4,
            "forward": mlp,
            "update": nesterov(0.05, 0.9),
            "keras": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
            "weights": {
                "dense1/kernel": glorot(r, 64, 32),
                "dense1/bias": zeros(32),
                "norm/gamma": ones(32),
                "norm/beta": zeros(32),
                "dense2/kernel": glorot(r, 32, 16),
                "dense2/bias": zeros(16),
                "logits/kernel": glorot(r, 16, CLASSES),
                "logits/bias": zeros(CLASSES),
            },
            "buffers": {"norm/moving_mean": zeros(32), "norm/moving_variance": ones(32)},
        },
        {
            "name": "strided rgb cnn with rmsprop",
            "inputShape": [6, 6, 3],
            "layers": [
                layer(
                    "Conv2D",
                    name="conv",
                    filters=8,
                    kernelSize=5,
                    strides=2,
                    padding="same",
                    activation="tanh",
                ),
                layer("AveragePooling2D", poolSize=2),
                layer("Flatten"),
                layer("Dense", name="logits", units=CLASSES),
            ],
            "optimizer": {
                "name": "RMSprop",
                "learningRate": 1e-3,
                "rho": 0.9,
                "momentum": 0,
                "epsilon": 1e-7,
            },
            "l2": 0,
            "forward": strided,
            "update": rmsprop(),
            "keras": lambda: keras.optimizers.RMSprop(),
            "weights": {
                "conv/kernel": glorot(r, 5, 5, 3, 8),
                "conv/bias": zeros(8),
                "logits/kernel": glorot(r, 8, CLASSES),
                "logits/bias": zeros(CLASSES),
            },
            "buffers": {},
        },
    ]


def batches(name: str, shape: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noisy images of ten fixed prototypes, so that there is something to learn."""
    r = rng("training images " + name)
    prototypes = r.integers(0, 256, [CLASSES, *shape])
    result = []
    for _ in range(STEPS):
        labels = r.integers(0, CLASSES, BATCH)
        noise = r.integers(-60, 61, [BATCH, *shape])
        result.append((np.clip(prototypes[labels] + noise, 0, 255).astype(np.uint8), labels))
    return result


def train(
    net: dict[str, Any], data: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[Weights, Weights, list[Json]]:
    weights: Weights = dict(net["weights"])
    buffers: Weights = dict(net["buffers"])
    state: dict[str, torch.Tensor] = {}
    steps: list[Json] = []
    for t, (images, labels) in enumerate(data, 1):
        leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
        x = torch.tensor(images).double().permute(0, 3, 1, 2) / 255
        logits = net["forward"](x, leaves, buffers)
        cross_entropy = F.cross_entropy(logits, torch.tensor(labels))
        kernels = [w for name, w in leaves.items() if name.endswith("/kernel")]
        loss = cross_entropy + net["l2"] * sum((w * w).sum() for w in kernels)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        weights = {
            name: net["update"](t, name, w.detach(), g, state)
            for (name, w), g in zip(leaves.items(), gradients, strict=True)
        }
        steps.append(
            {
                "images": {"shape": list(images.shape), "data": [int(v) for v in images.ravel()]},
                "labels": [int(v) for v in labels],
                "loss": number(loss.detach()),
                "crossEntropy": number(cross_entropy.detach()),
                "correct": int((logits.argmax(1).numpy() == labels).sum()),
            }
        )
    return weights, buffers, steps


def check_with_keras(
    net: dict[str, Any], data: Any, weights: Weights, buffers: Weights, steps: list[Json]
) -> None:
    built = []
    for description in net["layers"]:
        options = snake_keys({k: v for k, v in description.items() if k != "layer"})
        if description["layer"] == "Dense" and net["l2"]:
            options["kernel_regularizer"] = keras.regularizers.L2(net["l2"])
        built.append(getattr(keras.layers, description["layer"])(**options))
    model = keras.Sequential([keras.Input(net["inputShape"]), *built])
    for variable in model.weights:
        variable.assign(numpy({**net["weights"], **net["buffers"]}["/".join(variable.path.split("/")[-2:])]))
    optimizer = in_float64(net["keras"]())
    for (images, labels), step in zip(data, steps, strict=True):
        with tf.GradientTape() as tape:
            logits = model(images / 255.0, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses) + sum(model.losses)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        np.testing.assert_allclose(loss, step["loss"], rtol=1e-8)  # the stored loss has nine digits
    for variable in model.weights:
        expected = {**weights, **buffers}["/".join(variable.path.split("/")[-2:])]
        np.testing.assert_allclose(variable.value, numpy(expected), rtol=0, atol=1e-9, err_msg=variable.path)


def make() -> dict[str, Json]:
    rows: list[Json] = []
    for net in nets():
        data = batches(net["name"], net["inputShape"])
        weights, buffers, steps = train(net, data)
        check_with_keras(net, data, weights, buffers, steps)
        rows.append(
            {
                **{key: net[key] for key in ("name", "inputShape", "layers", "optimizer", "l2")},
                "initialWeights": [named(name, w) for name, w in net["weights"].items()],
                "initialBuffers": [named(name, b) for name, b in net["buffers"].items()],
                "steps": steps,
                "finalWeights": [named(name, w) for name, w in weights.items()],
                "finalBuffers": [named(name, b) for name, b in buffers.items()],
            }
        )
    return {"cases": rows}
