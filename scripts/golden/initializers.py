"""test/golden/initializers.json: the distributions of Keras's initializers, in theory and as measured on
many samples.
"""

import math
from typing import Any

import keras
import numpy as np
from common import Json, camel_keys, number, snake_keys

ABOUT = (
    "Keras's initializers. theory: uniform has limit (values in -limit..limit) and stddev = limit / "
    "sqrt(3); truncatedNormal has untruncatedStddev, limit = 2 untruncatedStddev, and the stddev after "
    "truncation; fanIn and fanOut where they matter. measured: over n values of seeded draws of that "
    "shape. defaults: Keras's configuration of each class."
)

DENSE = [784, 128]
CONV = [3, 3, 16, 32]
SAMPLES = 1_000_000
# Standard deviation of a unit normal truncated to -2..2, the constant in Keras's VarianceScaling
TRUNCATED = 0.87962566103423978

SCALING = {
    "GlorotUniform": {"scale": 1, "mode": "fanAvg", "distribution": "uniform"},
    "GlorotNormal": {"scale": 1, "mode": "fanAvg", "distribution": "truncatedNormal"},
    "HeUniform": {"scale": 2, "mode": "fanIn", "distribution": "uniform"},
    "HeNormal": {"scale": 2, "mode": "fanIn", "distribution": "truncatedNormal"},
    "LecunUniform": {"scale": 1, "mode": "fanIn", "distribution": "uniform"},
    "LecunNormal": {"scale": 1, "mode": "fanIn", "distribution": "truncatedNormal"},
}
VARIANCE_SCALING = [
    {},
    *[
        {"scale": 2, "mode": mode, "distribution": distribution}
        for mode in ("fanIn", "fanOut", "fanAvg")
        for distribution in ("truncatedNormal", "untruncatedNormal", "uniform")
    ],
]
OTHERS: list[tuple[str, dict[str, Any], Json]] = [
    ("RandomNormal", {}, {"distribution": "untruncatedNormal", "mean": 0, "stddev": 0.05}),
    (
        "RandomNormal",
        {"mean": 1, "stddev": 0.2},
        {"distribution": "untruncatedNormal", "mean": 1, "stddev": 0.2},
    ),
    (
        "RandomUniform",
        {},
        {"distribution": "uniform", "min": -0.05, "max": 0.05, "stddev": 0.05 / math.sqrt(3)},
    ),
    (
        "RandomUniform",
        {"minval": 0, "maxval": 2},
        {"distribution": "uniform", "min": 0, "max": 2, "stddev": 1 / math.sqrt(3)},
    ),
    (
        "TruncatedNormal",
        {},
        {
            "distribution": "truncatedNormal",
            "untruncatedStddev": 0.05,
            "limit": 0.1,
            "stddev": 0.05 * TRUNCATED,
        },
    ),
    ("Orthogonal", {}, {"gain": 1}),
    ("Orthogonal", {"gain": 0.5}, {"gain": 0.5}),
    ("Zeros", {}, {"value": 0}),
    ("Ones", {}, {"value": 1}),
    ("Constant", {}, {"value": 0}),
    ("Constant", {"value": 0.25}, {"value": 0.25}),
]
KERAS_VALUES = {
    "fanIn": "fan_in",
    "fanOut": "fan_out",
    "fanAvg": "fan_avg",
    "truncatedNormal": "truncated_normal",
    "untruncatedNormal": "untruncated_normal",
}


def fans(shape: list[int]) -> tuple[int, int]:
    receptive = math.prod(shape[:-2])
    return shape[-2] * receptive, shape[-1] * receptive


def theory(options: dict[str, Any], shape: list[int]) -> Json:
    fan_in, fan_out = fans(shape)
    fan = {"fanIn": fan_in, "fanOut": fan_out, "fanAvg": (fan_in + fan_out) / 2}[options["mode"]]
    variance = options["scale"] / fan
    result: Json = {"distribution": options["distribution"], "fanIn": fan_in, "fanOut": fan_out}
    if options["distribution"] == "uniform":
        result["limit"] = number(math.sqrt(3 * variance))
    if options["distribution"] == "truncatedNormal":
        result["untruncatedStddev"] = number(math.sqrt(variance) / TRUNCATED)
        result["limit"] = number(2 * math.sqrt(variance) / TRUNCATED)
    result["stddev"] = number(math.sqrt(variance))
    return result


def measure(name: str, config: dict[str, Any], shape: list[int], draws: int) -> np.ndarray:
    options = {key: KERAS_VALUES.get(value, value) for key, value in snake_keys(config).items()}
    seeded = name not in ("Zeros", "Ones", "Constant")
    make_one = getattr(keras.initializers, name)
    return np.stack(
        [
            np.asarray(make_one(**options, **({"seed": seed} if seeded else {}))(shape, dtype="float64"))
            for seed in range(1, draws + 1)
        ]
    )


def check(theory: Json, x: np.ndarray, name: str) -> None:
    """The theory written here must be the one that Keras samples from."""
    if "limit" in theory:
        assert np.abs(x).max() <= theory["limit"] * (1 + 1e-9), name
        assert np.abs(x).max() > theory["limit"] * 0.99, name
    if "stddev" in theory:
        assert abs(x.std() / theory["stddev"] - 1) < 0.01, name


def make() -> dict[str, Json]:
    rows: list[Json] = []
    table: list[tuple[str, dict[str, Any], dict[str, Any] | None, Json]] = [
        *[(name, {}, options, None) for name, options in SCALING.items()],
        *[
            (
                "VarianceScaling",
                c,
                {"scale": 1, "mode": "fanIn", "distribution": "truncatedNormal", **c},
                None,
            )
            for c in VARIANCE_SCALING
        ],
        *[(name, config, None, values) for name, config, values in OTHERS],
    ]
    for name, config, scaling, fixed in table:
        for shape in (DENSE, CONV):
            expected = (
                theory(scaling, shape)
                if scaling
                else {k: number(v) if isinstance(v, float) else v for k, v in fixed.items()}
            )
            constant = name in ("Zeros", "Ones", "Constant")
            draws = 1 if constant else 2 if name == "Orthogonal" else math.ceil(SAMPLES / math.prod(shape))
            x = measure(name, config, shape, draws)
            label = " ".join([name, *(f"{key} {value}" for key, value in config.items()), str(shape)])
            check(expected, x, label)
            row: Json = {
                "name": label,
                "initializer": name,
                "config": config,
                "shape": shape,
                "theory": expected,
                "measured": {
                    "n": x.size,
                    "mean": number(x.mean()),
                    "stddev": number(x.std()),
                    "min": number(x.min()),
                    "max": number(x.max()),
                },
            }
            if name == "Orthogonal":
                # the kernel as a matrix [all but the last axis, last axis]; its columns are orthogonal
                matrix = x[0].reshape(-1, shape[-1])
                gram = matrix.T @ matrix
                row["measured"]["gramError"] = number(
                    np.abs(gram - config.get("gain", 1) ** 2 * np.eye(shape[-1])).max()
                )
            rows.append(row)
    names = dict.fromkeys(row["initializer"] for row in rows)
    return {
        "defaults": {name: camel_keys(getattr(keras.initializers, name)().get_config()) for name in names},
        "cases": rows,
    }
