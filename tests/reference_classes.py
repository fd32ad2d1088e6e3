"""The oracle of the losses with class vectors: plain loops over photos and classes, in float64."""

import numpy as np

from tests.reference import unit


def normalized_softmax(labels, x, vectors, temperature=0.05, label_smoothing=0.0, classes=None):
    """The loss of each photo, among all classes or among some."""
    f, w = unit(np.asarray(x, np.float64)), unit(np.asarray(vectors, np.float64))
    classes = range(len(w)) if classes is None else classes
    return np.array(
        [
            _cross_entropy({c: np.dot(f[i], w[c]) / temperature for c in classes}, labels[i], label_smoothing)
            for i in range(len(f))
        ]
    )


def arcface(labels, x, vectors, margin=0.5, scale=64.0, label_smoothing=0.0, classes=None):
    """The loss of each photo; `vectors` are `[C, D]` or `[C, K, D]`."""
    f, w = unit(np.asarray(x, np.float64)), unit(np.asarray(vectors, np.float64))
    w = w[:, None] if w.ndim == 2 else w
    losses = []
    for i in range(len(f)):
        logits = {}
        for c in range(len(w)) if classes is None else classes:
            cosine = max(np.dot(f[i], center) for center in w[c])
            if c == labels[i]:
                angle = np.arccos(np.clip(cosine, -1.0, 1.0)) + margin
                cosine = np.cos(angle) if angle < np.pi else cosine - margin * np.sin(margin)
            logits[c] = scale * cosine
        losses.append(_cross_entropy(logits, labels[i], label_smoothing))
    return np.array(losses)


def proxy_anchor(labels, x, vectors, margin=0.1, scale=32.0, classes=None):
    """The loss of the batch, again for each photo."""
    f, w = unit(np.asarray(x, np.float64)), unit(np.asarray(vectors, np.float64))
    classes = list(range(len(w)) if classes is None else classes)
    drawn, pushed = 0.0, 0.0
    present = [c for c in classes if c in labels]
    for c in classes:
        own = [np.dot(f[i], w[c]) for i in range(len(f)) if labels[i] == c]
        others = [np.dot(f[i], w[c]) for i in range(len(f)) if labels[i] != c]
        if own:
            drawn += np.log(1 + sum(np.exp(-scale * (s - margin)) for s in own)) / len(present)
        pushed += np.log(1 + sum(np.exp(scale * (s + margin)) for s in others)) / len(classes)
    return np.full(len(f), drawn + pushed)


def _cross_entropy(logits, label, label_smoothing):
    """Of logits by class."""
    largest = max(logits.values())
    total = largest + np.log(sum(np.exp(value - largest) for value in logits.values()))
    shared = sum(total - value for value in logits.values()) / len(logits)
    return (1 - label_smoothing) * (total - logits[label]) + label_smoothing * shared
