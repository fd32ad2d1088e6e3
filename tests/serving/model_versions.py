"""Which versions of which models TensorFlow Serving has loaded, and when it takes up others."""

import concurrent.futures
import os
import threading

import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.served_models import Refused, SavedModel

START, LOADING, AVAILABLE, END = (
    getattr(get_model_status_pb2.ModelVersionStatus, name) for name in ("START", "LOADING", "AVAILABLE", "END")
)


class Exited(Exception):
    """The server did not start; its last words."""


class Versions:
    """Polls the folders of models and loads what is to be served, as the server's manager does.

    A model is given by its base path, or as {version: model}, where an exception stands for a version that cannot be
    loaded. One that cannot be loaded is tried again. With `num_load_threads=0` nothing else is loaded meanwhile.

    Args:
        models: {name: base path or {version: model}}; or the path of a `models.config`, which is read again.
        make: of a model, makes the `LoadedModel`.
        poll_seconds: between two looks at the folders and the file.
        num_load_threads: as the server's flag.
        max_num_load_retries: as the server's flag.
        load_retry_seconds: between two tries.
        allow_labels: the server's --allow_version_labels_for_unavailable_models.

    Attributes:
        states: {(name, version): (state, why it is not available)}.
        refused_config: what is wrong with the last `models.config`, or None.
    """

    def __init__(
        self, models, make, poll_seconds, num_load_threads, max_num_load_retries, load_retry_seconds, allow_labels
    ):
        self._given, self._make, self._poll_seconds = models, make, poll_seconds
        self._retries, self._retry_seconds = max_num_load_retries, load_retry_seconds
        self._allow_labels, self._labels, self._config_text = allow_labels, {}, None
        self.refused_config = None
        self.states = {}
        self._loaded, self._lock, self._stop = {}, threading.RLock(), threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(num_load_threads) if num_load_threads else None
        self._sources = {}  # name -> (source, policy)

    def start(self):
        """Loads what is there, and from then on what comes.

        Raises:
            Exited: if a model cannot be loaded, or the configuration is refused.
        """
        try:
            self._read_config()
        except ValueError as error:
            raise Exited(str(error)) from error
        futures = self._poll()
        concurrent.futures.wait(futures)
        broken = [f"{{name: {name} version: {version}}}" for (name, version), state in self.states.items() if state[1]]
        if broken:
            raise Exited(f"{len(broken)} servable(s) did not become available: {', '.join(broken)}")
        threading.Thread(target=self._manage, daemon=True).start()

    def stop(self):
        """Serves nothing any more."""
        self._stop.set()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for loaded in self._loaded.values():
                loaded.close()

    def find(self, spec):
        """The number and the `LoadedModel` of the version that a `ModelSpec` names."""
        with self._lock:
            versions = [version for name, version in self._loaded if name == spec.name]
            if spec.version_label:
                if (version := self._labels.get(spec.name, {}).get(spec.version_label)) is None:
                    raise Refused("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}")
            else:
                version = spec.version.value if spec.HasField("version") else max(versions, default=None)
            if version in versions:
                return version, self._loaded[spec.name, version]
        wanted = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
        raise Refused("NOT_FOUND", f"Servable not found for request: {wanted}")

    def states_of(self, name, version=None):
        """{version: (state, error)} of a model's versions, or of one."""
        with self._lock:
            found = {each[1]: state for each, state in self.states.items() if each[0] == name}
        if version is not None:
            found = {version: found[version]} if version in found else {}
        if not found:
            what = "any versions" if version is None else f"version {version}"
            raise Refused("NOT_FOUND", f"Could not find {what} of model {name}")
        return found

    def _manage(self):
        while not self._stop.wait(self._poll_seconds):
            try:
                self._read_config()
                self.refused_config = None
            except ValueError as error:
                self.refused_config = str(error)
            self._poll()

    # --- the configuration

    def _read_config(self):
        """Takes up what `models.config` says, all of it or nothing."""
        if isinstance(self._given, dict):
            self._sources = {name: (source, None) for name, source in self._given.items()}
            return
        with open(self._given, encoding="utf-8") as file:
            text = file.read()
        if text == self._config_text:
            return
        try:
            config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
        except text_format.ParseError as error:
            raise ValueError(f"Invalid protobuf file: {error}") from error
        configs = config.model_config_list.config
        labels = {each.name: dict(each.version_labels) for each in configs}
        for name, numbers in labels.items():
            for label, version in numbers.items():
                is_new = self._allow_labels and self._labels.get(name, {}).get(label, version) == version
                if not is_new and (name, version) not in self._loaded:
                    raise ValueError(
                        f"Request to assign label to version {version} of model {name}, which is not currently "
                        "available for inference"
                    )
        self._config_text, self._labels = text, labels
        self._sources = {each.name: (each.base_path, each.model_version_policy) for each in configs}

    # --- loading

    def _poll(self):
        """Begins to load what should be served and is not; returns the futures of that."""
        try:
            aspired = {name: _aspired(source, policy) for name, (source, policy) in self._sources.items()}
        except OSError:  # one model without its folder, and none is looked at
            return []
        futures = []
        for name, versions in aspired.items():
            for version in versions:
                if (name, version) in self.states and self.states[name, version][0] != END:
                    continue
                if self.states.get((name, version), (END, None))[1]:
                    continue  # it failed for good
                self.states[name, version] = (START, "")
                if self._pool is None:
                    self._load(name, version)
                else:
                    futures.append(self._pool.submit(self._load, name, version))
        self._unload(aspired)
        return futures

    def _load(self, name, version):
        source = self._sources[name][0]
        self.states[name, version] = (LOADING, "")
        for number in range(self._retries + 1):
            if number and self._stop.wait(self._retry_seconds):
                return
            try:
                model = source[version] if isinstance(source, dict) else SavedModel(os.path.join(source, str(version)))
                if isinstance(model, Exception):
                    raise model
                loaded = self._make(model)
                loaded.warm_up([call_of(loaded, request) for request in model.warmup])
            except Exception as error:
                problem = str(error) or type(error).__name__
                continue
            with self._lock:
                self._loaded[name, version], self.states[name, version] = loaded, (AVAILABLE, "")
            self._unload({name: _aspired(*self._sources[name])})
            return
        self.states[name, version] = (END, problem)

    def _unload(self, aspired):
        """Lets versions go that are not to be served, once one that is to be served is there."""
        with self._lock:
            for name, version in list(self._loaded):
                wanted = aspired.get(name, ())
                if name in self._sources and name not in aspired:
                    continue
                is_replaced = not wanted or any((name, each) in self._loaded for each in wanted)
                if version not in wanted and is_replaced:
                    self._loaded.pop((name, version)).close()
                    self.states[name, version] = (END, "")


def _aspired(source, policy):
    """The versions of a model that should be served."""
    numbers = sorted(
        source if isinstance(source, dict) else (int(each) for each in os.listdir(source) if each.isdecimal())
    )
    if policy is not None and policy.HasField("specific"):
        return [number for number in numbers if number in policy.specific.versions]
    if policy is not None and policy.HasField("all"):
        return numbers
    most = policy.latest.num_versions if policy is not None and policy.HasField("latest") else 1
    return numbers[-(most or 1) :]


def call_of(loaded, request):
    """What a request asks of a model: signature, outputs, and arrays by name; refuses what the model does not have."""
    name = request.model_spec.signature_name or "serving_default"
    signature = loaded.signatures.get(name)
    if signature is None:
        raise Refused("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
    if set(request.inputs) != set(signature.inputs):
        wanted, given = sorted(signature.inputs), sorted(request.inputs)
        raise Refused("INVALID_ARGUMENT", f"input must be {wanted}, but was {given}")
    if unknown := set(request.output_filter) - set(signature.outputs):
        raise Refused("INVALID_ARGUMENT", f"output tensor alias not found in signature: {min(unknown)}")
    return name, tuple(request.output_filter), {key: tf.make_ndarray(each) for key, each in request.inputs.items()}
