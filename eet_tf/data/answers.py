"""Whether figures can be measured on a catalogue: some photo must have another one of its product to be found."""

from __future__ import annotations

import numpy as np

from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.wording import counted


def has_answers(catalog: Catalog) -> bool:
    """Whether a search for a photo of the catalogue can find another photo of its product.

    Photos are searched as `evaluation.rank_catalog` does: each among all others, or with roles queries in the gallery.

    Example:

    >>> has_answers(Catalog(["a.jpg", "b.jpg"], ["mug", "cup"])), has_answers(Catalog(["a.jpg", "b.jpg"], ["mug"] * 2))
    (False, True)
    """
    roles = np.full(len(catalog), "") if catalog.roles is None else catalog.roles
    if not np.isin(["query", "gallery"], roles).all():
        return bool((np.bincount(catalog.labels) >= 2).any())
    is_query = roles == "query"
    return bool(np.isin(catalog.labels[is_query], catalog.labels[~is_query]).any())


def check_answers(catalog: Catalog, what: str) -> Catalog:
    """Returns the catalogue, or refuses one that no figure can be measured on.

    Args:
        catalog: the photos that figures are to come from.
        what: which they are, for the message, such as `"the split 'test'"`.

    Raises:
        CatalogError: if no photo has another of its product to find, or beside queries and a gallery some photos have
            no role.
    """
    roles = set() if catalog.roles is None else set(catalog.roles.tolist())
    if roles == {"query", "gallery", ""}:
        raise CatalogError(
            f"{catalog.source}: {what} must have the role 'query' or 'gallery' for all photos or for none. "
            "Received: some with neither. Measure one split at a time."
        )
    if not has_answers(catalog):
        raise CatalogError(
            f"{catalog.where(0)}: {what} must have a product with two photos. Received: "
            f"{counted(len(catalog), 'photo')}, none with another of its product that a search could "
            "find. Add photos, or leave the split out of the list."
        )
    return catalog
