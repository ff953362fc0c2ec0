"""The entry kernels' PTX: found, read and cut into one module for each kernel.

`scripts/build_ptx.py` compiles `plugins/kernels/cuda/aot/` into one file for each op and architecture. An engine gets
the PTX of every plugin node, so a node is given only its own kernel. What the launch description has to know about a
kernel (parameters, threads, sizes in shared memory) is read from the PTX itself and cannot disagree with it.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

from tmdeploy.errors import ArtifactError, EnvironmentMissing

FOLDER = Path(__file__).parent / "ptx"
OPS = ("match", "select", "reduce")
_START = re.compile(r"^\.visible \.entry (\w+)\(", re.MULTILINE)
_PARAMETER = re.compile(r"\.param \.(\w+)")
_THREADS = re.compile(r"^\.maxntid (\d+)", re.MULTILINE)
_LAYOUT = re.compile(r"^\.(?:visible )?\.?const \.align \d+ \.b(8|32) \w+_layout\[(\d+)\] = \{([^}]*)\}", re.MULTILINE)
_KINDS = {"u64": "p", "u32": "i"}


@dataclass(frozen=True)
class PtxModule:
    """One entry kernel as a PTX module of its own.

    Attributes:
        entry: The kernel's name.
        text: The module.
        parameters: A letter a parameter, in order: `p` pointer, `i` int32.
        threads: Threads of a block that it was compiled for.
    """

    entry: str
    text: str
    parameters: str
    threads: int


@dataclass(frozen=True)
class PtxFile:
    """The kernels of one op for one architecture.

    Attributes:
        path: Where it was read from.
        architecture: Oldest compute capability that takes it, as 75 for 7.5.
        modules: Modules by the entry's name.
        layout: Sizes the kernels were compiled with, in the order of `TM_LAYOUT` in the op's source.
    """

    path: Path
    architecture: int
    modules: dict[str, PtxModule]
    layout: tuple[int, ...]


def _integers(width: str, length: str, values: str) -> tuple[int, ...]:
    numbers = [int(value) for value in values.split(",") if value.strip()]
    numbers += [0] * (int(length) - len(numbers))  # nvcc leaves out zeros at the end
    if width == "32":
        return tuple(numbers)
    data = bytes(number & 0xFF for number in numbers)
    return tuple(int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(0, len(data), 4))


def parse_ptx(text: str, path: Path) -> PtxFile:
    """Read the PTX of one op.

    Raises:
        ArtifactError: It is not what `scripts/build_ptx.py` writes.
    """
    starts = list(_START.finditer(text))
    target = re.search(r"^\.target sm_(\d+)", text, re.MULTILINE)
    layout = _LAYOUT.search(text)
    if not starts or target is None or layout is None:
        raise ArtifactError("not the PTX of tmdeploy's kernels", path=path, remedy="Build it: scripts/build_ptx.py")
    header = text[: starts[0].start()]
    modules = {}
    for number, start in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        body = text[start.start() : end]
        declared = body[: body.index(")")]
        kinds = _PARAMETER.findall(declared)
        threads = _THREADS.search(body)
        if threads is None or any(kind not in _KINDS for kind in kinds):
            raise ArtifactError(f"{start[1]} has parameters TensorRT cannot pass", path=path)
        parameters = "".join(_KINDS[kind] for kind in kinds)
        modules[start[1]] = PtxModule(start[1], header + body, parameters, int(threads[1]))
    return PtxFile(path, int(target[1]), modules, _integers(*layout.groups()))


class PtxLibrary:
    """The kernels' PTX in a folder, for one GPU."""

    def __init__(self, folder: Path = FOLDER, capability: tuple[int, int] | None = None) -> None:
        """Choose the files; they are read when first needed.

        Args:
            folder: Holds `<op>.compute_<nn>.ptx`.
            capability: Compute capability of the GPU the engine is for; None takes that of the first GPU here, and the
                oldest PTX where there is none.

        Raises:
            EnvironmentMissing: No file for an op, or none that the GPU takes.
        """
        self.capability = device_capability() if capability is None else capability
        self._files: dict[str, PtxFile] = {}
        self._paths: dict[str, Path] = {}
        most = None if self.capability is None else self.capability[0] * 10 + self.capability[1]
        for op in OPS:
            found = {int(path.stem.rpartition("_")[2]): path for path in folder.glob(f"{op}.compute_*.ptx")}
            if not found:
                raise EnvironmentMissing(
                    f"the CUDA kernels' PTX is not part of this installation ({folder})",
                    remedy="Build it with: python scripts/build_ptx.py (needs nvcc)",
                )
            usable = [architecture for architecture in found if most is None or architecture <= most]
            if not usable:
                raise EnvironmentMissing(
                    f"the GPU's compute capability {most / 10 if most else most} is older than the kernels' PTX",
                    remedy=f"Use a GPU of compute capability {min(found) / 10} or newer",
                )
            self._paths[op] = found[min(usable) if most is None else max(usable)]

    @property
    def paths(self) -> dict[str, Path]:
        """The chosen file of `match`, `select` and `reduce`."""
        return dict(self._paths)

    def file(self, op: str) -> PtxFile:
        """The kernels of `match`, `select` or `reduce`."""
        if op not in self._files:
            path = self._paths[op]
            self._files[op] = parse_ptx(path.read_text(encoding="ascii"), path)
        return self._files[op]


def device_capability() -> tuple[int, int] | None:
    """Compute capability of the first GPU; None without a GPU or its driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
    if (
        driver.cuInit(0) != 0
        or driver.cuDeviceGet(ctypes.byref(device), 0) != 0
        or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device) != 0
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device) != 0
    ):
        return None
    return major.value, minor.value
