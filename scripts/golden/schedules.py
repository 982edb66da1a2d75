"""test/golden/schedules.json: Keras's learning-rate schedules at steps 0 to 40."""

from typing import Any

import keras
import tensorflow as tf
from common import Json, camel_keys, in_float64, number, snake_keys

ABOUT = (
    "Learning rates of Keras's schedules, float64. values[step] for step 0..40. config: the options "
    "given, in camelCase; kerasConfig: all of them."
)

ROWS: list[tuple[str, dict[str, Any]]] = [
    ("ExponentialDecay", {"initialLearningRate": 0.1, "decaySteps": 10, "decayRate": 0.5}),
    ("ExponentialDecay", {"initialLearningRate": 0.1, "decaySteps": 10, "decayRate": 0.5, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [10, 25], "values": [0.1, 0.01, 0.001]}),
    ("PiecewiseConstantDecay", {"boundaries": [5], "values": [1.0, 0.5]}),
    ("PolynomialDecay", {"initialLearningRate": 0.1, "decaySteps": 20}),
    (
        "PolynomialDecay",
        {"initialLearningRate": 0.1, "decaySteps": 20, "endLearningRate": 0.01, "power": 2.0},
    ),
    (
        "PolynomialDecay",
        {"initialLearningRate": 0.1, "decaySteps": 15, "endLearningRate": 0.01, "power": 0.5, "cycle": True},
    ),
    ("InverseTimeDecay", {"initialLearningRate": 0.1, "decaySteps": 10, "decayRate": 0.5}),
    ("InverseTimeDecay", {"initialLearningRate": 0.1, "decaySteps": 10, "decayRate": 0.5, "staircase": True}),
    ("CosineDecay", {"initialLearningRate": 0.1, "decaySteps": 30}),
    ("CosineDecay", {"initialLearningRate": 0.1, "decaySteps": 30, "alpha": 0.1}),
    (
        "CosineDecay",
        {"initialLearningRate": 0.0, "decaySteps": 25, "alpha": 0.05, "warmupTarget": 0.1, "warmupSteps": 6},
    ),
    (
        "CosineDecay",
        {"initialLearningRate": 0.02, "decaySteps": 25, "warmupTarget": 0.1, "warmupSteps": 6},
    ),
    ("CosineDecayRestarts", {"initialLearningRate": 0.1, "firstDecaySteps": 6}),
    (
        "CosineDecayRestarts",
        {"initialLearningRate": 0.1, "firstDecaySteps": 10, "tMul": 1.0, "mMul": 0.5, "alpha": 0.1},
    ),
    ("CosineDecayRestarts", {"initialLearningRate": 0.1, "firstDecaySteps": 5, "tMul": 2.0, "mMul": 0.9}),
]


def make() -> dict[str, Json]:
    rows: list[Json] = []
    for name, config in ROWS:
        schedule = in_float64(getattr(keras.optimizers.schedules, name)(**snake_keys(config)))
        # PiecewiseConstantDecay compares steps with its boundaries in one type: whole numbers
        values = [number(schedule(tf.constant(step, tf.int64))) for step in range(41)]
        options = {key: value for key, value in schedule.get_config().items() if key != "name"}
        rows.append(
            {
                "name": " ".join([name, *(f"{key} {str(value).lower()}" for key, value in config.items())]),
                "schedule": name,
                "config": config,
                "kerasConfig": camel_keys(options),
                "values": values,
            }
        )
    return {"cases": rows}
