"""What a server is told to serve: `models.config`, how it is read, and changed while servers read it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from google.protobuf import text_format

from eet_tf import files
from eet_tf.serving.servable import SavedModelError

try:
    from tensorflow_serving.config import model_server_config_pb2
except ImportError as error:
    raise ImportError("A bundle needs tensorflow-serving-api: pip install 'eet-tf[serving]'.") from error

MODELS_CONFIG = "models.config"
_PLACE = "/models"  # where the server of docker-compose.yml sees the folder of models
_FIRST_LINE = "# Written by export/publish.py, which keeps all but comments; export/main.py leaves it alone.\n"


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
            why = str(error).strip().rstrip(".") if isinstance(error, text_format.ParseError) else "it is not UTF-8"
            raise SavedModelError(f"{path!r} is no configuration of a model server: {why}. Mend it.") from error


def held_versions(output_dir: str, name: str) -> set[int]:
    """The versions of a model that `models.config` names: by policy or by label, a server may be asked for them.

    Raises:
        SavedModelError: if a server could not read it.
    """
    models = [model for model in read_models(output_dir).model_config_list.config if model.name == name]
    policies = {version for model in models for version in model.model_version_policy.specific.versions}
    return policies | {version for model in models for version in model.version_labels.values()}


def why_not_served(output_dir: str, name: str, version: int) -> str:
    """Why a server loads no such version by itself, by what `models.config` says; `""` if it does.

    Raises:
        SavedModelError: if a server could not read it.
    """
    models = [model for model in read_models(output_dir).model_config_list.config if model.name == name]
    if not models:
        return f"models.config was changed by hand or by `eet publish`, and does not name {name!r}"
    served = served_versions(models[0], output_dir)
    return "" if version in served else f"models.config names other versions of {name!r}"


def change_model(output_dir: str, name: str, change: Callable[[model_server_config_pb2.ModelConfig], None]) -> bool:
    """Changes a model's entry in `models.config`, at once or not at all; adds the entry if there is none.

    All other entries stay; comments do not: what a person wrote is kept as `models.config.before`.

    Args:
        output_dir: the folder of models.
        name: of the model.
        change: is given the entry, and changes it.

    Returns:
        Whether anything has changed. If nothing has, the file stays as it is.

    Raises:
        SavedModelError: if a server could not read the file, or could not serve what it says.
    """
    with open(os.path.join(output_dir, f".{MODELS_CONFIG}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may change another entry
        config = read_models(output_dir)
        before = config.SerializeToString(deterministic=True)
        change(_entry(config, output_dir, name))
        _check_folders(config.model_config_list.config, output_dir)
        if config.SerializeToString(deterministic=True) == before:
            return False
        path = os.path.join(output_dir, MODELS_CONFIG)
        _keep_a_copy(path)
        with files.replaced(path) as aside, open(aside, "w", encoding="utf-8") as file:
            file.write(_FIRST_LINE + text_format.MessageToString(config, as_utf8=True))
        files.flush(output_dir)
        return True


def _keep_a_copy(path: str) -> None:
    """Copies a file that was not written here to `PATH.before`, since rewriting it loses its comments."""
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        content = file.read()
    if not content.startswith(_FIRST_LINE.encode()):
        with files.replaced(f"{path}.before") as aside, open(aside, "wb") as copy:
            copy.write(content)


def served_versions(model: model_server_config_pb2.ModelConfig, output_dir: str) -> set[int]:
    """The versions that an entry asks for as it is now: those that it names, else the newest, or all."""
    policy = model.model_version_policy
    if policy.HasField("specific"):
        return set(policy.specific.versions)
    there = versions(folder_of(model, output_dir))
    return set(there if policy.HasField("all") else there[-max(policy.latest.num_versions, 1) :])


def folder_of(model: model_server_config_pb2.ModelConfig, output_dir: str) -> str:
    """Where the folder of an entry's versions is on this machine: the server sees `output_dir` as `/models`."""
    path = os.path.normpath(model.base_path)
    is_ours = path.startswith(_PLACE + os.sep) and not os.path.isdir(path)
    return os.path.join(output_dir, os.path.relpath(path, _PLACE)) if is_ours else path


def _entry(config, output_dir: str, name: str) -> model_server_config_pb2.ModelConfig:
    path = os.path.join(output_dir, MODELS_CONFIG)
    if config.WhichOneof("config") == "custom_model_config":
        raise SavedModelError(f"{path!r} must be a list of models. Received: `custom_model_config`. Change it by hand.")
    entries = [model for model in config.model_config_list.config if model.name == name]
    if len(entries) > 1:
        raise SavedModelError(f"{path!r} must name each model once. Received: {name!r} {len(entries)} times. Mend it.")
    if entries:
        return entries[0]
    return config.model_config_list.config.add(name=name, base_path=f"{_PLACE}/{name}", model_platform="tensorflow")


def _check_folders(models, output_dir: str) -> None:
    """A model without its folder stops the new versions of all models."""
    for model in models:
        folder = folder_of(model, output_dir)
        # another machine's folder cannot be seen here
        if os.path.isdir(os.path.dirname(folder)) and not (os.path.isdir(folder) and versions(folder)):
            raise SavedModelError(
                f"every model in models.config must have a folder with a version. Received: {model.name!r}, whose "
                f"folder would be {folder!r}. Put it there or delete the entry: as it is, no model gets new versions."
            )
