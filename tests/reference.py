"""The oracles: losses and metrics as plain NumPy loops, too simple to be wrong, sharing no code with their subject."""

import numpy as np


def unit(x):
    """Rows brought to unit length."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def distance(u, v):
    """Euclidean distance of two vectors."""
    return float(np.sqrt(np.sum((u - v) ** 2)))


def hardest(labels, f, a):
    """(farthest positive, nearest negative) of anchor a; None where there is none."""
    p, n = None, None
    for j in range(len(f)):
        if j != a and labels[j] == labels[a] and (p is None or distance(f[a], f[j]) > distance(f[a], f[p])):
            p = j
        if labels[j] != labels[a] and (n is None or distance(f[a], f[j]) < distance(f[a], f[n])):
            n = j
    return p, n


def class_distance(labels, f, c, other):
    """Smallest distance between a sample of class c and one of class `other`."""
    return min(
        distance(f[u], f[v]) for u in range(len(f)) for v in range(len(f)) if labels[u] == c and labels[v] == other
    )


DISTANCES = {
    "euclidean": distance,
    "squared": lambda u, v: float(np.sum((u - v) ** 2)),
    "cosine": lambda u, v: 1.0 - float(np.dot(u, v)),
}


def triplets(labels, f, measure, positives, negatives):
    """All (a, p, n) that a triplet loss with these settings is about."""
    found = []
    for a in range(len(f)):
        same = [j for j in range(len(f)) if j != a and labels[j] == labels[a]]
        others = [j for j in range(len(f)) if labels[j] != labels[a]]
        if positives == "partner":
            same = [j for j in same if a % 2 == 0 and j == a + 1]
        if not same or not others:
            continue
        chosen = [max(same, key=lambda j: measure(f[a], f[j]))] if positives == "hard" else same
        for p in chosen:
            beyond = [n for n in others if measure(f[a], f[n]) > measure(f[a], f[p])]
            if negatives == "all":
                found += [(a, p, n) for n in others]
            elif negatives == "hard" or beyond:
                found.append(
                    (a, p, min(beyond if negatives == "semi_hard" else others, key=lambda n: measure(f[a], f[n])))
                )
            else:
                found.append((a, p, max(others, key=lambda n: measure(f[a], f[n]))))
    return found


def triplet(labels, embeddings, margin, positives, negatives, kind, soft):
    """The triplet loss: mean over anchors (queries), over positive pairs, or over the triplets above 0."""
    f = unit(np.asarray(embeddings, np.float64))
    measure = DISTANCES[kind]
    values = []
    for a, p, n in triplets(labels, f, measure, positives, negatives):
        difference = measure(f[a], f[p]) - measure(f[a], f[n])
        values.append(np.log1p(np.exp(difference)) if soft else max(difference + margin, 0.0))
    if negatives == "all":
        return sum(values) / max(sum(value > 0 for value in values), 1)
    if positives == "all":
        return sum(values) / max(len(values), 1)
    return sum(values) / (len(f) / 2 if positives == "partner" else len(f))


def eet(labels, embeddings, margin=0.3, normalize=True):
    """The unweighted means of EET: margin, symmetric, equidistant, max_min, equal_minima."""
    f = np.asarray(embeddings, np.float64)
    f = unit(f) if normalize else f
    total = {"margin": 0.0, "symmetric": 0.0, "equidistant": 0.0}
    for a in range(len(f)):
        p, n = hardest(labels, f, a)
        if p is None or n is None:
            continue
        total["margin"] += max(distance(f[a], f[p]) - distance(f[a], f[n]) + margin, 0.0)
        total["symmetric"] += max(distance(f[a], f[p]) - distance(f[p], f[n]) + margin, 0.0)
        total["equidistant"] += abs(distance(f[a], f[n]) - distance(f[p], f[n]))
    means = {name: value / len(f) for name, value in total.items()}
    means["max_min"], means["equal_minima"] = _equidistributed(labels, f)
    return means


def _equidistributed(labels, f):
    classes = sorted(set(labels))
    if len(classes) < 2:
        return 0.0, 0.0
    table = {(c, o): class_distance(labels, f, c, o) for c in classes for o in classes if c != o}
    max_min = sum(np.exp(-d) for d in table.values()) / len(table)
    nearest = {c: min((o for o in classes if o != c), key=lambda o: table[c, o]) for c in classes}
    minima = {c: table[c, nearest[c]] for c in classes}
    return max_min, sum(abs(minima[c] - minima[nearest[c]]) for c in classes) / len(classes)


def numeric_gradient(function, x, step=1e-5):
    """Central differences of a scalar function, or of several scalars at once: `x.shape` and theirs behind it."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros(x.shape + np.shape(function(x)))
    for index in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def retrieval(embeddings, labels, k, gallery=None, gallery_labels=None):
    """Recall@k, mAP@R and R-precision by sorting, ties against us; (None where no query has a right answer)."""
    alone = gallery is None
    gallery, gallery_labels = (embeddings, labels) if alone else (gallery, gallery_labels)
    hits, average_precisions, r_precisions = [], [], []
    for q in range(len(embeddings)):
        rows = [j for j in range(len(gallery)) if not (alone and j == q)]
        scores = {j: float(np.dot(embeddings[q], gallery[j])) for j in rows}
        right = {j: gallery_labels[j] == labels[q] for j in rows}
        num_right = sum(right.values())
        if num_right == 0:
            continue
        ranked = sorted(rows, key=lambda j: (-scores[j], right[j]))
        hits.append(any(right[j] for j in ranked[:k]))
        found, precision = 0, 0.0
        for position, j in enumerate(ranked[:num_right], start=1):
            found += right[j]
            precision += right[j] * found / position
        average_precisions.append(precision / num_right)
        r_precisions.append(found / num_right)
    return np.mean(hits), np.mean(average_precisions), np.mean(r_precisions), len(hits)


