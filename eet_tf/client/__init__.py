"""The public names of the client room: photos embedded and searched by a server, over gRPC or REST."""

from eet_tf.client.embedding_client import EmbeddingClient
from eet_tf.client.retries import ServingError

__all__ = ["EmbeddingClient", "ServingError"]
