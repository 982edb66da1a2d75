"""test/golden/losses.json: losses of Keras in float64, and the gradient of their mean over the batch."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from common import Json, normal, rng, tensor

ABOUT = (
    "Losses of Keras in float64 against one-hot labels (Keras turns 0/1 into -1/1 for hinge and "
    "squared_hinge, which average over the classes). on: what the loss is computed on. perExample [N]; "
    "mean over the batch; gradient of the mean with respect to the logits [N, classes]."
)

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def make() -> dict[str, Json]:
    rows: list[Json] = []
    losses = keras.losses

    def crossentropy(smoothing: float) -> Loss:
        return lambda y, logits: losses.categorical_crossentropy(
            y, logits, from_logits=True, label_smoothing=smoothing
        )

    # name, config, computed on, loss(one-hot, value)
    table: list[tuple[str, dict[str, Any], str, Loss]] = [
        ("categorical_crossentropy", {"fromLogits": True, "labelSmoothing": 0}, "logits", crossentropy(0.0)),
        (
            "categorical_crossentropy",
            {"fromLogits": True, "labelSmoothing": 0.1},
            "logits",
            crossentropy(0.1),
        ),
        ("mean_squared_error", {}, "softmax", losses.mean_squared_error),
        ("mean_squared_error", {}, "logits", losses.mean_squared_error),
        ("hinge", {}, "logits", losses.hinge),
        ("squared_hinge", {}, "logits", losses.squared_hinge),
        ("categorical_hinge", {}, "logits", losses.categorical_hinge),
    ]
    inputs = {
        "6 examples of 10 classes": (6, 10, 1.5),
        "3 examples of 2 classes": (3, 2, 1.0),
        "confident": (4, 5, 30.0),
    }
    for loss, config, on, fn in table:
        for label, (n, classes, scale) in inputs.items():
            r = rng("losses " + label)
            labels = r.integers(0, classes, n)
            # odd multiples of 1/512: no logit lies on a hinge
            logits = normal(r, n, classes, scale=scale) + 1 / 512
            one_hot = tf.one_hot(labels, classes, dtype=tf.float64)
            source = tf.constant(logits)
            with tf.GradientTape() as tape:
                tape.watch(source)
                per_example = fn(one_hot, tf.nn.softmax(source) if on == "softmax" else source)
                mean = tf.reduce_mean(per_example)
            smoothing = f" smoothing {config['labelSmoothing']}" if config.get("labelSmoothing") else ""
            rows.append(
                {
                    "name": f"{loss}{smoothing} on {on}, {label}",
                    "loss": loss,
                    "config": config,
                    "on": on,
                    "labels": [int(v) for v in labels],
                    "logits": tensor(logits),
                    "perExample": tensor(per_example),
                    "mean": tensor(mean)["data"][0],
                    "gradient": tensor(tape.gradient(mean, source)),
                }
            )
    check_ties(rows)
    return {"cases": rows}


def check_ties(rows: list[Json]) -> None:
    """Categorical hinge takes a maximum over the wrong classes: no ties, and no example on its hinge."""
    for row in rows:
        logits = np.reshape(row["logits"]["data"], row["logits"]["shape"])
        for x, label in zip(logits, row["labels"], strict=True):
            wrong = np.sort(np.append(np.delete(x, label), 0.0))
            assert wrong[-1] - wrong[-2] > 1e-3, row["name"]
            assert abs(1 + wrong[-1] - x[label]) > 1e-3, row["name"]
            assert np.all(np.abs(1 - np.abs(x)) > 1e-3), row["name"]
