"""What the builder's verbose log says about the finished engine: layers, memory, inputs and outputs.

TensorRT-RTX's engine inspector needs a GPU; the log of a build with detailed profiling verbosity names every kernel
and the ONNX nodes it came from, and needs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tmdeploy.tensorrt.record.layers import IoTensor, Layer, Operand, nodes_in, type_word
from tmdeploy.tensorrt.record.sidecar import BuildMemory

_LAYER = re.compile(r"^Name: (?P<name>.+?), LayerType: (?P<type>[^,]+),")
_SIDE = r"{}: \[(?P<operands>| ?\{{.*?\}} ?)\]"
_INPUTS, _OUTPUTS = (re.compile(_SIDE.format(side)) for side in ("Inputs", "Outputs"))
_OPERAND = re.compile(r"Dimensions: \[(?P<shape>[-\d,]*)\](?P<rest>[^{}]*)")
_TYPE = re.compile(r"Data[Tt]ype: (?P<type>[^,}]+)")
_TACTIC = re.compile(r"TacticName: (?P<tactic>[^,]*)")
_GRAPH = re.compile(r"_myl(\d+)_\d+$")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_IO = re.compile(
    r"^ ?Name: (?P<name>[^,]+), IOMode: \w+, .*?Location: (?P<location>\w+), .*?ProfileInfo: \[(?P<info>.*)\]"
)
_RANGE = re.compile(r"MinShape: \[([-\d,]*)\], OptShape: \[([-\d,]*)\], MaxShape: \[([-\d,]*)\]")
_FORMAT = re.compile(r"Format: ([^}]+?) ?\}")
_MEMORY = {
    "activation_bytes": re.compile(r"^Total Activation Memory: (\d+) bytes"),
    "scratch_bytes": re.compile(r"^Max Scratch Memory: (\d+) bytes"),
    "weights_bytes": re.compile(r"^Total Weights Memory: (\d+) bytes"),
    "host_persistent_bytes": re.compile(r"^Total Host Persistent Memory: (\d+) bytes"),
    "device_persistent_bytes": re.compile(r"^Total Device Persistent Memory: (\d+) bytes"),
    "builder_peak_cpu_mib": re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU (\d+) MiB"),
    "builder_peak_gpu_mib": re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: .*GPU (\d+) MiB"),
}


def read_layers(messages: Iterable[str]) -> tuple[Layer, ...]:
    """Layers in the order they run; empty if the log lists none. Their kinds are not judged yet."""
    found: list[Layer] = []
    for message in messages:
        for line in message.splitlines():
            match = _LAYER.match(line)
            if match:
                head, _, metadata = line.partition(", Metadata:")
                tactic = _TACTIC.search(head)
                found.append(
                    Layer(
                        name=match["name"].strip(),
                        type=match["type"].strip(),
                        tactic=tactic["tactic"].strip() if tactic else "",
                        nodes=nodes_in(metadata),
                        inputs=_operands(_INPUTS, head),
                        outputs=_operands(_OUTPUTS, head),
                    )
                )
    return tuple(found)


def by_profile(layers: Sequence[Layer], profiles: int) -> tuple[tuple[Layer, ...], ...] | None:
    """The layers of each profile: the log lists those of one behind those of the other.

    TensorRT marks some names of a later profile (`node_conv2d [profile 1]_myl1_2`), and Myelin numbers its graphs
    (`_myl1_`); what is marked anywhere in a graph holds for all of it.

    Args:
        layers: As the log lists them.
        profiles: How many there are.

    Returns:
        One tuple per profile; None if the marks do not add up to that many.
    """
    graphs: dict[str, int] = {}
    for layer in layers:
        graph, marked = _GRAPH.search(layer.name), _PROFILE.search(layer.name)
        if graph and marked:
            graphs[graph[1]] = int(marked[1])
    found: list[list[Layer]] = [[] for _ in range(profiles)]
    for layer in layers:
        graph, marked = _GRAPH.search(layer.name), _PROFILE.search(layer.name)
        number = int(marked[1]) if marked else graphs.get(graph[1], 0) if graph else 0
        if number >= profiles:
            return None
        found[number].append(layer)
    return tuple(map(tuple, found)) if all(found) else None


def read_io(messages: Iterable[str]) -> tuple[IoTensor, ...]:
    """Inputs and outputs: where they lie, in which format, and the ranges of each profile."""
    found = []
    for message in messages:
        if "IOMode: " not in message:
            continue
        for line in message.splitlines():
            match = _IO.match(line)
            if match:
                ranges = tuple(tuple(map(_numbers, ends)) for ends in _RANGE.findall(match["info"]))
                formats = tuple(text.strip() for text in _FORMAT.findall(match["info"]))
                found.append(
                    IoTensor(name=match["name"], location=match["location"].lower(), formats=formats, ranges=ranges)
                )
    return tuple(found)


def read_memory(messages: Iterable[str]) -> BuildMemory | None:
    """What the log says about memory; None if nothing. Of several statements the last holds."""
    values: dict[str, int] = {}
    for message in messages:
        if "emory" not in message:
            continue
        for line in message.splitlines():
            for name, pattern in _MEMORY.items():
                match = pattern.search(line)
                if match:
                    values[name] = int(match[1])
    return BuildMemory(**values) if values else None


def _operands(pattern: re.Pattern[str], line: str) -> tuple[Operand, ...]:
    match = pattern.search(line)
    if match is None:
        return ()
    found = []
    for operand in _OPERAND.finditer(match["operands"]):
        kind = _TYPE.search(operand["rest"])
        found.append(Operand(type=type_word(kind["type"]) if kind else "", shape=_numbers(operand["shape"])))
    return tuple(found)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)
