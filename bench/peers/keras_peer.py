"""Keras 3 on the CPU, a peer of the bench: on TensorFlow or on JAX, whichever is faster is its result.

    .venv/bin/python bench/peers/keras_peer.py --backend tensorflow|jax

then one request a line: bench/README.md.

It trains by `fit` without callbacks and without metrics beside the loss, as fast as Keras offers it on each:

- TensorFlow: minibatches are gathered by tf.data from one tensor, `steps_per_execution` steps run in one call
  of a graph, and `choose` tries `jit_compile` on and off. Threads: tf.config.threading.
- JAX: minibatches are gathered by numpy from one array; the step is compiled by XLA (what it is without would
  take minutes), so that there is nothing to choose: `steps_per_execution` is a loop in Python there. XLA has
  no reliable switch for its threads: the process is pinned to as many cores as it may use threads.

Evaluation is by `evaluate`, of a model on the same layers that also has the accuracy as a metric.
"""

import argparse
import os

from protocol import Job, Peer, PeerError, pin, serve


def main() -> None:
    parser = argparse.ArgumentParser(description="Keras as a peer of the bench: requests on standard input")
    parser.add_argument("--backend", choices=("tensorflow", "jax"), required=True)
    backend = parser.parse_args().backend
    os.environ["KERAS_BACKEND"] = backend
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    first: int | None = None

    def open_peer(job: Job) -> Peer:
        nonlocal first
        first = first or job.threads
        if job.threads != first:
            raise PeerError(f"prepare: expected {first} threads, as before, received {job.threads}")
        if backend == "jax":
            pin(job.threads)
        # Only now: both libraries take their number of threads when they begin
        from keras_trainer import open_keras

        return open_keras(job, backend)

    serve(open_peer)


if __name__ == "__main__":
    main()
