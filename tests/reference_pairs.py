"""Losses of pairs and of ranks as plain NumPy loops in float64, each `[B]`, sharing no code with their subject."""

import math

import numpy as np

from tests.reference import unit


def _members(labels, a):
    """(positives, negatives) of anchor a."""
    others = [j for j in range(len(labels)) if j != a]
    return [j for j in others if labels[j] == labels[a]], [j for j in others if labels[j] != labels[a]]


def multi_similarity(labels, embeddings, positive_scale=2.0, negative_scale=50.0, threshold=0.5, epsilon=0.1):
    """Both terms of every anchor, `[B, 2]`."""
    f = unit(np.asarray(embeddings, np.float64))
    found = np.zeros([len(f), 2])
    for a in range(len(f)):
        positives, negatives = _members(labels, a)
        kept = [p for p in positives if any(f[a] @ f[p] - epsilon < f[a] @ f[n] for n in negatives)]
        pushed = [n for n in negatives if any(f[a] @ f[n] + epsilon > f[a] @ f[p] for p in positives)]
        if kept and pushed:
            found[a, 0] = (
                math.log(1 + sum(math.exp(-positive_scale * (f[a] @ f[p] - threshold)) for p in kept)) / positive_scale
            )
            found[a, 1] = (
                math.log(1 + sum(math.exp(negative_scale * (f[a] @ f[n] - threshold)) for n in pushed)) / negative_scale
            )
    return found


def supervised_contrastive(labels, embeddings, temperature=0.1):
    f = unit(np.asarray(embeddings, np.float64))
    found = np.zeros(len(f))
    for a in range(len(f)):
        positives, negatives = _members(labels, a)
        total = sum(math.exp(f[a] @ f[o] / temperature) for o in positives + negatives)
        for p in positives:
            found[a] -= math.log(math.exp(f[a] @ f[p] / temperature) / total) / len(positives)
    return found


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def smooth_ap(labels, embeddings, temperature=0.01):
    f = unit(np.asarray(embeddings, np.float64))
    found = np.zeros(len(f))
    for a in range(len(f)):
        positives, negatives = _members(labels, a)
        precisions = []
        for i in positives:
            among = 1 + sum(sigmoid(f[a] @ (f[j] - f[i]) / temperature) for j in positives if j != i)
            precisions.append(among / (among + sum(sigmoid(f[a] @ (f[j] - f[i]) / temperature) for j in negatives)))
        if positives:
            found[a] = 1 - sum(precisions) / len(precisions)
    return found


def bounding_step(x, temperature, slope, delta):
    """The step of ROADMAP for negatives."""
    if x <= 0:
        return sigmoid(x / temperature)
    return sigmoid(x / temperature) + 0.5 if x <= delta else slope * (x - delta) + sigmoid(delta / temperature) + 0.5


def roadmap(
    labels,
    embeddings,
    calibration_weight=0.5,
    temperature=0.01,
    slope=100.0,
    delta=0.05,
    positive_threshold=0.9,
    negative_threshold=0.6,
):
    """The three weighted terms of every anchor, `[B, 3]`; those of pairs as sums, each divided by all, times B."""
    f = unit(np.asarray(embeddings, np.float64))
    found = np.zeros([len(f), 3])
    for a in range(len(f)):
        positives, negatives = _members(labels, a)
        for i in positives:
            before = 1 + sum(f[a] @ f[j] >= f[a] @ f[i] for j in positives if j != i)
            others = sum(bounding_step(f[a] @ (f[j] - f[i]), temperature, slope, delta) for j in negatives)
            found[a, 0] += (1 - calibration_weight) * (1 - before / (before + others)) / len(positives)
        found[a, 1] = sum(max(positive_threshold - f[a] @ f[p], 0) for p in positives)
        found[a, 2] = sum(max(f[a] @ f[n] - negative_threshold, 0) for n in negatives)
    for column, excess in (
        (1, lambda a: [positive_threshold - f[a] @ f[p] for p in _members(labels, a)[0]]),
        (2, lambda a: [f[a] @ f[n] - negative_threshold for n in _members(labels, a)[1]]),
    ):
        count = sum(each > 0 for a in range(len(f)) for each in excess(a))
        found[:, column] *= calibration_weight * len(f) / max(count, 1)
    return found


def recall_at_k(labels, embeddings, ks=(1, 2, 4, 8, 16), temperature=0.01, rank_temperature=1.0):
    f = unit(np.asarray(embeddings, np.float64))
    found = np.zeros(len(f))
    for a in range(len(f)):
        positives, negatives = _members(labels, a)
        places = [
            1 + sum(sigmoid(f[a] @ (f[j] - f[i]) / temperature) for j in positives + negatives if j != i)
            for i in positives
        ]
        if positives:
            recalls = [
                sum(sigmoid((k - place) / rank_temperature) for place in places) / min(k, len(positives)) for k in ks
            ]
            found[a] = 1 - sum(recalls) / len(ks)
    return found
