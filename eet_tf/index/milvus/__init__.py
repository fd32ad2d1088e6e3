"""The index whose rows Milvus keeps. Each file decides one thing:

* `index.py`: what a `MilvusIndex` accepts and answers, and which update is safe when.
* `place.py`: where the rows are, in a folder or in a cluster, and what the folder remembers of them.
* `collection.py`: how rows are written, read and searched in one collection.
* `grouping.py`: how the nearest products are found, each by its best photo.
* `records.py`: which rows Milvus takes, and how its rows become answers.
* `filters.py`: how a condition of `where` is written in Milvus's language.
* `server.py`: how a server is asked, how long it may take, and what its refusals say.
* `local.py`: how milvus-lite runs in this process.
* `verification.py`: whether the rows are whole and are found.
"""

from __future__ import annotations

from eet_tf.index.milvus.index import MilvusIndex

__all__ = ["MilvusIndex"]
