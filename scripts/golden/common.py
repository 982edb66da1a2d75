"""What the golden scripts share: seeded inputs, the JSON form of a tensor, and writing a file."""

import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402

keras.config.set_floatx("float64")
torch.set_default_dtype(torch.float64)

GOLDEN = Path(__file__).resolve().parents[2] / "test" / "golden"
SEED = 20240501
GRID = 256  # inputs are multiples of 1/256: exact in float32, and short in JSON

Json = Any


def rng(name: str) -> np.random.Generator:
    """A generator of its own for each case, so that adding a case changes no other."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def on_grid(x: np.ndarray) -> np.ndarray:
    return np.round(np.asarray(x) * GRID) / GRID


def normal(r: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return on_grid(scale * r.standard_normal(shape))


def uniform(r: np.random.Generator, low: float, high: float, *shape: int) -> np.ndarray:
    return on_grid(r.uniform(low, high, shape))


def away_from(x: np.ndarray, *kinks: float, margin: float = 0.0625) -> np.ndarray:
    """Moves values that lie within `margin` of a kink to its rim, so that no difference straddles it."""
    for kink in kinks:
        near = np.abs(x - kink) < margin
        x = np.where(near, kink + np.where(x >= kink, margin, -margin), x)
    return x


def distinct(r: np.random.Generator, *shape: int) -> np.ndarray:
    """Values without ties, at least 1/64 apart and centred on zero: for maxima."""
    n = math.prod(shape)
    return ((r.permutation(n) - n // 2) / 64).reshape(shape)


def number(x: float) -> float | int:
    x = float(x)
    if not math.isfinite(x):
        raise ValueError(f"a golden file cannot hold {x}")
    rounded = float(f"{x:.9g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 2**31 else rounded


def numpy(x: Any) -> np.ndarray:
    if isinstance(x, torch.Tensor):
        return x.detach().numpy()
    return np.asarray(x)


def tensor(x: Any) -> Json:
    """{"shape", "data"}, row-major."""
    x = numpy(x)
    return {"shape": list(x.shape), "data": [number(v) for v in x.reshape(-1)]}


def named(name: str, x: Any) -> Json:
    return {"name": name, **tensor(x)}


def in_float64(owner: Any) -> Any:
    """Turns an object's Python floats into float64 scalars. Without it Keras's cast of 0.999 goes through
    TensorFlow's default, float32: a beta or a decay rate is off by 1e-8, and 1 - beta^t by 1e-5."""

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(v) for v in value]
        return np.float64(value) if type(value) is float else value

    for key, value in list(vars(owner).items()):
        if type(value) is float or (type(value) is list and any(type(v) is float for v in value)):
            setattr(owner, key, convert(value))
    return owner


def snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def snake_keys(config: dict[str, Any]) -> dict[str, Any]:
    return {snake(key): value for key, value in config.items()}


def camel_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A Keras configuration in camelCase; nested serialized objects keep only their class name and config."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict) and "class_name" in value:
            return {"className": value["class_name"], "config": camel_keys(value.get("config") or {})}
        if isinstance(value, dict):
            return camel_keys(value)
        if isinstance(value, (list, tuple)):
            return [convert(v) for v in value]
        if isinstance(value, (float, np.floating)):
            return number(value)
        return value

    return {camel(key): convert(value) for key, value in config.items()}


def write(name: str, about: str, content: dict[str, Json]) -> int:
    """Writes test/golden/<name>.json, one case a line, and returns its size in bytes."""
    versions = {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "torch": torch.__version__.split("+")[0],
    }
    head: dict[str, Json] = {
        "about": about,
        "madeBy": f"scripts/golden/{name}.py",
        "versions": versions,
    }
    dump = lambda value: json.dumps(value, separators=(",", ":"), allow_nan=False)  # noqa: E731
    lines = [f"{json.dumps(key)}:{dump(value)}" for key, value in head.items()]
    for key, value in content.items():
        if isinstance(value, list):
            lines.append(f"{json.dumps(key)}:[\n" + ",\n".join(dump(item) for item in value) + "\n]")
        else:
            lines.append(f"{json.dumps(key)}:{dump(value)}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if json.loads(text) != {**head, **content}:
        raise ValueError(f"{name}.json does not read back as it was written")
    GOLDEN.mkdir(parents=True, exist_ok=True)
    path = GOLDEN / f"{name}.json"
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(text)
    temporary.replace(path)
    counts = ", ".join(f"{len(value)} {key}" for key, value in content.items() if isinstance(value, list))
    print(f"{path.name}: {len(text) / 1e3:.0f} kB, {counts}")
    return len(text)
