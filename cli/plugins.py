"""`tmdeploy plugins`: the op set as native code."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tmdeploy.errors import EnvironmentMissing, UsageError

from .console import Output, progress
from .options import JsonOption

if TYPE_CHECKING:
    from tmdeploy.native.library import NativeLibrary


class Action(str, enum.Enum):
    """What to do."""

    build = "build"
    list = "list"


def plugins(
    action: Annotated[Action, typer.Argument(help="build: compile them here. list: where they are looked for.")],
    ort: Annotated[
        bool | None,
        typer.Option(
            "--ort/--no-ort", help="The custom-op library for ONNX Runtime; default: unless another is asked for."
        ),
    ] = None,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="The extension library for the installed OpenVINO.")
    ] = False,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="The plugin library for TensorRT; needs nvcc, no GPU.")
    ] = False,
    cuda: Annotated[
        bool, typer.Option("--cuda", help="With --ort: also for ONNX Runtime's CUDA provider; needs nvcc, no GPU.")
    ] = False,
    cuda_arch: Annotated[
        str | None,
        typer.Option(
            help="With --tensorrt or --cuda: compute capabilities, as in 75,80,90. Default: all that are supported."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for what is built. Default: where it is found.")
    ] = None,
    fetch_headers: Annotated[
        bool, typer.Option("--fetch-headers", help="Download headers of the runtime that are not here.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Build or list the native libraries, which run the reduction steps several times faster than function bodies.

    tmdeploy plugins build --ort --openvino
    """
    if action is Action.list:
        _list(_output(json, None))
        return
    with_ort = ort or (ort is None and not openvino and not tensorrt)
    if cuda and not with_ort:
        raise UsageError("--cuda belongs to ONNX Runtime's library, which is not built", remedy="Add --ort")
    if cuda_arch is not None and not tensorrt and not cuda:
        raise UsageError("--cuda-arch: nothing that is built has CUDA code", remedy="Add --tensorrt or --cuda")
    out = _output(json, output)
    made: list[str] = []
    if with_ort:
        made.append(_build_ort(out, output, cuda, cuda_arch, fetch_headers))
    if openvino:
        made.append(_build_openvino(out, output))
    if tensorrt:
        made.append(_build_tensorrt(out, output, cuda_arch, fetch_headers))
    out.emit({"schema": "tmdeploy.plugins/1", "built": made})


def _output(json: str | None, folder: Path | None) -> Output:
    from tmdeploy.native.library import ORT_LIBRARY, ort_libraries
    from tmdeploy.native.openvino import OPENVINO_LIBRARY
    from tmdeploy.native.tensorrt import TENSORRT_LIBRARY, tensorrt_libraries
    from tmdeploy.native.trust import checksum_path

    if folder is None:
        return Output(json, reads=[place.path for place in (*ort_libraries(), *tensorrt_libraries())])
    if not folder.exists():  # it is created when all that a build needs is there
        return Output(json)
    libraries = (ORT_LIBRARY, OPENVINO_LIBRARY, TENSORRT_LIBRARY)
    files = (path for name in libraries for path in (folder / name, checksum_path(folder / name)))
    return Output(json, writes={f"the library's {path.name}": path for path in files})


def _build_ort(out: Output, output: Path | None, cuda: bool, architectures: str | None, fetch_headers: bool) -> str:
    from tmdeploy.native.build import build_ort
    from tmdeploy.native.headers import download_ort_headers, find_ort_headers
    from tmdeploy.native.library import LIBRARY_VARIABLE

    with progress() as tell:
        if fetch_headers and find_ort_headers() is None:
            tell("downloading ONNX Runtime's headers")
            download_ort_headers()
        made = build_ort(output, cuda=cuda, architectures=architectures, progress=tell)
    _say(out, made, LIBRARY_VARIABLE if output is not None else None)
    return str(made)


def _build_openvino(out: Output, output: Path | None) -> str:
    from tmdeploy.native.openvino import OPENVINO_VARIABLE, build_openvino

    with progress() as tell:
        made = build_openvino(output, progress=tell)
    _say(out, made, OPENVINO_VARIABLE if output is not None else None)
    return str(made)


def _build_tensorrt(out: Output, output: Path | None, architectures: str | None, fetch_headers: bool) -> str:
    from tmdeploy.native.tensorrt import build_tensorrt
    from tmdeploy.native.tensorrt_headers import download_tensorrt_headers, find_tensorrt_headers

    with progress() as tell:
        if fetch_headers and find_tensorrt_headers() is None:
            tell("downloading TensorRT's headers")
            download_tensorrt_headers()
        made = build_tensorrt(output, architectures=architectures, progress=tell)
    out.console.print(f"wrote {made}", soft_wrap=True)
    out.console.print(f"Use it with: tmdeploy build MODEL.onnx --plugin {made.resolve()}", soft_wrap=True)
    return str(made)


def _say(out: Output, made: Path, variable: str | None) -> None:
    out.console.print(f"wrote {made}", soft_wrap=True)
    if variable is not None:
        out.console.print(f"Use it with: export {variable}={made.resolve()}", soft_wrap=True)  # to be copied


def _list(out: Output) -> None:
    from tmdeploy.native import library, openvino, tensorrt
    from tmdeploy.native.build import load_problem
    from tmdeploy.report.listing import print_places

    rows = []
    native = library.native_wanted()
    for runtime, places, build, problem_of, works in (
        ("ONNX Runtime", library.ort_libraries(), library.BUILD_COMMAND, load_problem, None),
        ("OpenVINO", openvino.openvino_libraries(), openvino.BUILD_COMMAND, openvino.openvino_problem, None),
        (
            "TensorRT",
            tensorrt.tensorrt_libraries(),
            tensorrt.BUILD_COMMAND,
            tensorrt.tensorrt_problem,
            "loads; for tmdeploy build --plugin",
        ),
    ):
        if not places:
            out.console.print(f"{runtime} is not installed")
            continue
        shown = []
        first = next((place for place in places if place.exists), None) if native else None
        for place in places:
            state = _problem(place, build, problem_of) or works or ("used" if place == first else "works, not used")
            rows.append({"runtime": runtime, "path": str(place.path), "origin": place.origin, "state": state})
            shown.append((str(place.path), f"{state}; {place.origin}"))
        print_places(f"Libraries for {runtime}, in the order they are looked at", shown, out.console)
    out.emit({"schema": "tmdeploy.plugins/1", "libraries": rows})


def _problem(place: NativeLibrary, build: str, problem_of: Callable[[Path], str | None]) -> str | None:
    """Why a library is not loaded; None if it could be."""
    from tmdeploy.native.trust import checked_library

    if not place.exists:
        return "absent"
    try:
        return problem_of(checked_library(place.path, build=build))
    except EnvironmentMissing as error:
        return f"refused: {error.one_line().partition(' is not loaded: ')[2]}"
