"""The oracle for batches as users have them: values and gradients of the losses in float64, by loops over anchors.

Too simple to be wrong, as in tests/reference.py, and checked against it and against its numeric gradients on small
batches; but each loop works on a whole row, so that a thousand photos take a second or two.
"""

import numpy as np

from tests import reference


class Batch:
    """Unit vectors in float64, and what a loss makes of each distance; `gradient` carries it to the embeddings."""

    def __init__(self, labels, embeddings, references=None, reference_labels=None):
        self.raw = np.asarray(embeddings, np.float64)
        self.f = reference.unit(self.raw)
        self.labels = np.asarray(labels)
        self.references = self.f if references is None else np.concatenate([self.f, references])
        self.reference_labels = self.labels if reference_labels is None else np.concatenate([labels, reference_labels])
        self.cosines = self.f @ self.references.T
        self.squared = np.stack([np.sum((row - self.references) ** 2, axis=1) for row in self.f])
        self.slopes = np.zeros_like(self.cosines)  # of the loss by each squared distance from an anchor
        self.across = []  # (slope by the squared distance, row, row) of two references
        self.parts = []  # (weight, the batch of a prefix)

    def distances(self, kind):
        return {"euclidean": np.sqrt(self.squared), "squared": self.squared, "cosine": self.squared / 2}[kind]

    def add(self, kind, anchor, others, slope):
        """Notes slopes by distances of a kind."""
        self.slopes[anchor, others] += slope * self.by_squared(kind, self.squared[anchor, others])

    def add_across(self, row, other, slope):
        """As `add`, by the Euclidean distance of any two references."""
        self.across.append((slope / (2 * reference.distance(self.references[row], self.references[other])), row, other))

    @staticmethod
    def by_squared(kind, squared):
        return {"euclidean": 0.5 / np.sqrt(np.maximum(squared, 1e-300)), "squared": 1.0, "cosine": 0.5}[kind]

    def gradient(self):
        size = len(self.f)
        of_anchors = 2 * (self.slopes.sum(axis=1)[:, None] * self.f - self.slopes @ self.references)
        of_references = 2 * (self.slopes.sum(axis=0)[:, None] * self.references - self.slopes.T @ self.f)
        for slope, row, other in self.across:
            difference = 2 * slope * (self.references[row] - self.references[other])
            of_references[row] += difference
            of_references[other] -= difference
        total = of_anchors + of_references[:size]  # what is remembered does not move
        radial = np.sum(total * self.f, axis=1, keepdims=True) * self.f
        found = (total - radial) / np.linalg.norm(self.raw, axis=1, keepdims=True)
        for weight, part in self.parts:
            found[:, : part.raw.shape[1]] += weight * part.gradient()
        return found


def _members(batch, a):
    same = batch.reference_labels == batch.labels[a]
    others = np.flatnonzero(~same)
    same[a] = False
    return np.flatnonzero(same), others


def on_prefixes(batch, weights, loss):
    """The weighted sum of a loss on prefixes, `{length: weight}`."""
    parts = [(weight, Batch(batch.labels, batch.raw[:, :length])) for length, weight in weights.items()]
    batch.parts.extend(parts)
    return sum(weight * loss(part) for weight, part in parts)


def eet(batch, margin=0.3, equidistant=1.0, equidistributed=1.0, symmetric=0.0):
    """The weighted EET loss; adds its slopes to the batch."""
    d, size, total = np.sqrt(batch.squared), len(batch.f), 0.0
    for a in range(size):
        same, others = _members(batch, a)
        if not len(same) or not len(others):
            continue
        p, n = same[np.argmax(d[a, same])], others[np.argmin(d[a, others])]
        across = reference.distance(batch.references[p], batch.references[n])
        if d[a, p] - d[a, n] + margin > 0:
            total += (d[a, p] - d[a, n] + margin) / size
            batch.add("euclidean", a, p, 1 / size)
            batch.add("euclidean", a, n, -1 / size)
        if symmetric and d[a, p] - across + margin > 0:
            total += symmetric * (d[a, p] - across + margin) / size
            batch.add("euclidean", a, p, symmetric / size)
            batch.add_across(p, n, -symmetric / size)
        total += equidistant * abs(d[a, n] - across) / size
        sign = equidistant * np.sign(d[a, n] - across) / size
        batch.add("euclidean", a, n, sign)
        batch.add_across(p, n, -sign)
    return total + (equidistributed and _equidistributed(batch, d[:, :size], equidistributed))


