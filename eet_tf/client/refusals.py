"""Why a server says no to a request that it received: in our words, with the mend."""

from __future__ import annotations

from eet_tf.client.retries import ServingError

_MENDS = {
    "describe": "Export the embedder again with export/main.py: older versions do not say which embedder they are.",
    "search": "Export the embedder with its catalogue, or embed there and search an index here.",
}


def refusal(target: str, model: str, signature: str, is_not_found: bool, details: str) -> ServingError:
    """What a client is told.

    Args:
        target: the server.
        model: the name that was asked for.
        signature: the signature that was asked for.
        is_not_found: whether the server's status is "not found".
        details: the server's own words.

    Example:

    >>> str(refusal("localhost:8500", "shoes", "describe", True, "Servable not found"))[:77]
    "the server at localhost:8500 has no model 'shoes' (Servable not found). Name "
    """
    text = details.lower()
    if "signature" in text and "not found" in text:
        mend = _MENDS.get(signature, "Is it an embedder that export/main.py wrote?")
        return ServingError(f"the model '{model}' at {target} has no signature '{signature}' ({details:.300}). {mend}")
    if is_not_found:
        return ServingError(
            f"the server at {target} has no model '{model}' ({details:.300}). Name one that it serves, its --model_name"
            "; if it has just started, wait until it says that the model is loaded."
        )
    if "larger than maximum" in text:
        return ServingError(
            f"the model '{model}' at {target} takes smaller batches ({details:.300}). Lower `batch_size` to the "
            "server's max_batch_size."
        )
    return ServingError(
        f"the model '{model}' at {target} refused the request: {details:.300}. Is it an embedder that export/main.py "
        "wrote?"
    )


def wrong_outputs(target: str, model: str, signature: str, missing: list[str]) -> ServingError:
    """The refusal of an answer that lacks outputs, or has others than one row per photo."""
    return ServingError(
        f"the model '{model}' at {target} answers '{signature}' without {', '.join(missing)}: it is no embedder of "
        "this package. Name one that export/main.py wrote."
    )
