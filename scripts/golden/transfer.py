"""test/golden/transfer.json: a small net fine-tuned for three steps in Keras, float64, with frozen layers, batch
normalization both frozen and not, and a lower rate for what is not the head.

Keras has one rate an optimizer, so that the backbone and the head have an optimizer each. SGD with momentum looks at
each variable by itself: two of them are one with two rates.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from common import Json, in_float64, named, number, rng

ABOUT = (
    "A small net fine-tuned for three steps, Keras float64. Weights as Fovea and Keras hold them, named "
    "layer/weight. Images uint8 [N, H, W, C], scaled by 1 / 255. The layers of settings.frozen have trainable = False, those of "
    "settings.backbone learn at backboneLearningRate, the others at learningRate; all by SGD with momentum. steps[i].loss: mean "
    "cross-entropy plus Keras's model.losses, before that step's update. settings.frozenDropout: the share of ones that a frozen "
    "Dropout(0.5) set to zero in training."
)

STEPS = 3
BATCH = 8
CLASSES = 5
SHAPE = [6, 6, 2]
LEARNING_RATE = 0.1
BACKBONE_LEARNING_RATE = 0.02
MOMENTUM = 0.9
L2 = 1e-2
FROZEN = ["conv1", "bn1"]
BACKBONE = ["conv2", "bn2"]


def model() -> keras.Model:
    penalty = lambda: keras.regularizers.L2(L2)  # noqa: E731
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, padding="same", kernel_regularizer=penalty(), name="conv1"),
            layers.BatchNormalization(momentum=0.9, name="bn1"),
            layers.Activation("relu"),
            layers.Conv2D(6, 3, kernel_regularizer=penalty(), name="conv2"),
            layers.BatchNormalization(momentum=0.9, name="bn2"),
            layers.Activation("relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, kernel_regularizer=penalty(), name="logits"),
        ]
    )


def name_of(variable: Any) -> str:
    return "/".join(variable.path.split("/")[-2:])


def start(variable: Any, r: np.random.Generator) -> np.ndarray:
    """Rounded to float32, and far from what an untrained normalization has."""
    role = variable.path.split("/")[-1]
    shape = tuple(variable.shape)
    if role in ("gamma", "moving_variance"):
        values = r.uniform(0.5, 1.5, shape)
    elif role == "kernel":
        values = r.normal(0, 0.4, shape)
    else:
        values = r.normal(0, 0.2, shape)
    flat = [number(v) for v in values.astype(np.float32).ravel()]
    return np.array(flat).reshape(shape)


def dropped_by_frozen_dropout() -> float:
    layer = keras.layers.Dropout(0.5, seed=1)
    layer.trainable = False
    return float(np.mean(np.asarray(layer(np.ones([100, 100]), training=True)) == 0))


def make() -> dict[str, Json]:
    r = rng("transfer")
    net = model()
    for variable in net.weights:
        variable.assign(start(variable, r))
    initial = [named(name_of(v), np.asarray(v.value)) for v in net.weights]
    for name in FROZEN:
        net.get_layer(name).trainable = False
    of_backbone = lambda v: name_of(v).split("/")[0] in BACKBONE  # noqa: E731
    slow = [v for v in net.trainable_variables if of_backbone(v)]
    fast = [v for v in net.trainable_variables if not of_backbone(v)]
    optimizers = [
        (in_float64(keras.optimizers.SGD(rate, momentum=MOMENTUM)), variables)
        for rate, variables in [(BACKBONE_LEARNING_RATE, slow), (LEARNING_RATE, fast)]
    ]
    steps: list[Json] = []
    for _ in range(STEPS):
        images = r.integers(0, 256, [BATCH, *SHAPE]).astype(np.uint8)
        labels = r.integers(0, CLASSES, BATCH)
        with tf.GradientTape() as tape:
            logits = net(images / 255.0, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses) + sum(net.losses)
        gradients = tape.gradient(loss, [v.value for v in [*slow, *fast]])
        optimizers[0][0].apply(gradients[: len(slow)], slow)
        optimizers[1][0].apply(gradients[len(slow) :], fast)
        steps.append(
            {
                "images": {"shape": list(images.shape), "data": [int(v) for v in images.ravel()]},
                "labels": [int(v) for v in labels],
                "loss": number(loss),
            }
        )
    return {
        "settings": {
            "inputShape": SHAPE,
            "l2": L2,
            "momentum": MOMENTUM,
            "learningRate": LEARNING_RATE,
            "backboneLearningRate": BACKBONE_LEARNING_RATE,
            "frozen": FROZEN,
            "backbone": BACKBONE,
            "frozenDropout": number(dropped_by_frozen_dropout()),
        },
        "initial": initial,
        "steps": steps,
        "final": [named(name_of(v), np.asarray(v.value)) for v in net.weights],
    }
