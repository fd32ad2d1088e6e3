"""What a server is told to serve: `models.config`, read and asked which versions of a model it names."""

from __future__ import annotations

import os

from google.protobuf import text_format

from eet_tf.serving.servable import SavedModelError

try:
    from tensorflow_serving.config import model_server_config_pb2
except ImportError as error:
    raise ImportError("A bundle needs tensorflow-serving-api: pip install 'eet-tf[serving]'.") from error

MODELS_CONFIG = "models.config"


def versions(base: str) -> list[int]:
    """The numbers of a model's versions, ascending."""
    return sorted(int(entry.name) for entry in os.scandir(base) if entry.name.isdecimal() and entry.is_dir())


def read_models(output_dir: str) -> model_server_config_pb2.ModelServerConfig:
    """Reads `models.config` in a folder of models; one without models if there is no such file.

    Raises:
        SavedModelError: if a server could not read it.
    """
    path = os.path.join(output_dir, MODELS_CONFIG)
    if not os.path.exists(path):
        return model_server_config_pb2.ModelServerConfig()
    with open(path, encoding="utf-8") as file:
        try:
            return text_format.Parse(file.read(), model_server_config_pb2.ModelServerConfig())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise SavedModelError(f"{path!r} is no configuration of a model server: {error}. Mend it.") from error


def held_versions(output_dir: str, name: str) -> set[int]:
    """The versions of a model that `models.config` names: by policy or by label, a server may be asked for them.

    Raises:
        SavedModelError: if a server could not read it.
    """
    models = [model for model in read_models(output_dir).model_config_list.config if model.name == name]
    policies = {version for model in models for version in model.model_version_policy.specific.versions}
    return policies | {version for model in models for version in model.version_labels.values()}
