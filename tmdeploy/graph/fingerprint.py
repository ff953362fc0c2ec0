"""A checksum of a graph without its weights: two fine-tuned checkpoints of one architecture have the same."""

from __future__ import annotations

import hashlib

import onnx
import onnx.numpy_helper

_WEIGHTS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def graph_sha256(model: onnx.ModelProto) -> str:
    """SHA-256, hexadecimal, of nodes, inputs, outputs, constants, and the names, types and shapes of the weights.

    Values of floating-point initializers are weights and do not count; those of Constant nodes and of integers do.
    Metadata, documentation and shapes that were merely inferred do not count.

    Args:
        model: As TensorRT's parser gets it.
    """
    digest = hashlib.sha256()

    def add(content: bytes) -> None:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)

    for entry in sorted(model.opset_import, key=lambda entry: entry.domain):
        add(f"{entry.domain} {entry.version}".encode())
    for node in model.graph.node:
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.ClearField("doc_string")
        del plain.metadata_props[:]
        add(plain.SerializeToString(deterministic=True))
    for value in (*model.graph.input, *model.graph.output):
        add(value.name.encode())
        add(value.type.SerializeToString(deterministic=True))
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        add(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode())
        if tensor.data_type not in _WEIGHTS:
            add(onnx.numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()
