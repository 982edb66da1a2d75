"""test/golden/augmentation.json: augmented images for stated draws, by PyTorch and NumPy in float64: crops as slices of
F.pad, flips by torch.flip, cutout as in the authors' code, rotations by affine_grid and grid_sample.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Json, rng, tensor

ABOUT = (
    "Augmented images in PyTorch and NumPy, float64; images are [N, H, W, C], 0 to 255. Each step has its options and what "
    "each image drew: a crop its offsets (y, x) in the padded image, a flip 0 or 1, cutout its centre (y, x), a "
    "rotation degrees to the left, brightness what is added, contrast its factor. Steps are done in their order."
)

# (images [N, C, H, W], options, draws of each image) -> images
Images = torch.Tensor


def crop(x: Images, options: dict[str, Any], draws: list[list[float]]) -> Images:
    p, (h, w) = options["padding"], x.shape[2:]
    mode = "constant" if options["mode"] == "zeros" else "reflect"
    padded = F.pad(x, (p, p, p, p), mode=mode)
    return torch.stack([image[:, y : y + h, z : z + w] for image, (y, z) in zip(padded, draws, strict=True)])


def flip(x: Images, _options: dict[str, Any], draws: list[list[float]]) -> Images:
    return torch.stack([image.flip(-1) if f else image for image, (f,) in zip(x, draws, strict=True)])


def cutout(x: Images, options: dict[str, Any], draws: list[list[float]]) -> Images:
    """https://github.com/uoguelph-mlrg/Cutout, util/cutout.py, with the mean in the place of the 0 of normalized images."""
    size, (h, w) = options["size"], x.shape[2:]
    y = x.clone()
    for image, (cy, cx) in zip(y, draws, strict=True):
        y1, y2 = np.clip(cy - size // 2, 0, h), np.clip(cy + size // 2, 0, h)
        x1, x2 = np.clip(cx - size // 2, 0, w), np.clip(cx + size // 2, 0, w)
        image[:, y1:y2, x1:x2] = torch.tensor(options["fill"], dtype=x.dtype)[:, None, None]
    return y


def rotate(x: Images, _options: dict[str, Any], draws: list[list[float]]) -> Images:
    """As torchvision's F.rotate with bilinear interpolation: the affine map of centred pixels, to the left."""
    h, w = x.shape[2:]
    maps = []
    for (degrees,) in draws:
        a = np.deg2rad(degrees)
        # affine_grid counts in half images; the rotation is one of pixels.
        maps.append([[np.cos(a), -np.sin(a) * h / w, 0], [np.sin(a) * w / h, np.cos(a), 0]])
    grid = F.affine_grid(torch.tensor(maps), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def brightness(x: Images, _options: dict[str, Any], draws: list[list[float]]) -> Images:
    return x + torch.tensor(draws)[:, :, None, None]


def contrast(x: Images, _options: dict[str, Any], draws: list[list[float]]) -> Images:
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (x - mean) * torch.tensor(draws)[:, :, None, None] + mean


STEPS = {
    "crop": crop,
    "flip": flip,
    "cutout": cutout,
    "rotate": rotate,
    "brightness": brightness,
    "contrast": contrast,
}

CROP = ({"augmentation": "crop", "padding": 2, "mode": "zeros"}, [[0, 4], [2, 2], [3, 0]])
REFLECT = ({"augmentation": "crop", "padding": 3, "mode": "reflect"}, [[0, 6], [1, 0], [6, 3]])
FLIP = ({"augmentation": "flip", "probability": 0.5}, [[1], [0], [1]])
CUTOUT = ({"augmentation": "cutout", "size": 4, "fill": [125, 90]}, [[0, 0], [3, 2], [5, 6]])
ROTATE = ({"augmentation": "rotate", "degrees": 30}, [[-29.25], [0.0], [13.5]])
TURN = ({"augmentation": "rotate", "degrees": 180}, [[90.0], [-90.0], [179.0]])
BRIGHTNESS = ({"augmentation": "brightness", "range": 0.2}, [[-50.0], [0.0], [12.75]])
CONTRAST = ({"augmentation": "contrast", "range": 0.5}, [[0.5], [1.0], [1.375]])

CHAINS = {
    "crop": [CROP],
    "crop, reflected": [REFLECT],
    "flip": [FLIP],
    "cutout": [CUTOUT],
    "rotate": [ROTATE],
    "rotate, far": [TURN],
    "brightness": [BRIGHTNESS],
    "contrast": [CONTRAST],
    "crop, flip": [CROP, FLIP],
    "flip, crop": [FLIP, CROP],
    "crop, flip, cutout": [CROP, FLIP, CUTOUT],
    "cutout, crop": [CUTOUT, CROP],
    "cutout, flip, crop reflected": [CUTOUT, FLIP, REFLECT],
    "rotate, crop, cutout": [ROTATE, CROP, CUTOUT],
    "crop, rotate, flip, brightness, cutout": [CROP, ROTATE, FLIP, BRIGHTNESS, CUTOUT],
}


def make() -> dict[str, list[Json]]:
    images = rng("images").integers(0, 256, size=(3, 6, 7, 2))
    cases = []
    for name, steps in CHAINS.items():
        x = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
        for options, draws in steps:
            x = STEPS[options["augmentation"]](x, options, draws)
        rows = [{"options": options, "draws": draws} for options, draws in steps]
        cases.append({"name": name, "steps": rows, "output": tensor(x.permute(0, 2, 3, 1))})
    return {"images": [tensor(images)], "cases": cases}
