"""Makes the golden files test/golden/*.json: values of PyTorch and Keras that Fovea's tests compare with.

Run again, from the repository's root (all files, or the named ones):

    python -m venv .venv
    .venv/bin/pip install -r scripts/golden/requirements.txt
    .venv/bin/python scripts/golden/make.py [NAME ...]

The files hold every input beside its output, so the tests themselves need no Python. Everything is
computed in float64 from inputs that float32 represents exactly, and stored with nine significant digits.
"""

import importlib
import sys

sys.dont_write_bytecode = True

import common  # noqa: E402

FILES = [
    "ops",
    "layers",
    "losses",
    "optimizers",
    "schedules",
    "initializers",
    "training",
    "brain",
    "attention",
    "augmentation",
    "transfer",
    "weights",
]


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in FILES]
    if unknown:
        sys.exit(f"unknown golden file: {', '.join(unknown)}; known: {', '.join(FILES)}")
    total = 0
    for name in names or FILES:
        module = importlib.import_module(name)
        total += common.write(name, module.ABOUT, module.make())
    print(f"{total / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