def _equidistributed(batch, d, weight):
    classes = np.unique(batch.labels)
    rows = [np.flatnonzero(batch.labels == c) for c in classes]
    count = len(classes)
    if count < 2:
        return 0.0
    table = np.full([count, count], np.inf)
    pairs = {}
    for c in range(count):
        for o in range(count):
            if c != o:
                block = d[np.ix_(rows[c], rows[o])]
                place = np.unravel_index(np.argmin(block), block.shape)
                table[c, o], pairs[c, o] = block[place], (rows[c][place[0]], rows[o][place[1]])
    total = 0.0
    for (c, o), pair in pairs.items():
        share = weight / (count * (count - 1))
        total += share * np.exp(-table[c, o])
        batch.add_across(*pair, -share * np.exp(-table[c, o]))
    nearest = np.argmin(table, axis=1)
    minima = table[np.arange(count), nearest]
    for c, o in enumerate(nearest):
        total += weight * abs(minima[c] - minima[o]) / count
        sign = weight * np.sign(minima[c] - minima[o]) / count
        batch.add_across(*pairs[c, o], sign)
        batch.add_across(*pairs[o, nearest[o]], -sign)
    return total


def triplet(batch, margin=0.3, positives="hard", negatives="hard", kind="euclidean", soft=False):
    """A triplet loss; adds its slopes to the batch."""
    d, size, found = batch.distances(kind), len(batch.f), []
    for a in range(size):
        same, others = _members(batch, a)
        if positives == "partner":
            same = same[(same == a + 1) & (a % 2 == 0) & (same < size)]
        if not len(same) or not len(others):
            continue
        for p in [same[np.argmax(d[a, same])]] if positives == "hard" else same:
            chosen = others
            if negatives != "all":
                beyond = others[d[a, others] > d[a, p]]
                if negatives == "semi_hard":
                    n = beyond[np.argmin(d[a, beyond])] if len(beyond) else others[np.argmax(d[a, others])]
                else:
                    n = others[np.argmin(d[a, others])]
                chosen = np.array([n])
            difference = d[a, p] - d[a, chosen]
            values = np.logaddexp(0, difference) if soft else np.maximum(difference + margin, 0)
            slopes = 1 / (1 + np.exp(-difference)) if soft else (difference + margin > 0).astype(float)
            found.append((a, p, chosen, values, slopes))
    if negatives == "all":
        count = sum(np.count_nonzero(values) for *_, values, _ in found)
    elif positives == "all":
        count = len(found)
    else:
        count = size / 2 if positives == "partner" else size
    total = 0.0
    for a, p, chosen, values, slopes in found:
        total += values.sum() / count
        batch.add(kind, a, p, slopes.sum() / count)
        batch.add(kind, a, chosen, -slopes / count)
    return total


def deviance(batch, alpha=2.0, beta=0.5, negative_cost=25.0, weights=None):
    """Binomial deviance; `weights`: of positive and of negative pairs, `[B, references]` each."""
    size = len(batch.f)
    same = batch.labels[:, None] == batch.reference_labels[None, :]
    is_negative = ~same
    same[np.arange(size), np.arange(size)] = False
    total = 0.0
    for mask, steepness, weight in zip(
        (same, is_negative), (-alpha, alpha * negative_cost), weights or (np.ones_like(batch.cosines),) * 2
    ):
        share = mask * weight / max(np.sum(mask * weight), 1e-300)
        excess = steepness * (batch.cosines - beta)
        total += np.sum(share * np.logaddexp(0, excess))
        slope = share * steepness / (1 + np.exp(-excess))  # by the cosine, which is 1 - squared / 2
        batch.slopes -= slope / 2
    return total


def granularity(attributes, reference_attributes):
    """The cosine over what is known of both, `[B, N]`."""
    t, known = np.maximum(attributes, 0.0), attributes >= 0
    other, other_known = np.maximum(reference_attributes, 0.0), reference_attributes >= 0
    found = np.zeros([len(t), len(other)])
    for a in range(len(t)):
        both = known[a] & other_known
        lengths = np.sqrt(np.sum(t[a] ** 2 * both, axis=1) * np.sum(other**2 * both, axis=1))
        found[a] = np.sum(t[a] * other * both, axis=1) / np.where(lengths > 0, lengths, np.inf)
    return found


def _add_cosine_slopes(batch, slopes):
    """Notes slopes by the cosines, each 1 - squared distance / 2."""
    batch.slopes -= slopes / 2


def _sigmoid(x):
    return 1 / (1 + np.exp(np.clip(-x, -700, 700)))


