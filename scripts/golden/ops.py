"""test/golden/ops.json: forward values and gradients of the graph's operators, from PyTorch's autograd in
float64.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Json, away_from, distinct, normal, rng, tensor, uniform

ABOUT = (
    "Operators by their ONNX names and attributes, PyTorch autograd in float64. gradients[i] is the "
    "gradient of sum(output * cotangent) with respect to inputs[i]; every input is a float. Constant "
    "operands are attributes. Split has outputs and cotangents in place of output and cotangent."
)

Fn = Callable[..., torch.Tensor | Sequence[torch.Tensor]]


class Cases:
    def __init__(self) -> None:
        self.rows: list[Json] = []

    def add(self, op: str, label: str, attrs: dict[str, Any], fn: Fn, inputs: Sequence[np.ndarray]) -> None:
        name = f"{op} {label}".strip()
        if any(row["name"] == name for row in self.rows):
            raise ValueError(f"two cases are named {name}")
        leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
        result = fn(*leaves)
        outputs = [result] if isinstance(result, torch.Tensor) else list(result)
        r = rng("cotangent " + name)
        cotangents = [torch.tensor(normal(r, *y.shape)) for y in outputs]
        gradients = torch.autograd.grad(outputs, leaves, cotangents)
        several = not isinstance(result, torch.Tensor)
        self.rows.append(
            {
                "name": name,
                "op": op,
                "attrs": attrs,
                "inputs": [tensor(x) for x in leaves],
                **(
                    {"cotangents": [tensor(c) for c in cotangents]}
                    if several
                    else {"cotangent": tensor(cotangents[0])}
                ),
                **({"outputs": [tensor(y) for y in outputs]} if several else {"output": tensor(outputs[0])}),
                "gradients": [tensor(g) for g in gradients],
            }
        )


def binary(cases: Cases) -> None:
    pairs = {
        "same shape": ([3, 4], [3, 4]),
        "[3,4] with [4]": ([3, 4], [4]),
        "[4] with [3,4]": ([4], [3, 4]),
        "[2,3,4] with [3,1]": ([2, 3, 4], [3, 1]),
        "[2,1,4] with [3,1]": ([2, 1, 4], [3, 1]),
        "[2,3] with scalar": ([2, 3], []),
        "scalar with [2,3]": ([], [2, 3]),
    }
    functions: dict[str, Fn] = {
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Div": torch.div,
        "Max": torch.maximum,
        "Min": torch.minimum,
    }
    for op, fn in functions.items():
        for label, (left, right) in pairs.items():
            r = rng(f"{op} {label}")
            a, b = normal(r, *left), normal(r, *right)
            if op == "Div":
                b = np.sign(b + 1e-9) * (np.abs(b) + 0.5)
            # a on odd multiples of 1/64, b on even ones: never equal
            if op in ("Max", "Min"):
                a = np.round(a * 32) / 32 + 1 / 64
                b = np.round(b * 32) / 32
            cases.add(op, label, {}, fn, [a, b])


def unary(cases: Cases) -> None:
    shape = [3, 5]
    r = rng("unary")
    signed = away_from(normal(r, *shape, scale=1.5), 0)
    positive = uniform(r, 0.125, 4, *shape)
    wide = away_from(uniform(r, -6, 6, *shape), 0)
    plain: list[tuple[str, Fn, np.ndarray]] = [
        ("Neg", torch.neg, signed),
        ("Exp", torch.exp, signed),
        ("Log", torch.log, positive),
        ("Sqrt", torch.sqrt, positive),
        ("Reciprocal", torch.reciprocal, signed),
        ("Abs", torch.abs, signed),
        ("Sin", torch.sin, signed),
        ("Cos", torch.cos, signed),
        ("Tanh", torch.tanh, signed),
        ("Sigmoid", torch.sigmoid, wide),
        ("Relu", torch.relu, signed),
        ("Erf", torch.erf, signed),
        ("Softplus", F.softplus, wide),
    ]
    for op, fn, x in plain:
        cases.add(op, "", {}, fn, [x])
    cases.add("LeakyRelu", "alpha 0.1", {"alpha": 0.1}, lambda x: F.leaky_relu(x, 0.1), [signed])
    cases.add("Elu", "alpha 1", {"alpha": 1}, lambda x: F.elu(x, 1.0), [signed])
    cases.add("Gelu", "exact", {"approximate": "none"}, lambda x: F.gelu(x), [wide])
    cases.add("Gelu", "tanh", {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh"), [wide])
    for label, s in {"[3,5]": [3, 5], "[2,3,4]": [2, 3, 4]}.items():
        x = normal(rng(f"softmax {label}"), *s, scale=2)
        cases.add("Softmax", label, {"axis": -1}, lambda x: torch.softmax(x, -1), [x])
        cases.add("LogSoftmax", label, {"axis": -1}, lambda x: torch.log_softmax(x, -1), [x])
    large = np.array([[1000.0, 999.0, -1000.0], [-80.0, 80.0, 79.5]])
    cases.add("Softmax", "large logits", {"axis": -1}, lambda x: torch.softmax(x, -1), [large])
    cases.add("LogSoftmax", "large logits", {"axis": -1}, lambda x: torch.log_softmax(x, -1), [large])
    for exponent in (2, 0.5, -0.75):
        fn = lambda x, e=exponent: torch.pow(x, e)  # noqa: E731
        cases.add("Pow", f"exponent {exponent}", {"exponent": exponent}, fn, [positive])
    cases.add("Pow", "negative base squared", {"exponent": 2}, lambda x: x**2, [signed])
    clipped = away_from(normal(rng("clip"), *shape), -0.75, 0.5)
    cases.add("Clip", "both", {"min": -0.75, "max": 0.5}, lambda x: torch.clip(x, -0.75, 0.5), [clipped])
    cases.add("Clip", "min only", {"min": -0.75}, lambda x: torch.clip(x, min=-0.75), [clipped])
    cases.add("Clip", "max only", {"max": 0.5}, lambda x: torch.clip(x, max=0.5), [clipped])


def matmul(cases: Cases) -> None:
    for batch_a, batch_b in (([], []), ([2], [2]), ([2], []), ([], [2]), ([2, 1], [3])):
        for trans_a in (False, True):
            for trans_b in (False, True):
                label = f"{batch_a + [3, 4]} by {batch_b + [4, 5]} transA {trans_a} transB {trans_b}".lower()
                label = label.replace("transa", "transA").replace("transb", "transB")
                r = rng(label)
                a = normal(r, *batch_a, *([4, 3] if trans_a else [3, 4]))
                b = normal(r, *batch_b, *([5, 4] if trans_b else [4, 5]))
                fn = lambda a, b, ta=trans_a, tb=trans_b: torch.matmul(a.mT if ta else a, b.mT if tb else b)  # noqa: E731
                cases.add("MatMul", label, {"transA": trans_a, "transB": trans_b}, fn, [a, b])


def reductions(cases: Cases) -> None:
    functions: dict[str, Fn] = {"ReduceSum": torch.sum, "ReduceMean": torch.mean, "ReduceMax": torch.amax}
    for op, reduce in functions.items():
        for axes in ([0], [1], [-1], [0, 2], [0, 1, 2]):
            for keepdims in (True, False) if axes == [0, 2] else (True,):
                label = f"axes {axes}" + ("" if keepdims else " keepdims false")
                x = distinct(rng(f"{op} {label}"), 2, 3, 4)
                fn = lambda x, f=reduce, a=axes, k=keepdims: f(x, dim=a, keepdim=k)  # noqa: E731
                cases.add(op, label, {"axes": axes, "keepdims": keepdims}, fn, [x])


def slice_like_onnx(
    x: torch.Tensor, starts: list[int], ends: list[int], axes: list[int], steps: list[int]
) -> torch.Tensor:
    """torch has no negative steps; Python's slice has, with ONNX's clamping."""
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        n = x.shape[axis]
        stop = None if step < 0 and end < -n else end
        index = torch.tensor(list(range(n))[slice(start, stop, step)])
        x = torch.index_select(x, axis, index)
    return x


def structure(cases: Cases) -> None:
    for label, source, target in (
        ("to 2-D", [2, 3, 4], [6, 4]),
        ("to 1-D", [2, 3], [6]),
        ("to 4-D", [4, 6], [2, 2, 3, 2]),
    ):
        x = normal(rng("reshape " + label), *source)
        cases.add("Reshape", label, {"shape": target}, lambda x, s=target: x.reshape(s), [x])
    for source, perm in (
        ([3, 4], [1, 0]),
        ([2, 3, 4], [2, 0, 1]),
        ([2, 3, 2, 4], [1, 2, 0, 3]),
        ([2, 3, 2, 4], [2, 3, 0, 1]),
    ):
        x = normal(rng(f"transpose {perm}"), *source)
        cases.add("Transpose", f"perm {perm}", {"perm": perm}, lambda x, p=perm: x.permute(p), [x])
    for axis, shapes in ((0, ([2, 3], [1, 3])), (1, ([2, 3], [2, 1], [2, 2])), (-1, ([2, 2, 3], [2, 2, 1]))):
        r = rng(f"concat {axis}")
        cases.add(
            "Concat",
            f"axis {axis}",
            {"axis": axis},
            lambda *xs, a=axis: torch.cat(xs, a),
            [normal(r, *s) for s in shapes],
        )
    for axis, shape, sizes in ((0, [5, 3], [2, 3]), (1, [2, 6], [1, 2, 3]), (-1, [2, 2, 4], [2, 2])):
        x = normal(rng(f"split {axis}"), *shape)
        cases.add(
            "Split",
            f"axis {axis}",
            {"axis": axis, "sizes": sizes},
            lambda x, s=sizes, a=axis: torch.split(x, s, a),
            [x],
        )
    slices = {
        "one axis": ([5, 4], [1], [4], [0], [1]),
        "two axes with steps": ([6, 7], [1, 0], [6, 7], [0, 1], [2, 3]),
        "negative start and end": ([5, 4], [-3], [-1], [-2], [1]),
        "end past the extent": ([5, 4], [2], [1000], [1], [1]),
        "reversed": ([5, 4], [-1], [-1000], [0], [-1]),
        "reversed with step": ([2, 7], [5], [0], [1], [-2]),
        "step that leaves a remainder": ([8, 3], [0], [8], [0], [3]),
    }
    for label, (shape, starts, ends, axes, steps) in slices.items():
        attrs = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        x = normal(rng("slice " + label), *shape)
        cases.add("Slice", label, attrs, lambda x, a=attrs: slice_like_onnx(x, **a), [x])
    # pads in ONNX's order: begins of all axes, then ends of all axes
    for label, shape, pads in (
        ("2-D", [2, 3], [1, 0, 0, 2]),
        ("NHWC", [1, 3, 2, 2], [0, 1, 2, 0, 0, 2, 1, 0]),
        ("1-D", [3], [2, 1]),
    ):
        n = len(shape)
        torch_pads = [p for axis in reversed(range(n)) for p in (pads[axis], pads[n + axis])]
        x = normal(rng("pad " + label), *shape)
        cases.add("Pad", label, {"pads": pads, "value": 0}, lambda x, p=torch_pads: F.pad(x, p), [x])
    for label, shape, indices in (
        ("rows with repeats", [5, 3], np.array([4, 0, 0, 2, 4, 4])),
        ("2-D indices", [6, 2], np.array([[5, 1, 1], [0, 3, 5]])),
        ("from 3-D", [4, 2, 3], np.array([3, 3, 0])),
    ):
        x = normal(rng("gather " + label), *shape)
        fn = lambda x, i=torch.tensor(indices): x[i]  # noqa: E731
        cases.add("Gather", label, {"axis": 0, "indices": tensor(indices)}, fn, [x])
    for source, target in (([1, 4], [3, 4]), ([3, 1], [2, 3, 4]), ([], [2, 3]), ([2, 1, 3], [2, 4, 3])):
        x = normal(rng(f"expand {target}"), *source)
        cases.add("Expand", f"{source} to {target}", {"shape": target}, lambda x, s=target: x.expand(s), [x])
    for label, condition, left, right in (
        ("same shape", [3, 4], [3, 4], [3, 4]),
        ("broadcast condition", [4], [3, 4], [3, 4]),
        ("broadcast operands", [3, 4], [4], []),
    ):
        r = rng("where " + label)
        chosen = r.integers(0, 2, condition)
        fn = lambda a, b, c=torch.tensor(chosen).bool(): torch.where(c, a, b)  # noqa: E731
        cases.add("Where", label, {"condition": tensor(chosen)}, fn, [normal(r, *left), normal(r, *right)])


def make() -> dict[str, Json]:
    cases = Cases()
    for group in (binary, unary, matmul, reductions, structure):
        group(cases)
    return {"cases": cases.rows}
