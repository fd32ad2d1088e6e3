"""The interface that every kind of index shares."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator

from eet_tf.index.checks import Facts, KeptPhotos, Neighbors


class CatalogIndex(abc.ABC):
    """Finds the catalogue photos nearest to a query by cosine similarity. Made by a kind's `build`, or by `load_index`.

    A row is a photo: its unique id (`photo`, by default its path), the product that it shows (`sku`), and the values of
    the index's attributes. A product may have many rows.
    """

    kind = ""  # the word in manifest.json

    @classmethod
    @abc.abstractmethod
    def build(cls, embeddings, skus, photos=None, attributes=None, fingerprint=None, metadata=None) -> CatalogIndex:
        """Builds an index over a catalogue, one row per photo; the kind's own docstring lists the arguments."""

    @classmethod
    @abc.abstractmethod
    def check_catalog(cls, skus, photos=None, attributes=None) -> None:
        """Refuses what `build` would refuse of these, before the long work of embedding.

        Raises:
            CatalogIndexError: as `build`.
        """

    @abc.abstractmethod
    def search(
        self,
        queries,
        k: int = 10,
        where: dict | None = None,
        group_by_sku: bool = False,
        fingerprint=None,
        with_attributes: bool = False,
    ) -> Neighbors:
        """Finds the `k` nearest photos of each query, best first.

        There are always `k` if the index holds as many that are allowed; a filter never costs neighbours.

        Args:
            queries: `[num_queries, dim]` or `[dim]` unit vectors, floating point.
            k: neighbours per query, at least 1.
            where: `{attribute: condition}`, all of which a photo must meet. A condition is one of

                * a value, e.g. `{"category": "shoes", "in_stock": True}`; a photo of several strings must have it;
                * a list of conditions, of which one must be met, e.g. `{"colour": ["red", "blue"]}`;
                * comparisons, all of which must be met, e.g. `{"price": {">=": 10, "<": 50}, "brand": {"!=": "x"}}`:
                  `">"`, `">="`, `"<"`, `"<="` with a number (`"min"` is `">="`, `"max"` is `"<="`); `"in"` with a list
                  of values, of which the photo must have one; `"!="` with a value or a list, of which it may have
                  none; `"contains"` with a text or a list, all of which must be part of the photo's string, in the same
                  case, or be among its several strings.

                A missing number or no strings meet `"!="` alone. A missing string is `""`: it equals `""`, differs from
                every other value, and contains nothing.
            group_by_sku: whether the neighbours must be `k` different products, each by its best photo.
            fingerprint: of the embedder that embedded the queries; compared with the index's if both are known.
            with_attributes: whether the answer holds the attributes of the photos found, too.

        Returns:
            `Neighbors` of `[num_queries, k]`; a single query gives one row. There are fewer columns only if fewer
            photos (with `group_by_sku`: products) meet `where`.

        Raises:
            CatalogIndexError: if a query is not a finite unit vector of the index's dimension, `k` is not positive,
                `where` does not fit the attributes, or the queries were embedded by another model.
        """

    @abc.abstractmethod
    def count(self, where: dict | None = None) -> int:
        """Counts the photos that meet conditions, to tell a condition that nothing meets from a search that finds none.

        Args:
            where: as for `search`; None counts all photos.

        Raises:
            CatalogIndexError: if `where` does not fit the attributes.
        """

    def why_none(self, where: dict) -> str | None:
        """Says why a search with these conditions finds nothing, for whoever gave them.

        Returns:
            How many photos there are, and how many meet each condition alone; None if some photo meets all of them.

        Raises:
            CatalogIndexError: as `count`.

        Example:

        >>> from eet_tf.index import ExactIndex
        >>> attributes = {"colour": ["red", "blue"], "price": [5, 90]}
        >>> index = ExactIndex.build(np.eye(2), ["mug", "cup"], attributes=attributes)
        >>> print(index.why_none({"colour": "red", "price": {">": 50}}))
        No photo meets all conditions. Of the 2 photos in the index, 1 meets that on 'colour', 1 meets that on 'price'.
        """
        if self.count(where):
            return None
        counts = {name: self.count({name: condition}) for name, condition in where.items()}
        alone = ", ".join(f"{count:,} meet{'s' * (count == 1)} that on '{name}'" for name, count in counts.items())
        return f"No photo meets all conditions. Of the {self.size:,} photos in the index, {alone}."

    @abc.abstractmethod
    def lookup(self, photos) -> KeptPhotos:
        """Reads what the index keeps of photos; `lookup_photos` documents it."""

    @abc.abstractmethod
    def facts(self) -> Iterator[Facts]:
        """Yields what the index keeps of all its photos but their vectors, so many at a time that they fit in memory.

        An index in this process yields one `Facts` in the order of `photos`; Milvus gives them by their photos' ids.
        """

    @abc.abstractmethod
    def upsert(self, embeddings, skus, photos, attributes=None, fingerprint=None) -> None:
        """Adds photos; one that is already there is replaced. All of them, or none if any is refused.

        When it returns, an index that has a folder has them on the disk.

        Args:
            embeddings: `[N, dim]` unit vectors.
            skus: `[N]` the product on each photo.
            photos: `[N]` unique strings, the id of each.
            attributes: `{name: [N] values}`, every attribute of the index; None if it has none.
            fingerprint: of the embedder; compared with the index's if both are known.

        Raises:
            CatalogIndexError: as `build`; or if the index was loaded read-only, or another process keeps it.
        """

    @abc.abstractmethod
    def rewrite(self, skus, photos, attributes=None) -> None:
        """Gives photos other products and attributes; their vectors stay. All of them, or none if any is refused.

        Args:
            skus: `[N]` the product on each photo.
            photos: `[N]` unique strings, ids of photos in the index.
            attributes: `{name: [N] values}`, every attribute of the index; None if it has none.

        Raises:
            CatalogIndexError: as `upsert`; or if a photo is not in the index.
        """

    @abc.abstractmethod
    def delete(self, photos=None, skus=None) -> int:
        """Deletes photos by their ids, or all photos of products. All of them, or none if any is unknown.

        Args:
            photos: a string or a list of them; exactly one of the two is given.
            skus: a string or a list of them.

        Returns:
            The number of photos deleted.

        Raises:
            CatalogIndexError: if a photo or a product is not there; or as `upsert`.
        """

    @abc.abstractmethod
    def save(self, folder: str | os.PathLike) -> None:
        """Saves the index as `folder`; a crash at any moment leaves what was there before, or the whole new index.

        The first folder that an index is saved to becomes its own: from then on `upsert` and `delete` are written
        there too. To save elsewhere makes a copy.

        Args:
            folder: absent, empty, or a saved index, which is replaced. `load_index` reads it, also after it was moved.

        Raises:
            CatalogIndexError: if `folder` holds anything else. Nothing of it is touched.
        """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of photos."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Length of an embedding."""

    @property
    @abc.abstractmethod
    def is_exact(self) -> bool:
        """Whether every answer is the true one; if not, report the recall beside any number measured through it."""

    @property
    @abc.abstractmethod
    def attributes(self) -> dict[str, str]:
        """What `where` takes, and of what kind each is: `"string"`, `"strings"` (several), `"number"` or `"bool"`."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str | None:
        """The fingerprint of the embedder that embedded the rows, if it was given."""

    @property
    @abc.abstractmethod
    def metadata(self) -> dict:
        """A copy of the dict that was given to `build`, as JSON reads it."""

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, dim={self.dim}, fingerprint={self.fingerprint!r})"
