"""How a version comes into service, and goes: in steps of which a server can take each up."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence

from eet_tf.serving.models_config import change_model, folder_of, read_models, served_versions, versions
from eet_tf.serving.servable import SavedModelError
from eet_tf.serving.server_state import ServerState

_SECONDS_BETWEEN = 0.5


class PublishError(SavedModelError):
    """A version that did not come into service; the message says how far it came, and how to go on."""


def publish(
    output_dir: str,
    name: str,
    version: int,
    label: str | None = None,
    retire: Sequence[int] = (),
    servers: Sequence[str] = (),
    are_stopped: bool = False,
    timeout: float = 600.0,
    settle_seconds: float = 30.0,
    on_step: Callable[[str], None] = lambda text: None,
) -> None:
    """Brings a version of a model into service, and takes others out of it, by changing `models.config` in steps.

    1. The version is added to those that the server loads; those that it has loaded stay. All servers are asked until
       they have loaded it. If one cannot load it, it is taken out again.
    2. The label is set to it, or moved from another version. A server refuses a label of a version that it has not
       loaded, and with it the whole file; so this comes second. All servers are asked until the label leads there.
    3. The versions to retire are taken out.

    Each step is written whole or not at all. Killed in between, the same call goes on where it was; called twice, it
    changes nothing. What others have written into the file stays but for comments; the file as it was is kept as
    `models.config.before`.

    Args:
        output_dir: the folder of models that `write_bundle` wrote.
        name: of the model; it gets an entry if it has none.
        version: to serve; its folder is there. An older one is how to go back.
        label: callers may ask for the version by it; None for none.
        retire: versions that are no longer served. Their folders stay.
        servers: `host:port` of the gRPC of every server that reads this folder. Without them, only the first step is
            taken.
        are_stopped: whether no server runs, so that nothing need be waited for and all is written at once.
        timeout: seconds that a step may take on a server; loading a model takes most of them.
        settle_seconds: after which a server has read the file, so that an older failure is not taken for a new one.
        on_step: is told what has been done, a sentence each time.

    Raises:
        SavedModelError: if the model has no such version, a version to retire is needed, or `models.config` cannot be
            read or served. Nothing has changed then.
        PublishError: if a server cannot load the version or does not answer in time; or without `servers`, if there is
            more to do than the first step.
    """
    check_publication(output_dir, name, version, label, retire)
    publication = _Publication(output_dir, name, version, label, set(retire), on_step)
    if are_stopped:
        publication.write(publication.add, publication.set_label, publication.take_out)
        publication.tell_the_newest()
        return
    publication.write(publication.add)
    if not servers:
        publication.tell_the_newest()
        if label is not None or retire:
            raise PublishError(
                f"version {version} of {name!r} is added; the rest must wait until the servers have loaded it. Call "
                "again with `servers` (`eet publish`: --server=host:8500), or with `are_stopped` (--stopped) if "
                "none runs. Received: servers=()."
            )
        return
    for address in servers:
        with ServerState(address) as server:
            publication.await_version(server, timeout, settle_seconds)
    if label is not None:
        publication.write(publication.set_label)
        for address in servers:
            with ServerState(address) as server:
                publication.await_label(server, timeout)
    publication.write(publication.take_out)
    publication.tell_the_newest()


def check_publication(output_dir: str, name: str, version: int, label: str | None, retire: Sequence[int]) -> None:
    """Refuses what `publish` would refuse of these, before anything is written.

    Raises:
        SavedModelError: if one of them is wrong.
    """
    problems = []
    if label is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", label):
        problems.append(f"`label` must be letters, digits, _, . and -. Received: label={label!r}.")
    entries = [model for model in read_models(output_dir).model_config_list.config if model.name == name]
    folder = folder_of(entries[0], output_dir) if entries else os.path.join(output_dir, name)
    there = versions(folder) if os.path.isdir(folder) else []
    if not there:
        problems.append(
            f"`output_dir` must have a folder `name` with a version of the model. Received: output_dir={output_dir!r}, "
            f"name={name!r}. Write it with `eet export --bundle`."
        )
    elif version not in there or not os.path.isfile(os.path.join(folder, str(version), "saved_model.pb")):
        problems.append(
            f"`version` must be one of {', '.join(map(str, there))}, and have a saved_model.pb. Received: "
            f"version={version}."
        )
    if version in retire:
        problems.append(f"`retire` must be other versions than `version`. Received: both are {version}.")
    labels = dict(entries[0].version_labels) if entries else {}
    for other, labelled in sorted(labels.items()):
        if labelled in retire and other != label:
            problems.append(
                f"`retire` must be versions without a label. Received: {labelled}, which is {other!r}. Give that label "
                "to another version first."
            )
    if problems:
        raise SavedModelError("\n".join(problems))


class _Publication:
    """The changes of one call, and what is asked of servers."""

    def __init__(self, output_dir, name, version, label, retire, on_step):
        self._output_dir, self._name, self._version = output_dir, name, version
        self._label, self._retire, self._on_step = label, retire, on_step

    def write(self, *changes) -> None:
        """Makes changes to the model's entry in `models.config`, all in one."""
        served: list[int] = []

        def change(model):
            for each in changes:
                each(model)
            served.extend(sorted(served_versions(model, self._output_dir)))

        if change_model(self._output_dir, self._name, change):
            label = f", and {self._label!r} is version {self._version}" if self.set_label in changes else ""
            self._on_step(f"models.config: {self._name!r} serves {_listed(served)}{label if self._label else ''}.")

    def tell_the_newest(self) -> None:
        """Says who is not answered by the version."""
        (model,) = [each for each in read_models(self._output_dir).model_config_list.config if each.name == self._name]
        newest = max(served_versions(model, self._output_dir))
        if newest != self._version:
            self._on_step(
                f"Callers that name neither version nor label get version {newest}, the newest that is served."
            )

    def add(self, model) -> None:
        """Serves the version beside those that are served."""
        served = served_versions(model, self._output_dir)
        # a policy of its own would let the version go when a newer one comes
        if self._version not in served or not model.model_version_policy.HasField("all"):
            _serve(model, served | {self._version})

    def set_label(self, model) -> None:
        """Gives the version its label."""
        if self._label is not None:
            model.version_labels[self._label] = self._version

    def take_out(self, model) -> None:
        """No longer serves what is retired."""
        served = served_versions(model, self._output_dir)
        if served & self._retire:
            _serve(model, served - self._retire)

    def _undo(self, model) -> None:
        """Takes the version out that cannot be loaded, unless nothing else would be left or a label needs it."""
        served = served_versions(model, self._output_dir)
        if served > {self._version} and self._version not in model.version_labels.values():
            _serve(model, served - {self._version})

    def await_version(self, server: ServerState, timeout: float, settle_seconds: float) -> None:
        """Returns when a server has loaded the version."""
        what, begin, said = f"version {self._version} of {self._name!r}", time.monotonic(), ""
        while True:
            state, why = server.version(self._name, self._version)
            if state == "AVAILABLE":
                self._on_step(f"{server.address} has loaded {what}.")
                return
            told = f"{server.address} has not loaded {what}: {_in_a_line(why or state)}"
            waited = time.monotonic() - begin
            if state == "END" and why and waited >= settle_seconds:
                self.write(self._undo)
                raise PublishError(
                    f"{told} Others are served as before. Export it again: a server tries a version once, until it is "
                    "started anew."
                )
            if waited >= timeout:
                raise PublishError(
                    f"{told} That was after {timeout:g} s. Look at the server's log: does it run, and read this folder "
                    "and its models.config? Then run the same command again."
                )
            if told != said:
                self._on_step(f"{told} Waiting.")
                said = told
            time.sleep(_SECONDS_BETWEEN)

    def await_label(self, server: ServerState, timeout: float) -> None:
        """Returns when a server answers to the label with the version."""
        begin = time.monotonic()
        while why := server.label(self._name, self._label, self._version):
            if time.monotonic() - begin >= timeout:
                raise PublishError(
                    f"the label {self._label!r} of {self._name!r} at {server.address} does not lead to version "
                    f"{self._version} after {timeout:g} s: {_in_a_line(why)} Look at the server's log, and run the "
                    "same command again."
                )
            time.sleep(_SECONDS_BETWEEN)
        self._on_step(f"{server.address} answers to {self._label!r} with version {self._version}.")


def _serve(model, wanted: set[int]) -> None:
    model.model_version_policy.specific.versions[:] = sorted(wanted)


def _listed(served: Sequence[int]) -> str:
    *most, last = map(str, served)
    return f"versions {', '.join(most)} and {last}" if most else f"version {last}"


def _in_a_line(text: str) -> str:
    line = " ".join(text.split())[:300]
    return line if line.endswith(".") or not line else f"{line}."
