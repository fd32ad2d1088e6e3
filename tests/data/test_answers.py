"""Whether a search can find anything, compared with a loop over all pairs of photos."""

import numpy as np
import pytest

from eet_tf.data import Catalog, CatalogError
from eet_tf.data.answers import check_answers, has_answers
from eet_tf.evaluation.callback import rank_catalog


def can_be_answered(skus, roles):
    """Some query has another photo of its product among those that are searched."""
    has_both = {"query", "gallery"} <= set(roles)
    queries = [row for row, role in enumerate(roles) if role == "query" or not has_both]
    gallery = [row for row, role in enumerate(roles) if role != "query" or not has_both]
    return any(row != other and skus[row] == skus[other] for row in queries for other in gallery)


@pytest.mark.parametrize("with_roles", [False, True])
def test_it_is_what_evaluation_can_answer(with_roles):
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        count = int(rng.integers(2, 6))
        skus = rng.choice(list("abcde"), count)
        roles = rng.choice(["query", "gallery"], count) if with_roles else np.full(count, "")
        catalog = Catalog([f"{row}.jpg" for row in range(count)], skus, roles=roles if with_roles else None)
        expected = can_be_answered(skus.tolist(), roles.tolist())
        assert has_answers(catalog) == expected
        seen.add(expected)
        if expected:
            vectors = np.eye(count, dtype=np.float32)
            assert rank_catalog(vectors, catalog.labels, catalog.roles).summary([1])["num_queries"] > 0
            assert check_answers(catalog, "the split 'test'") is catalog
        else:
            with pytest.raises(
                CatalogError, match=rf"the split 'test' must have a product .* Received: {count} photos"
            ):
                check_answers(catalog, "the split 'test'")
    assert seen == {True, False}


def test_photos_without_a_role_beside_others_are_refused():
    catalog = Catalog(["a.jpg", "b.jpg", "c.jpg"], ["mug"] * 3, roles=["query", "gallery", ""])
    with pytest.raises(CatalogError, match="must have the role 'query' or 'gallery' for all photos or for none"):
        check_answers(catalog, "the split 'all'")
