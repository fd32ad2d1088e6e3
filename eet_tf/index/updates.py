"""How an index is brought in step with a catalogue: which photos are new, which have changed, and which are gone."""

from __future__ import annotations

import dataclasses

import numpy as np

from eet_tf.index.base import CatalogIndex
from eet_tf.index.columns import Column, checked_facts, to_json


@dataclasses.dataclass(frozen=True, eq=False)
class UpdatePlan:
    """What has to be done to an index so that it holds a catalogue's photos.

    Attributes:
        new: `[n]` numbers of the catalogue's photos that the index lacks: embed them, then `upsert`.
        changed: `[n]` numbers of those that the index has under another product or with other attributes: `rewrite`.
        gone: `[n]` ids of photos that the catalogue lacks: `delete`.
        num_same: how many photos are in both and alike.
    """

    new: np.ndarray
    changed: np.ndarray
    gone: list[str]
    num_same: int


def plan_update(index: CatalogIndex, skus, photos, attributes=None) -> UpdatePlan:
    """Compares an index with a catalogue, photo by photo, by their ids. Nothing is changed.

    The files are not looked at: a photo that was replaced under its old name counts as the same, and has to be embedded
    and upserted by whoever knows.

    Args:
        index: of any kind.
        skus: `[N]` strings or integers, the product on each photo of the catalogue.
        photos: `[N]` unique strings, the id of each.
        attributes: `{name: [N] values}`, every attribute of the index; None if it has none.

    Raises:
        CatalogIndexError: if a photo is there twice, or the attributes are not those of the index or of other kinds.

    Example:

    >>> from eet_tf.index import ExactIndex
    >>> index = ExactIndex.build(np.eye(3), ["mug", "cup", "jug"], photos=["a.jpg", "b.jpg", "c.jpg"])
    >>> plan = plan_update(index, skus=["mug", "bowl", "pot"], photos=["a.jpg", "b.jpg", "d.jpg"])
    >>> plan.new.tolist(), plan.changed.tolist(), plan.gone, plan.num_same
    ([2], [1], ['c.jpg'], 1)
    """
    columns = {name: Column(name, kind) for name, kind in index.attributes.items()}
    skus, photos, attributes = checked_facts(skus, photos, attributes, columns)
    wanted = {name: to_json(column, column.encode(attributes[name])) for name, column in columns.items()}
    row_of = dict(zip(photos.tolist(), range(len(photos))))
    facts_of_row = list(zip(skus.tolist(), *wanted.values()))
    same: set[int] = set()
    changed: set[int] = set()
    gone: dict[str, None] = {}  # in order, each once
    for facts in index.facts():
        for photo, *kept in zip(facts.photos, facts.skus, *facts.attributes.values()):
            if (row := row_of.get(photo)) is None:
                gone[photo] = None
            else:
                (same if facts_of_row[row] == tuple(kept) else changed).add(row)
    new = [row for row in range(len(photos)) if row not in same and row not in changed]
    return UpdatePlan(np.asarray(new, np.intp), np.asarray(sorted(changed), np.intp), list(gone), len(same - changed))
