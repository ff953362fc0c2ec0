"""NVIDIA's real Python bindings, imported without TensorRT: what they have is what our code may call.

The wheels `tensorrt-cu13-bindings` hold no libnvinfer. Their extension module needs nine C functions from it, only when
called; with empty stand-ins for those it imports, and its classes, enums and signatures can be read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fetching import download_wheel, one_at_a_time

_FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "initLibNvInferPlugins"),
)
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
_DUMP = """
import json, sys
module = __import__(sys.argv[1])
def members(owner):
    found = {}
    for base in reversed(owner.__mro__):
        found.update({name: getattr(owner, name).__doc__ or "" for name in vars(base) if not name.startswith("__")})
    found["__init__"] = owner.__init__.__doc__ or ""
    for name, value in vars(owner).items():
        if isinstance(value, type):
            found[name] = ""
            classes[f"{owner.__name__}.{name}"] = members(value)
    return found
classes = {}
for name, value in list(vars(module).items()):
    if isinstance(value, type):
        classes[name] = members(value)
print(json.dumps({"version": module.__version__, "classes": classes}))
"""

Names = dict[str, dict[str, str]]  # class -> member -> docstring, which begins with the signature


def full_bindings(requirement: str) -> Names:
    """Classes of the newest release that fits, such as `==10.13.3.9`. Skips, loudly, where it cannot be had."""
    folder = _cache() / requirement.strip("=<>~").replace(".*", "")
    with one_at_a_time(folder):
        if not (folder / "tensorrt_bindings").is_dir():
            _download(f"tensorrt-cu13-bindings{requirement}", folder)
    major = requirement.strip("=<>~").partition(".")[0]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(_stand_ins(major)), "PYTHONPATH": str(folder)}
    return _dump("tensorrt_bindings", environment)


def rtx_bindings() -> Names:
    """Classes of the installed TensorRT-RTX."""
    return _dump("tensorrt_rtx", dict(os.environ))


def _dump(module: str, environment: dict[str, str]) -> Names:
    done = subprocess.run(
        [sys.executable, "-c", _DUMP, module], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    classes: Names = json.loads(done.stdout)["classes"]
    return classes


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tmdeploy-tests" / "bindings"


def _download(requirement: str, folder: Path) -> None:
    wheel = download_wheel(requirement, folder, "FULL TENSORRT IS NOT CHECKED")
    part = folder / f"part-{os.getpid()}"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(part)
    target = folder / "tensorrt_bindings"
    if not target.exists():
        try:
            (part / "tensorrt_bindings").rename(target)
        except OSError:  # another worker was faster
            assert target.is_dir()
    shutil.rmtree(part, ignore_errors=True)


def _stand_ins(major: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("FULL TENSORRT IS NOT CHECKED: there is no C compiler to make the stand-ins with")
    folder = _cache() / f"stand-ins-{major}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "functions.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in _FUNCTIONS))
    for library in _LIBRARIES:
        name = f"lib{library}.so.{major}"
        if not (folder / name).exists():
            subprocess.run(
                [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)], check=True
            )
    return folder
