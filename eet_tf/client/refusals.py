"""Why a server says no to a request that it received: in our words, with the mend."""

from __future__ import annotations

from collections.abc import Mapping

from eet_tf.client.retries import ServingError, TransientError

_MENDS = {
    "describe": "Export the embedder again with `eet export`: older versions do not say which embedder they are.",
    "search": "Export the embedder with its catalogue, or embed there and search an index here.",
}
_COMING = ("START", "LOADING", "AVAILABLE")  # the last: since the request was refused


def refusal(target: str, model: str, signature: str, details: str) -> Exception:
    """What a client is told of a request that the model or the server does not take.

    Args:
        target: the server.
        model: the name that was asked for.
        signature: the signature that was asked for.
        details: the server's own words.

    Returns:
        A `ServingError`, or a `TransientError` if the request failed by no fault of its own.

    Example:

    >>> str(refusal("localhost:8500", "shoes", "describe", 'Serving signature key "describe" not found.'))[:78]
    "the model 'shoes' at localhost:8500 has no signature 'describe' (Serving signa"
    """
    text = details.lower()
    if "signature" in text and "not found" in text:
        mend = _MENDS.get(signature, "Is it an embedder that `eet export` wrote?")
        return ServingError(f"the model '{model}' at {target} has no signature '{signature}' ({details:.300}). {mend}")
    if "larger than maximum" in text:
        return ServingError(
            f"the model '{model}' at {target} takes smaller batches ({details:.300}). Lower `batch_size` to the "
            "server's max_batch_size."
        )
    if "from different tasks have different shapes" in text:  # ours is always [N]: another caller's was not
        return TransientError("the server put a request of another shape, of another caller, into the same batch")
    return ServingError(
        f"the model '{model}' at {target} refused the request: {details:.300}. Is it an embedder that `eet export` "
        "wrote?"
    )


def not_found(
    target: str, model: str, version: int | None, states: Mapping[int, tuple[str, str]], details: str
) -> Exception:
    """What a client is told if the server has no such model, or has it without the version.

    Args:
        target: the server.
        model: the name that was asked for.
        version: that was asked for; None for the newest.
        states: of the model's versions, `{version: (state, error)}`; empty if the server does not know the model.
        details: the server's own words.

    Returns:
        A `ServingError`, or a `TransientError` if the version is being loaded, or was when it was asked.

    Example:

    >>> states = {7: ("AVAILABLE", ""), 8: ("END", "cut off")}
    >>> print(not_found("localhost:8500", "shoes", 8, states, "not found"))
    the model 'shoes' at localhost:8500 has no version 8 (not found; cut off). It serves 7: name one of these, or none \
for the newest.
    """
    asked = states if version is None else {version: states.get(version, ("", ""))}
    if coming := [number for number, (state, _) in asked.items() if state in _COMING]:
        return TransientError(f"the server is loading version {max(coming)} of the model '{model}'")
    if not states:
        return ServingError(
            f"the server at {target} has no model '{model}' ({details:.300}). Name one that it serves, its --model_name"
            "; if it has just started, wait until it says that the model is loaded."
        )
    problems = [f"; {error:.300}" for _, error in asked.values() if error]
    served = sorted(number for number, (state, _) in states.items() if state == "AVAILABLE")
    what = "no version that it can serve" if version is None else f"no version {version}"
    mend = f"It serves {', '.join(map(str, served))}: name one of these, or none for the newest."
    nothing = "It serves none: its log says why."
    return ServingError(
        f"the model '{model}' at {target} has {what} ({details:.300}{''.join(problems)}). {mend if served else nothing}"
    )


def wrong_port(target: str, is_rest: bool) -> ServingError:
    """The refusal of an address at which the other of the two protocols is spoken.

    Args:
        target: the server, as the client was given it.
        is_rest: whether the client asked by REST.

    Example:

    >>> print(wrong_port("localhost:8501", is_rest=False))
    the server at localhost:8501 speaks HTTP/1, not gRPC: this is its port for REST. Write 'http://localhost:8501' for \
REST, or name its port for gRPC, usually 8500.
    """
    if is_rest:
        bare = target.partition("://")[2]
        return ServingError(
            f"the server at {target} speaks gRPC, not HTTP/1: this is its port for gRPC. Write '{bare}' for gRPC, or "
            "name its port for REST, usually 8501."
        )
    return ServingError(
        f"the server at {target} speaks HTTP/1, not gRPC: this is its port for REST. Write 'http://{target}' for REST, "
        "or name its port for gRPC, usually 8500."
    )


def wrong_outputs(target: str, model: str, signature: str, missing: list[str]) -> ServingError:
    """The refusal of an answer that lacks outputs, or has others than one row per photo."""
    return ServingError(
        f"the model '{model}' at {target} answers '{signature}' without {', '.join(missing)}: it is no embedder of "
        "this package. Name one that `eet export` wrote."
    )