def multi_similarity(batch, positive_scale=2.0, negative_scale=50.0, threshold=0.5, epsilon=0.1):
    """Multi-similarity; adds its slopes to the batch."""
    total, slopes, size = 0.0, np.zeros_like(batch.cosines), len(batch.f)
    for a in range(size):
        same, others = _members(batch, a)
        if not len(same) or not len(others):
            continue
        s = batch.cosines[a]
        nearest, farthest = s[others].max(), s[same].min()
        kept, pushed = same[s[same] - epsilon < nearest], others[s[others] + epsilon > farthest]
        if not len(kept) or not len(pushed):
            continue
        for chosen, steepness in ((kept, -positive_scale), (pushed, negative_scale)):
            terms = np.exp(steepness * (s[chosen] - threshold))
            total += np.log1p(terms.sum()) / abs(steepness) / size
            slopes[a, chosen] += np.sign(steepness) * terms / (1 + terms.sum()) / size
    _add_cosine_slopes(batch, slopes)
    return total


def supervised_contrastive(batch, temperature=0.1):
    """The supervised contrastive loss; adds its slopes to the batch."""
    total, slopes, size = 0.0, np.zeros_like(batch.cosines), len(batch.f)
    for a in range(size):
        same, others = _members(batch, a)
        if not len(same):
            continue
        compared = np.concatenate([same, others])
        logits = batch.cosines[a] / temperature
        terms = np.exp(logits[compared] - logits[compared].max())
        total += (np.log(terms.sum()) + logits[compared].max() - logits[same].mean()) / size
        slopes[a, compared] += terms / terms.sum() / temperature / size
        slopes[a, same] -= 1 / len(same) / temperature / size
    _add_cosine_slopes(batch, slopes)
    return total


def _over_positives(batch, among_positives, among_negatives, value):
    """Adds up a value of each positive's rank; `value`: (before, before, number of positives) -> value, two slopes."""
    total, slopes, size = 0.0, np.zeros_like(batch.cosines), len(batch.f)
    for a in range(size):
        same, others = _members(batch, a)
        for i in same:
            rest = same[same != i]
            up, up_slopes = among_positives(batch.cosines[a, rest] - batch.cosines[a, i])
            down, down_slopes = among_negatives(batch.cosines[a, others] - batch.cosines[a, i])
            found, by_up, by_down = value(up.sum(), down.sum(), len(same))
            total += found / size
            slopes[a, rest] += by_up * up_slopes / size
            slopes[a, others] += by_down * down_slopes / size
            slopes[a, i] -= (by_up * up_slopes.sum() + by_down * down_slopes.sum()) / size
    _add_cosine_slopes(batch, slopes)
    return total


def _smooth(temperature):
    def step(x):
        values = _sigmoid(x / temperature)
        return values, values * (1 - values) / temperature

    return step


def _lost_precision(up, down, count, weight=1.0):
    place = 1 + up + down
    return (
        weight * (1 - (1 + up) / place) / count,
        -weight * down / place**2 / count,
        weight * (1 + up) / place**2 / count,
    )


def smooth_ap(batch, temperature=0.01):
    """Smooth-AP; adds its slopes to the batch."""
    return _over_positives(batch, _smooth(temperature), _smooth(temperature), _lost_precision)


def roadmap(batch, calibration_weight=0.5, temperature=0.01, slope=100.0, delta=0.05, bounds=(0.9, 0.6)):
    """ROADMAP; adds its slopes to the batch."""

    def bounding(x):
        values, slopes = _smooth(temperature)(x)
        beyond = x > delta
        line = slope * (x - delta) + 0.5 + _sigmoid(delta / temperature)
        return np.where(beyond, line, values + 0.5 * (x > 0)), np.where(beyond, slope, slopes)

    def hard(x):
        return (x >= 0).astype(float), np.zeros_like(x)

    def value(up, down, count):
        return _lost_precision(up, down, count, 1 - calibration_weight)

    total = _over_positives(batch, hard, bounding, value)
    same = batch.labels[:, None] == batch.reference_labels[None, :]
    is_negative = ~same
    same[np.arange(len(batch.f)), np.arange(len(batch.f))] = False
    for mask, excess, sign in (
        (same, bounds[0] - batch.cosines, -1),
        (is_negative, batch.cosines - bounds[1], 1),
    ):
        mask = mask & (excess > 0)
        total += calibration_weight * excess[mask].sum() / max(mask.sum(), 1)
        _add_cosine_slopes(batch, sign * calibration_weight * mask / max(mask.sum(), 1))
    return total


def recall_at_k(batch, ks=(1, 2, 4, 8, 16), temperature=0.01, rank_temperature=1.0):
    """The recall surrogate; adds its slopes to the batch."""
    within = np.array(ks, np.float64)

    def value(up, down, count):
        inside = _sigmoid((within - 1 - up - down) / rank_temperature)
        most = np.minimum(count, within)
        slope = np.mean(inside * (1 - inside) / most) / rank_temperature
        return 1 / count - np.mean(inside / most), slope, slope

    return _over_positives(batch, _smooth(temperature), _smooth(temperature), value)
