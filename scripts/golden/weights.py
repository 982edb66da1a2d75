"""test/golden/weights.json and test/golden/weights/: files of weights that Keras and PyTorch saved, with the
logits of the nets that saved them; the logits of Keras's VGG16, ResNet50 and Xception for weights that a
formula gives; and what Keras's preprocessing makes of images.
"""

import io
import shutil
from collections.abc import Callable
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import torch
from common import GOLDEN, Json, number, rng, tensor
from formula import applications, assign_formula, formula_image, layer_list
from keras import layers

ABOUT = (
    "files: each was saved from one of the nets, which gives the logits for its images [N, H, W, C], 0 to "
    "255. preprocessing: keras.layers.Resizing, and preprocess_input in its mode caffe. "
    "applications: keras.applications without top, with global average pooling and a dense layer "
    "'predictions' of 10 units; layers lists those with weights in the order of model.layers, with the names "
    "and shapes of layer.weights. logits are for formula.py's weights and image, prepared by "
    "preprocess_input."
)

FOLDER = GOLDEN / "weights"


def branched() -> keras.Model:
    """Two branches with kernels of one shape: only the right order, or the right names, give the logits."""
    images = keras.Input((8, 8, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1)(images)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    left = layers.Conv2D(4, 3, padding="same", name="left")(x)
    left = layers.BatchNormalization(name="left_norm")(left)
    right = layers.Conv2D(4, 3, padding="same", name="right1")(x)
    right = layers.ReLU()(right)
    right = layers.Conv2D(4, 3, padding="same")(right)
    right = layers.BatchNormalization()(right)
    x = layers.Add(name="sum")([left, right])
    x = layers.SeparableConv2D(5, 3, use_bias=False, name="separable")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(images, layers.Dense(3, name="logits")(x), name="branched")


def randomize(model: keras.Model) -> None:
    for variable in model.weights:
        r = rng("weights " + variable.path)
        low, high = (0.5, 1.5) if variable.name in ("gamma", "moving_variance") else (-0.5, 0.5)
        # exact in 16 bits too
        variable.assign(np.round(r.uniform(low, high, variable.shape) * 256) / 256)


def rewrite(source: str, target: str, change: Callable[[h5py.File, h5py.File], None]) -> None:
    buffer = io.BytesIO()
    with h5py.File(FOLDER / source, "r") as old, h5py.File(buffer, "w") as new:
        change(old, new)
    (FOLDER / target).write_bytes(buffer.getvalue())


def without_names(old: h5py.File, new: h5py.File) -> None:
    """As the first releases of Keras 3 wrote them: only class names and numbers."""

    def copy(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            new[name] = item[()]
        else:
            new.require_group(name)

    old.visititems(copy)


def in_dtype(dtype: str) -> Callable[[h5py.File, h5py.File], None]:
    def change(old: h5py.File, new: h5py.File) -> None:
        without_names(old, new)
        for name in [n for n in _datasets(new)]:
            value = new[name][()].astype(dtype)
            del new[name]
            new[name] = value

    return change


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


KERAS_1 = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}
KERAS_1_LAYERS = {"conv2d": "convolution2d_7", "batch_normalization": "batchnormalization_9"}


def as_keras_1(old: h5py.File, new: h5py.File) -> None:
    """As Keras 1 wrote: texts of fixed length, no folders in names; and a list of layers in two pieces, as
    where it is long."""
    source = old["model_weights"] if "model_weights" in old else old
    names = list(source.attrs["layer_names"])
    renamed = [KERAS_1_LAYERS.get(name, name).encode() for name in names]
    new.attrs["layer_names0"] = np.array(renamed[:5])
    new.attrs["layer_names1"] = np.array(renamed[5:])
    for name, other in zip(names, renamed, strict=True):
        group = new.create_group(other)
        weights = []
        for weight in source[name].attrs["weight_names"]:
            word = weight.split("/")[-1]
            label = f"{other.decode()}_{KERAS_1.get(word, word)}_1:0"
            group[label] = source[name][weight][()]
            weights.append(label.encode())
        group.attrs["weight_names"] = np.array(weights, dtype="S" if weights else "f8")


def keras_files() -> list[Json]:
    keras.backend.clear_session()
    model = branched()
    randomize(model)
    images = rng("weights images").integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    logits = model(images.astype(np.float32)).numpy()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(FOLDER / "legacy.h5")
    model.save(FOLDER / "branched.keras")
    model.save_weights(FOLDER / "named.weights.h5")
    rewrite("named.weights.h5", "unnamed.weights.h5", without_names)
    rewrite("named.weights.h5", "float16.weights.h5", in_dtype("float16"))
    rewrite("named.weights.h5", "float64.weights.h5", in_dtype("float64"))
    rewrite("legacy.h5", "keras-1.h5", as_keras_1)
    files = ["legacy.h5", "branched.keras", "named.weights.h5", "unnamed.weights.h5"]
    files += ["float16.weights.h5", "float64.weights.h5", "keras-1.h5"]
    answer = {"net": "branched", "images": pixels(images), "logits": tensor(logits)}
    return [{"file": file, **answer} for file in files]


def pixels(images: np.ndarray) -> Json:
    return {"shape": list(images.shape), "data": [int(v) for v in images.ravel()]}


class Chain(torch.nn.Module):
    """Flattens [C, H, W], where Fovea flattens [H, W, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1),
            torch.nn.BatchNorm2d(4, eps=1e-3),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(4, 8, 3, groups=4, bias=False),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(32, 6),
            torch.nn.ReLU(),
            torch.nn.Linear(6, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x / 255)


def onnx_files() -> list[Json]:
    torch.manual_seed(1)
    net = Chain().float()
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if value.dtype == torch.float32:
                r = rng("weights torch " + name)
                low, high = (0.5, 1.5) if name.endswith("running_var") else (-0.5, 0.5)
                value.copy_(torch.tensor(np.round(r.uniform(low, high, tuple(value.shape)) * 256) / 256))
    net.eval()
    images = rng("weights torch images").integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    x = torch.tensor(images).permute(0, 3, 1, 2).float()
    logits = net(x).detach().numpy()
    path = FOLDER / "chain.onnx"
    preserve = torch.onnx.TrainingMode.PRESERVE
    # the other exporter needs a package more; it names and orders the weights the same
    torch.onnx.export(net, (x,), str(path), dynamo=False, training=preserve, do_constant_folding=False)
    model = onnx.load(path)
    # this changes the model that it saves
    external = {"save_as_external_data": True, "location": "external.bin", "size_threshold": 0}
    onnx.save(onnx.load(path), FOLDER / "external.onnx", **external)
    (FOLDER / "external.bin").unlink()
    for i, initializer in enumerate(model.graph.initializer):
        values = onnx.numpy_helper.to_array(initializer).astype(np.float16)
        half = onnx.TensorProto.FLOAT16
        # both forms that the format has for them
        raw = onnx.numpy_helper.from_array(values, initializer.name)
        listed = onnx.helper.make_tensor(initializer.name, half, values.shape, values.ravel())
        initializer.CopyFrom(listed if i % 2 else raw)
    onnx.save(model, FOLDER / "float16.onnx")
    answer = {"net": "chain", "images": pixels(images), "logits": tensor(logits)}
    return [{"file": file, **answer} for file in ["chain.onnx", "float16.onnx"]]


def application_cases() -> list[Json]:
    cases = []
    for name, make, preprocess, side in applications():
        keras.backend.clear_session()
        base = make(include_top=False, weights=None, input_shape=(side, side, 3), pooling="avg")
        model = keras.Model(base.input, layers.Dense(10, name="predictions")(base.output))
        assign_formula(model)
        image = formula_image(name, side)
        logits = model(preprocess(image.astype(np.float32))).numpy()
        scale = np.abs(logits).max()
        if not 0.1 < scale < 1e3:
            raise ValueError(f"{name}: the logits reach {scale}: the formula's weights are of little use")
        answer = [number(v) for v in logits[0]]
        cases.append({"name": name, "side": side, "layers": layer_list(model), "logits": answer})
    return cases


def preprocessing_cases() -> list[Json]:
    images = rng("weights preprocessing").integers(0, 256, (2, 5, 4, 3)).astype(np.float32)
    cases = []
    for height, width in [(9, 10), (5, 4), (2, 3), (1, 1), (11, 2)]:
        output = layers.Resizing(height, width)(images).numpy()
        options = {"height": height, "width": width}
        cases.append({"name": f"resizing {height} x {width}", "options": options, "output": tensor(output)})
    caffe = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode="caffe")
    cases.append({"name": "caffe", "output": tensor(caffe)})
    return [{**case, "images": pixels(images)} for case in cases]


def make() -> dict[str, Json]:
    before = keras.config.floatx()
    keras.config.set_floatx("float32")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        return {
            "files": [*keras_files(), *onnx_files()],
            "preprocessing": preprocessing_cases(),
            "applications": application_cases(),
        }
    finally:
        keras.config.set_floatx(before)
