"""The public names of the serving room: the SavedModel, encoded photos in and embeddings out."""

from eet_tf.serving.fingerprint import embedder_fingerprint
from eet_tf.serving.saved_model import export_embedder, newest_version
from eet_tf.serving.servable import SavedModelError
from eet_tf.serving.served import ServedEmbedder

__all__ = ["SavedModelError", "ServedEmbedder", "embedder_fingerprint", "export_embedder", "newest_version"]
