"""What of a SavedModel asks to be compiled by XLA, which a server may not have."""

from __future__ import annotations

import os

from tensorflow.core.protobuf import saved_model_pb2

_MARK = "_XlaMustCompile"


def leave_compilation_to_the_server(folder: str) -> None:
    """Clears the mark of each function of a SavedModel that must be compiled by XLA: it runs as it is.

    `Conv2D` of Keras 3 marks convolutions of several groups so where the model is saved on processors, and
    `tf.function(jit_compile=True)` its function. TensorFlow Serving on GPUs has no compiler and fails at the first
    request (tensorflow/serving#2214).

    Args:
        folder: of the SavedModel, which no one reads yet.
    """
    path = os.path.join(folder, "saved_model.pb")
    saved_model = saved_model_pb2.SavedModel()
    with open(path, "rb") as file:
        saved_model.ParseFromString(file.read())
    marked = [
        part.attr[_MARK]
        for graph in saved_model.meta_graphs
        for parts in (graph.graph_def.node, *((each, *each.node_def) for each in graph.graph_def.library.function))
        for part in parts
        if _MARK in part.attr and part.attr[_MARK].b
    ]
    if not marked:
        return
    for mark in marked:
        mark.b = False
    with open(path, "wb") as file:
        file.write(saved_model.SerializeToString())
