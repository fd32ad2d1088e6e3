"""The fast oracle says what the plain loops say: values, and gradients by central differences."""

import numpy as np
import pytest

from tests import reference, reference_gradients, reference_pairs, reference_sgml

LABELS = np.array([3, 40, 3, 12, 7, 12, 40, 3, 12, 0, 3])
EMBEDDINGS = np.random.default_rng(5).normal(size=[11, 5])


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.7, 1.9, 0.0)])
def test_eet(weights):
    names = ("equidistant", "equidistributed", "symmetric")
    arguments = dict(zip(names, weights))

    def value(x):
        terms = reference.eet(LABELS, x)
        classes = terms["max_min"] + terms["equal_minima"]
        return (
            terms["margin"] + weights[0] * terms["equidistant"] + weights[1] * classes + weights[2] * terms["symmetric"]
        )

    check(lambda batch: reference_gradients.eet(batch, **arguments), value)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", reference.DISTANCES)
@pytest.mark.parametrize("negatives", ["hard", "semi_hard", "all"])
@pytest.mark.parametrize("positives", ["hard", "partner", "all"])
def test_triplet(positives, negatives, kind, soft):
    settings = {"margin": 0.3, "positives": positives, "negatives": negatives, "kind": kind, "soft": soft}
    check(
        lambda batch: reference_gradients.triplet(batch, **settings),
        lambda x: reference.triplet(LABELS, x, **settings),
    )


def check(fast, plain):
    batch = reference_gradients.Batch(LABELS, EMBEDDINGS)
    assert fast(batch) == pytest.approx(plain(EMBEDDINGS), rel=1e-9)
    np.testing.assert_allclose(batch.gradient(), reference.numeric_gradient(plain, EMBEDDINGS), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("weighting", [None, "informativeness", "preserving"])
def test_deviance(weighting):
    attributes = np.random.default_rng(6).integers(-1, 2, size=[11, 5])
    g = reference_gradients.granularity(attributes, attributes)
    weights = {None: None, "informativeness": (2 - g, 1 + g), "preserving": (np.ones_like(g), 1 - 0.5 * g)}[weighting]
    slow = reference_sgml.soft_weights(attributes, weighting) if weighting else reference_sgml.equal_weights
    check(
        lambda batch: reference_gradients.deviance(batch, negative_cost=2.0, weights=weights),
        lambda x: reference_sgml.total(LABELS, x, negative_cost=2.0, weights=slow),
    )


@pytest.mark.parametrize(
    "settings", [{}, {"positive_scale": 5.0, "negative_scale": 8.0, "threshold": 0.2, "epsilon": 0.4}]
)
def test_multi_similarity(settings):
    check(
        lambda batch: reference_gradients.multi_similarity(batch, **settings),
        lambda x: reference_pairs.multi_similarity(LABELS, x, **settings).sum(axis=1).mean(),
    )


@pytest.mark.parametrize("name", ["supervised_contrastive", "smooth_ap", "recall_at_k"])
@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_losses_with_a_temperature(name, temperature):
    check(
        lambda batch: getattr(reference_gradients, name)(batch, temperature=temperature),
        lambda x: getattr(reference_pairs, name)(LABELS, x, temperature=temperature).mean(),
    )


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.2, "slope": 3.0, "delta": 0.3, "calibration_weight": 0.2}])
def test_roadmap(settings):
    check(
        lambda batch: reference_gradients.roadmap(batch, **settings),
        lambda x: reference_pairs.roadmap(LABELS, x, **settings).sum(axis=1).mean(),
    )
