"""test/golden/optimizers.json: eight updates by each of Keras's optimizers in float64, from given
gradients.
"""

from typing import Any

import keras
import numpy as np
from common import Json, camel_keys, in_float64, normal, number, numpy, rng, snake_keys, tensor

ABOUT = (
    "Optimizers of Keras in float64 on two parameters. config: the options given; kerasConfig: all of "
    "them. gradients[step][parameter]; values[step][parameter] after that update. Step 3 has a zero "
    "gradient for both parameters; the first element of parameter 0 has none until step 4. defaults: "
    "Keras's configuration of each class."
)

STEPS = 8
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"learningRate": 0.1}),
    ("SGD", {"learningRate": 0.1, "momentum": 0.9}),
    ("SGD", {"learningRate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"learningRate": 0.1, "weightDecay": 0.01}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"rho": 0.8, "momentum": 0.9, "centered": True, "epsilon": 1e-5}),
    ("Adam", {}),
    ("Adam", {"learningRate": 0.01, "epsilon": 1e-3, "beta1": 0.8}),
    ("Adam", {"amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"weightDecay": 0.01}),
    ("Nadam", {}),
    ("Nadam", {"learningRate": 0.01, "beta1": 0.8, "beta2": 0.99}),
    ("Adagrad", {}),
    ("Adagrad", {"learningRate": 0.1, "initialAccumulatorValue": 0.5}),
    ("Adamax", {}),
    *[
        (optimizer, {"learningRate": 0.1, **clip})
        for optimizer in ("SGD", "Adam")
        for clip in ({"clipnorm": 0.5}, {"clipvalue": 0.1}, {"globalClipnorm": 0.5})
    ],
]


def keras_names(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key.replace("beta1", "beta_1").replace("beta2", "beta_2"): value
        for key, value in snake_keys(config).items()
    }


def without_name(config: dict[str, Any]) -> dict[str, Any]:
    return camel_keys({key: value for key, value in config.items() if key != "name"})


def make() -> dict[str, Json]:
    r = rng("optimizers")
    start = [normal(r, 2, 3), normal(r, 4)]
    scales = [1, 0.25, 2, 0, 0.125, 1, 0.5, 1]  # around the clipping thresholds
    gradients = [[normal(r, *x.shape, scale=scale) for x in start] for scale in scales]
    for step in range(4):
        gradients[step][0][0, 0] = 0

    rows: list[Json] = []
    for name, config in ROWS:
        optimizer = in_float64(getattr(keras.optimizers, name)(**keras_names(config)))
        variables = [keras.Variable(x, dtype="float64") for x in start]
        values = []
        for step in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], variables)
            values.append([tensor(numpy(v.value)) for v in variables])
        options = " ".join(f"{key} {str(value).lower()}" for key, value in config.items())
        rows.append(
            {
                "name": f"{name} {options or 'default'}",
                "optimizer": name,
                "config": config,
                "kerasConfig": without_name(optimizer.get_config()),
                "values": values,
            }
        )
    check_adam(next(row for row in rows if row["name"] == "Adam default"), start, gradients)
    return {
        "defaults": {name: without_name(getattr(keras.optimizers, name)().get_config()) for name, _ in ROWS},
        "start": [tensor(x) for x in start],
        "gradients": [[tensor(g) for g in step] for step in gradients],
        "cases": rows,
    }


def check_adam(row: Json, start: list[np.ndarray], gradients: list[list[np.ndarray]]) -> None:
    """Adam by hand, which shows that no constant of Keras's went through float32."""
    w, m, v = start[1].copy(), 0.0, 0.0
    for t, step in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * step[1]
        v = 0.999 * v + 0.001 * step[1] ** 2
        w = w - 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
    assert np.allclose(row["values"][-1][1]["data"], [number(x) for x in w], rtol=0, atol=2e-9)
