"""Keras saves whole VGG16, ResNet50 and Xception in its three formats; Fovea reads each and must give Keras's
logits.

    .venv/bin/python scripts/check-keras-weights.py [FOLDER] [vgg16 resnet50 xception]

Needs what scripts/golden/requirements.txt lists, Node, and 1.5 GB of disk in FOLDER (default: a temporary
one). Weights are random, of Keras's initializers, with random statistics of batch normalization; images are
random, 224 x 224 (299 x 299 for Xception). Prints the largest difference of a logit for each file, beside
the largest logit.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras  # noqa: E402
import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
NODE = os.environ.get("NODE", str(ROOT / "node_modules/.bin/node"))
APPLICATIONS = {
    "vgg16": (keras.applications.VGG16, keras.applications.vgg16.preprocess_input, 224),
    "resnet50": (keras.applications.ResNet50, keras.applications.resnet50.preprocess_input, 224),
    "xception": (keras.applications.Xception, keras.applications.xception.preprocess_input, 299),
}


def randomize(model: keras.Model, r: np.random.Generator) -> None:
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(r.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(r.uniform(-0.5, 0.5, weight.shape))


def check(name: str, folder: Path) -> None:
    make, preprocess, side = APPLICATIONS[name]
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    model = make(weights=None, classifier_activation=None)
    randomize(model, np.random.default_rng(7))
    images = np.random.default_rng(8).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    logits = model(preprocess(images.astype(np.float32))).numpy()
    (folder / "images.bin").write_bytes(images.tobytes())
    (folder / "logits.bin").write_bytes(logits.astype("<f4").tobytes())
    saved = {
        f"{name}.h5": model.save,
        f"{name}.weights.h5": model.save_weights,
        f"{name}.keras": model.save,
    }
    for file, save in saved.items():
        path = folder / file
        save(path)
        request = {"model": name, "file": str(path), "side": side, "folder": str(folder)}
        script = str(ROOT / "scripts/check-keras-weights.ts")
        subprocess.run([NODE, script, json.dumps(request)], check=True)
        path.unlink()


def main(arguments: list[str]) -> None:
    names = [argument for argument in arguments if argument in APPLICATIONS] or list(APPLICATIONS)
    folders = [argument for argument in arguments if argument not in APPLICATIONS]
    with tempfile.TemporaryDirectory(dir=folders[0] if folders else None) as folder:
        for name in names:
            check(name, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
