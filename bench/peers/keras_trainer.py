"""Training by Keras: what keras_peer.py serves. Keras and its backend are loaded with it."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras_network import keras_model
from network import count, read_network
from protocol import Job, Peer, Trainer

# Steps that TensorFlow runs in one call of its graph
STEPS = 50


class KerasTrainer(Trainer):
    def __init__(self, peer: "KerasPeer", compiled: bool) -> None:
        self.peer = peer
        self.model = keras_model(peer.network, peer.network.weights(peer.job.seed))
        # On the same layers: a metric of the trained model itself would be computed at each of its steps
        self.judge = keras.Model(self.model.inputs, self.model.outputs)
        options = {
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "jit_compile": compiled,
            "steps_per_execution": peer.steps_per_execution,
        }
        self.model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-7), **options)
        self.judge.compile(metrics=["accuracy"], **options)
        self.history: Any = None

    def train(self, rows: np.ndarray) -> None:
        data, steps = self.peer.minibatches(rows)
        self.history = self.model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
        self.peer.wait(self.model)

    def loss(self) -> float:
        return self.history.history["loss"][-1]

    def evaluate(self, rows: np.ndarray) -> tuple[float, float]:
        data, steps = self.peer.minibatches(rows)
        loss, accuracy = self.judge.evaluate(data, steps=steps, verbose=0)
        return loss, accuracy


class KerasPeer(Peer):
    backend: str
    steps_per_execution = 1

    def __init__(self, job: Job, version: str) -> None:
        keras.utils.clear_session()
        self.job = job
        self.name = f"keras-{self.backend}"
        self.version = f"{keras.__version__}, {self.backend} {version}"
        self.network = read_network(job.model)
        self.parameters = count(self.network.weights(job.seed))
        self.images, labels = job.read_images()
        self.labels = labels.astype(np.int32)

    def trainer(self, variant: str) -> KerasTrainer:
        return KerasTrainer(self, variant == "jit_compile")

    def minibatches(self, rows: np.ndarray) -> tuple[Any, int | None]:
        """What `fit` and `evaluate` read, and how many steps they have to be told."""
        raise NotImplementedError

    def wait(self, model: keras.Model) -> None:
        """Until a model's last update is done."""


class TensorFlowPeer(KerasPeer):
    backend = "tensorflow"
    steps_per_execution = STEPS
    variants = ("jit_compile", "no jit_compile")

    def __init__(self, job: Job) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(job.threads)
        tf.config.threading.set_inter_op_parallelism_threads(job.threads)
        super().__init__(job, tf.__version__)
        images, labels = tf.constant(self.images), tf.constant(self.labels)
        self.images = self.labels = None  # The tensors are copies
        self.gather = tf.function(lambda index: (tf.gather(images, index), tf.gather(labels, index)))
        self.slices = tf.data.Dataset.from_tensor_slices

    def minibatches(self, rows: np.ndarray) -> tuple[Any, int | None]:
        return self.slices(rows).map(self.gather).prefetch(2), None


class JaxPeer(KerasPeer):
    backend = "jax"
    variants = ("jit_compile",)

    def __init__(self, job: Job) -> None:
        import jax

        super().__init__(job, jax.__version__)
        self.block = jax.block_until_ready

    def minibatches(self, rows: np.ndarray) -> tuple[Any, int | None]:
        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for index in rows:
                yield self.images[index], self.labels[index]

        return batches(), len(rows)

    def wait(self, model: keras.Model) -> None:
        self.block([variable.value for variable in model.trainable_variables])


def open_keras(job: Job, backend: str) -> Peer:
    return TensorFlowPeer(job) if backend == "tensorflow" else JaxPeer(job)
