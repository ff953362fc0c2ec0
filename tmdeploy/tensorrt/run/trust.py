"""Host code that an engine embeds or its sidecar names, which runs only if the user trusts the engine.

An engine's kernels run on the GPU. A plugin library or a lean runtime inside it, or a library that the sidecar names,
run on the host with all the user's rights, and a checksum says nothing about who wrote a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from tmdeploy.errors import ArtifactError, EnvironmentMissing
from tmdeploy.native.tensorrt import BUILD_COMMAND, TENSORRT_VARIABLE, tensorrt_libraries
from tmdeploy.native.trust import checked_library
from tmdeploy.system.files import sha256
from tmdeploy.tensorrt.record.sidecar import EngineRecord, PluginRecord, build_again

TRUST_VARIABLE = "TMDEPLOY_TRUST_ENGINE"
_IF_TRUSTED = "If you trust where the file is from, pass --trust-engine"


def trust_engines() -> None:
    """Allow engines' host code, in this process and its children."""
    os.environ[TRUST_VARIABLE] = "1"


def engines_are_trusted() -> bool:
    """Whether the user allowed engines' host code."""
    return os.environ.get(TRUST_VARIABLE) == "1"


def has_host_code(record: EngineRecord) -> bool:
    """Whether the engine embeds code that runs on the host, according to its sidecar."""
    return record.options.version_compatible or (record.plugin is not None and record.plugin.embedded)


def check_host_code(path: Path, record: EngineRecord) -> None:
    """Refuse an engine that embeds host code, unless engines are trusted.

    Raises:
        ArtifactError: It embeds host code and is not trusted.
    """
    if has_host_code(record) and not engines_are_trusted():
        what = "a lean runtime" if record.options.version_compatible else "a plugin library"
        raise ArtifactError(f"carries {what}, code that would run as you", path=path, remedy=_IF_TRUSTED)


def find_plugin(path: Path, record: EngineRecord) -> Path | None:
    """The plugin library an engine needs: the user's own or, for a trusted engine, the one its sidecar names.

    Raises:
        EnvironmentMissing: It is missing or refused (`native/trust.py`).
        ArtifactError: It is not the library that the engine was built with.
    """
    wanted = record.plugin
    if wanted is None or wanted.embedded:
        return None
    for place in tensorrt_libraries():
        if place.asked_for and not place.exists:
            raise EnvironmentMissing(f"{TENSORRT_VARIABLE} names {place.path}, which is no file", remedy="Unset it")
        if place.asked_for or (place.exists and _is(place.path, wanted)):
            return _checked(place.path, path, record, wanted)
    name = Path(wanted.path).name
    if not engines_are_trusted():
        raise EnvironmentMissing(
            f"{path}: needs the plugin library '{name}', which is none that {BUILD_COMMAND} made here",
            remedy=f"Name it in {TENSORRT_VARIABLE}. {_IF_TRUSTED}, which takes the library that its sidecar names",
        )
    places = (Path(wanted.path), path.parent / name)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise EnvironmentMissing(
            f"{path}: needs the plugin library '{name}', which is neither in {places[0].parent} nor beside it",
            remedy="Copy it beside the engine, or build with --embed-plugin",
        )
    return _checked(found, path, record, wanted)


def _is(library: Path, wanted: PluginRecord) -> bool:
    try:
        return sha256(library) == wanted.sha256
    except OSError:
        return False


def _checked(library: Path, path: Path, record: EngineRecord, wanted: PluginRecord) -> Path:
    if library.is_file() and not _is(library, wanted):
        raise ArtifactError(
            f"is not the plugin library that {path.name} was built with",
            path=library,
            remedy=f"Bring that one, or build again: {build_again(path, record)}",
        )
    without = "build an engine without it: tmdeploy build --plugins none"
    return checked_library(library, build=BUILD_COMMAND, without=without, stated=wanted.sha256)
