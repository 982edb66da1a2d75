"""scikit-learn's MLPClassifier, a peer of the bench for networks of dense layers alone.

    .venv/bin/python bench/peers/sklearn_peer.py        then one request a line: bench/README.md

To be fair to it: it computes in float32, `partial_fit` neither shuffles nor stops early, and `choose` tries
calls of one minibatch and calls of many, which it takes one after another by itself (its checks of a call's
arguments are then shared by them). Threads: threadpoolctl, which holds for its BLAS. First values are its
own: Glorot's, biases drawn too.
"""

import argparse

import numpy as np
from network import Layer, Network, count, read_network
from protocol import Job, Peer, PeerError, Trainer, serve

# Fovea's name: scikit-learn's, which holds for all hidden layers
ACTIVATIONS = {"linear": "identity", "relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}
# Minibatches of a call, by variant
CALLS = {"a minibatch a call": 1, "50 minibatches a call": 50}


def dense_layers(network: Network) -> list[Layer]:
    """The dense layers of a network that has none but those.

    :raises PeerError: for what MLPClassifier does not have
    """
    plain = ("rescaling", "flatten", "dense")
    for layer in network.layers:
        if layer.kind not in plain:
            raise PeerError(f"scikit-learn's MLPClassifier has no {layer.kind}")
    kinds = [layer.kind for layer in network.layers]
    chained = all(
        layer.inputs == (before,)
        for layer, before in zip(network.layers, ["input", *(layer.name for layer in network.layers)])
    )
    if not chained or kinds != sorted(kinds, key=plain.index) or network.output != network.layers[-1].name:
        raise PeerError("scikit-learn's MLPClassifier has no layers but one after another, rescaled first")
    layers = [layer for layer in network.layers if layer.kind == "dense"]
    *hidden, last = layers
    if not hidden:
        raise PeerError("scikit-learn's MLPClassifier has no network without a hidden layer")
    names = {layer.activation.name for layer in hidden}
    if len(names) > 1 or not names <= set(ACTIVATIONS) or last.activation.name != "linear":
        raise PeerError(f"scikit-learn's MLPClassifier has no {', '.join(sorted(names))} together")
    if not all(layer["useBias"] for layer in layers) or len({layer.l2 for layer in layers}) > 1:
        raise PeerError("scikit-learn's MLPClassifier has no biases or penalties by layer")
    return layers


class SklearnTrainer(Trainer):
    def __init__(self, peer: "SklearnPeer", variant: str) -> None:
        self.peer, self.at_once = peer, CALLS[variant]
        *hidden, last = peer.layers
        job = peer.job
        self.classes = np.arange(job.classes)
        self.model = peer.classifier(
            hidden_layer_sizes=[layer["units"] for layer in hidden],
            activation=ACTIVATIONS[hidden[0].activation.name],
            solver="adam",
            learning_rate_init=1e-3,
            epsilon=1e-7,
            # Its penalty is alpha / 2 of the sum of squares, divided by the minibatch's images
            alpha=2 * last.l2 * job.batch,
            batch_size=job.batch,
            shuffle=False,
            random_state=job.seed,
            n_iter_no_change=np.inf,
        )

    def train(self, rows: np.ndarray) -> None:
        for at in range(0, len(rows), self.at_once):
            index = rows[at : at + self.at_once].ravel()
            # Known from the first call on; to give them again is to have them compared
            classes = None if hasattr(self.model, "classes_") else self.classes
            self.model.partial_fit(self.peer.pixels(index), self.peer.labels[index], classes=classes)

    def loss(self) -> float:
        return float(self.model.loss_)

    def evaluate(self, rows: np.ndarray) -> tuple[float, float]:
        losses, correct = 0.0, 0
        for index in rows:
            p = self.model.predict_proba(self.peer.pixels(index))
            labels = self.peer.labels[index]
            own = p[np.arange(len(index)), labels]
            losses -= np.log(np.maximum(own, np.finfo(own.dtype).tiny)).mean(dtype=float)
            correct += np.count_nonzero(p.argmax(1) == labels)
        squares = sum(np.square(kernel).sum(dtype=float) for kernel in self.model.coefs_)
        return losses / len(rows) + self.peer.layers[-1].l2 * squares, correct / rows.size


class SklearnPeer(Peer):
    name = "sklearn"
    variants = tuple(CALLS)

    def __init__(self, job: Job) -> None:
        import sklearn
        import threadpoolctl
        from sklearn.neural_network import MLPClassifier

        self.job, self.classifier = job, MLPClassifier
        self.version = sklearn.__version__
        network = read_network(job.model)
        self.layers = dense_layers(network)
        self.parameters = count(network.weights(job.seed))
        self.rescaling = [layer for layer in network.layers if layer.kind == "rescaling"]
        images, self.labels = job.read_images()
        self.images = images.reshape(len(images), -1)
        # Once its BLAS is loaded
        self.limits = threadpoolctl.threadpool_limits(job.threads)

    def trainer(self, variant: str) -> SklearnTrainer:
        return SklearnTrainer(self, variant)

    def pixels(self, index: np.ndarray) -> np.ndarray:
        """float32 [N, F]"""
        x = self.images[index].astype(np.float32)
        for layer in self.rescaling:
            x *= np.float32(layer["scale"])
            if layer["offset"]:
                x += np.float32(layer["offset"])
        return x


def main() -> None:
    argparse.ArgumentParser(
        description="scikit-learn as a peer of the bench: requests on standard input"
    ).parse_args()
    serve(SklearnPeer)


if __name__ == "__main__":
    main()
