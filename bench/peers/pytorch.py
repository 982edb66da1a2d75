"""PyTorch on the CPU, a peer of the bench: eager, or with --compile by torch.compile.

    .venv/bin/python bench/peers/pytorch.py [--compile]        then one request a line: bench/README.md

To be fair to it: minibatches are gathered from one uint8 tensor (no DataLoader), denormals are flushed,
gradients are dropped rather than zeroed, the loss is not read back while training, activations overwrite what
nobody else reads, and `choose` tries each memory layout (where there are maps) with each form of Adam. The
penalties are one operation for all kernels, with a backward pass of its own.

With --compile, torch.compile in its default mode has the conversion of the images, the forward pass, the loss
and the penalties, and so the backward pass, as one graph; `choose` tries each layout with the fused Adam and
with a compiled one. Evaluation is compiled too. It needs a C++ compiler. What it compiles is kept in a
temporary folder of the process, so that a first step never finds what an earlier process has left.

Two differences remain. PyTorch's batch norm keeps averages of the unbiased variance, Keras and Fovea of the
biased one. Its Adam adds epsilon after the bias correction of the root, they before it.
"""

import argparse
import os
import shutil
import tempfile

from protocol import Job, Peer, PeerError, serve


def require_compiler() -> None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise PeerError(f"torch.compile needs a C++ compiler: no {compiler}; on Debian: apt-get install g++")


def main() -> None:
    parser = argparse.ArgumentParser(description="PyTorch as a peer of the bench: requests on standard input")
    parser.add_argument("--compile", action="store_true", help="by torch.compile instead of eagerly")
    compiled = parser.parse_args().compile

    def open_peer(job: Job) -> Peer:
        if compiled:
            require_compiler()
        # Once there is a job: where PyTorch is missing, that is an answer
        from pytorch_trainer import PytorchPeer

        return PytorchPeer(job, compiled)

    with tempfile.TemporaryDirectory(prefix="fovea-bench-", ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        serve(open_peer)


if __name__ == "__main__":
    main()