def places_of_right(query, label, gallery, gallery_labels, tie=1e-9):
    """Places, from 1, of the right answers to one query: scores in float64, and what ties with one stands before it."""
    query, gallery = unit(np.asarray(query, np.float64)), unit(np.asarray(gallery, np.float64))
    scores = [float(np.dot(query, row)) for row in gallery]
    right = sorted([score for score, other in zip(scores, gallery_labels) if other == label], reverse=True)
    wrong = [score for score, other in zip(scores, gallery_labels) if other != label]
    return [nth + sum(score >= own - tie for score in wrong) for nth, own in enumerate(right, start=1)]


def place_of_product(query, label, gallery, gallery_labels, tie=1e-9):
    """Place, from 1, of the query's product where each product stands at its best photo; 0 where it has none."""
    query, gallery = unit(np.asarray(query, np.float64)), unit(np.asarray(gallery, np.float64))
    best = {}
    for row, product in zip(gallery, gallery_labels):
        best[product] = max(best.get(product, -np.inf), float(np.dot(query, row)))
    own = best.pop(label, None)
    return 0 if own is None else 1 + sum(score >= own - tie for score in best.values())


def figures_of_places(places):
    """First place, average precision @R and R-precision; (0, NaN, NaN) where nothing is right."""
    if not places:
        return 0, np.nan, np.nan
    within = [place for place in places if place <= len(places)]
    precisions = [found / place for found, place in enumerate(within, start=1)]
    return places[0], sum(precisions) / len(places), len(within) / len(places)


def nearest(query, gallery, skip=None):
    """All rows of the gallery by falling dot product, but for one."""
    rows = [row for row in range(len(gallery)) if row != skip]
    return sorted(rows, key=lambda row: -float(np.dot(query, gallery[row])))


def expanded_query(query, gallery, num_neighbors, alpha, skip=None):
    """alpha-QE of one unit vector."""
    total = np.array(query)
    for row in nearest(query, gallery, skip)[:num_neighbors]:
        total = total + max(float(np.dot(query, gallery[row])), 0.0) ** alpha * gallery[row]
    return unit(total)


def reranked(photos, queries, gallery, num_candidates, k1, k2, original_weight):
    """k-reciprocal re-ranking of unit vectors: `[(row of photos, distance), ...]` of each query, best first."""
    order = [[i, *nearest(photos[i], photos, i)] for i in range(len(photos))]

    def mutual(i, k):
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    shares = []
    for i in range(len(photos)):
        members = set(mutual(i, k1))
        for j in mutual(i, k1):
            other = mutual(j, round(k1 / 2))
            if len(other & mutual(i, k1)) > 2 / 3 * len(other):
                members |= other
        weights = {j: np.exp(-(1 - float(np.dot(photos[i], photos[j])))) for j in members}
        shares.append({j: weight / sum(weights.values()) for j, weight in weights.items()})
    averaged = []
    for i in range(len(photos)):
        near = order[i][:k2]
        averaged.append({j: sum(shares[n].get(j, 0.0) for n in near) / len(near) for j in range(len(photos))})
    results = []
    for q in queries:
        candidates = [j for j in order[q] if j in gallery and j != q][:num_candidates]
        distances = []
        for j in candidates:
            common = sum(min(averaged[q][other], averaged[j][other]) for other in range(len(photos)))
            jaccard = 1 - common / (2 - common)
            cosine = float(np.dot(photos[q], photos[j]))
            distances.append((j, original_weight * (1 - cosine) + (1 - original_weight) * jaccard))
        results.append(sorted(distances, key=lambda pair: pair[1]))
    return results
