"""The oracles of SGML and of the deviance it is built on: loops over pairs of photos, in float64."""

import numpy as np

from tests.reference import unit


def softplus(x):
    """log(1 + exp(x))."""
    return np.logaddexp(0.0, x)


def granularity(t, u):
    """Cosine of two photos' attributes over those known of both; 0 where nothing is left of one."""
    product = t_squared = u_squared = 0.0
    for a, b in zip(t, u):
        if a >= 0 and b >= 0:
            product += a * b
            t_squared += a * a
            u_squared += b * b
    return product / np.sqrt(t_squared * u_squared) if t_squared > 0 and u_squared > 0 else 0.0


def equal_weights(i, j):
    """Of plain binomial deviance: (weight as a positive pair, weight as a negative pair)."""
    return 1.0, 1.0


def soft_weights(attributes, weighting, preserved_share=0.5):
    """Of soft binomial deviance, a function of two rows: (weight as a positive pair, weight as a negative pair)."""

    def weights(i, j):
        g = granularity(attributes[i], attributes[j])
        return (2 - g, 1 + g) if weighting == "informativeness" else (1.0, 1 - preserved_share * g)

    return weights


def deviance(labels, embeddings, alpha=2.0, beta=0.5, negative_cost=25.0, weights=equal_weights, normalize=True):
    """What each anchor adds to the two means of binomial deviance: {term: `[B]`, whose sum is the term}."""
    f = np.asarray(embeddings, np.float64)
    f = unit(f) if normalize else f
    terms = {"positive_pairs": np.zeros(len(f)), "negative_pairs": np.zeros(len(f))}
    totals = {"positive_pairs": 0.0, "negative_pairs": 0.0}
    for i in range(len(f)):
        for j in range(len(f)):
            if i == j:
                continue
            s = float(np.dot(f[i], f[j]))
            if labels[i] == labels[j]:
                term, weight, value = "positive_pairs", weights(i, j)[0], softplus(-alpha * (s - beta))
            else:
                term, weight, value = "negative_pairs", weights(i, j)[1], softplus(alpha * negative_cost * (s - beta))
            terms[term][i] += weight * value
            totals[term] += weight
    return {term: values / totals[term] if totals[term] else values for term, values in terms.items()}


def total(*args, **kwargs):
    """The loss itself, of the arguments of `deviance`."""
    return sum(values.sum() for values in deviance(*args, **kwargs).values())


def cross_entropy(attributes, probabilities):
    """For each photo the mean binary cross-entropy over its known attributes; 0 where none is known."""
    losses = []
    for truths, guesses in zip(attributes, probabilities):
        known = [-np.log(p if t == 1 else 1 - p) for t, p in zip(truths, guesses) if t >= 0]
        losses.append(np.mean(known) if known else 0.0)
    return np.array(losses)
