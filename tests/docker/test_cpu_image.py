"""docker/Dockerfile.cpu: built, looked into, and used as its users would."""

from __future__ import annotations

import csv
import json
import re
import signal
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from packaging.utils import canonicalize_name

from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.data.images import ImageReader, find_images
from tmdeploy.lazy import DISTRIBUTION

from .conftest import CONFINED, Image, outside
from .podman import ROOT
from .test_dockerfiles import DOCKER, locked

_LOGITS = """
import json, sys
from pathlib import Path
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.data.images import ImageReader, find_images
runner = OnnxRuntimeRunner(Path("/data/digits.onnx"))
batches = ImageReader(find_images(["/data/digits"]), runner.preprocessing, in_graph=runner.pixels_in).batches(8)
images = [batch.images for batch in batches]
print(json.dumps([[runner.infer(batch, r).tolist() for batch in images] for r in (None, [0] * runner.schedule_length)]))
"""
# Every file of the image that could build something, wherever it is.
_BUILDERS = """
import os, re
tools = "cc|c[+][+]|gcc|g[+][+]|clang|clang[+][+]|cpp|cc1|cc1plus|ld|as|ar|make|cmake|ninja|nvcc|rustc|tcc"
name = re.compile("(.*-)?(" + tools + ")(-[0-9.]+)?")
for folder, _, files in os.walk("/"):
    if not folder.startswith(("/proc", "/sys")):
        for file in files:
            path = os.path.join(folder, file)
            if name.fullmatch(file) and os.access(path, os.X_OK):
                print(path)
"""
_DISTRIBUTIONS = """
import importlib.metadata, json, sysconfig
found = {}
for d in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
    size = sum(f.locate().stat().st_size for f in d.files or () if f.locate().is_file())
    found[d.metadata["Name"]] = [d.version, size]
print(json.dumps(found))
"""


def mounted(data: Path, mode: str = "ro") -> tuple[str, ...]:
    return ("--volume", f"{data}:/data:{mode}")


def test_it_is_small(cpu: Image, base: Image, fact: Callable[[str], None]) -> None:
    fact(f"CPU image: {cpu.megabytes:.0f} MB, of it the stand-in base {base.megabytes:.0f} MB")
    assert base.megabytes < cpu.megabytes < 400


def test_its_description(cpu: Image) -> None:
    assert cpu.inspect("{{.User}}") == "10001:10001"
    assert cpu.inspect("{{json .Config.Entrypoint}}") == '["tmdeploy"]'
    assert "doctor" in cpu.inspect("{{json .HealthCheck}}")
    version = cpu.inspect('{{index .Labels "org.opencontainers.image.version"}}')
    assert cpu.run("--version").stdout.strip() == f"tmdeploy {version}"
    assert cpu.inspect('{{index .Labels "org.opencontainers.image.licenses"}}') == "Apache-2.0"


def test_no_compiler_is_in_it(cpu: Image, base: Image) -> None:
    assert cpu.python(_BUILDERS).split() == []
    planted = "import os; open('/tmp/gcc-12', 'w').close(); os.chmod('/tmp/gcc-12', 0o755)\n"
    assert cpu.python(planted + _BUILDERS, options=("--tmpfs", "/tmp")).split() == ["/tmp/gcc-12"]


def test_its_packages_are_the_locked_ones(cpu: Image, fact: Callable[[str], None]) -> None:
    found = json.loads(cpu.python(_DISTRIBUTIONS))
    sizes = sorted(((size, name, version) for name, (version, size) in found.items()), reverse=True)
    fact("in /opt/venv: " + ", ".join(f"{name} {version} ({size / 1e6:.1f} MB)" for size, name, version in sizes))
    allowed = {(canonicalize_name(pin.name), str(pin.specifier)) for pin in locked(DOCKER / "requirements" / "cpu.txt")}
    installed = {
        (canonicalize_name(name), f"=={version}") for name, (version, _) in found.items() if name != DISTRIBUTION
    }
    assert DISTRIBUTION in found
    assert installed <= allowed
    assert not {"torch", "pip", "setuptools"} & set(found)


def test_nothing_of_the_build_is_left(cpu: Image) -> None:
    places = ("/etc/pip.conf", "/build", "/src", "/native", "/root/.cache/pip")
    assert cpu.python(f"import os; print([p for p in {places} if os.path.exists(p)])").strip() == "[]"
    history = cpu.podman("history", "--no-trunc", cpu.name).stdout
    assert "index-url" not in history
    assert (
        cpu.python("import os; print(os.path.isdir('/run/secrets') and os.listdir('/run/secrets') or [])").strip()
        == "[]"
    )


def test_the_native_library_is_in_it_once_there_is_one(cpu: Image, fact: Callable[[str], None]) -> None:
    code = "import tmdeploy, pathlib; print(*pathlib.Path(tmdeploy.__file__).parent.glob('native/lib/*_ort.so'))"
    found = cpu.python(code).split()
    fact(f"native library: {found[0] if found else 'none (plugins/ has no CMakeLists.txt)'}")
    assert bool(found) == (ROOT / "plugins" / "CMakeLists.txt").exists()


def test_it_runs_as_nobody_where_nothing_is_writable(cpu: Image) -> None:
    code = """
import os, socket
print(os.getuid(), os.getgid())
for path in ("/x", "/opt/venv/x", "/data/x", "/tmp/x"):
    try:
        open(path, "w")
    except OSError as error:
        print(error.strerror)
print([name for _, name in socket.if_nameindex()])
"""
    uid, *errors, interfaces = cpu.python(code).splitlines()
    assert uid == "10001 10001"
    assert errors == ["Read-only file system"] * 4
    assert interfaces == "['lo']"


def test_infer_says_what_it_says_outside(cpu: Image, data: Path) -> None:
    inside = cpu.run("infer", "digits.onnx", "digits", "--json", "-", "--quiet", options=mounted(data))
    assert (inside.returncode, inside.stderr) == (0, "")
    here = json.loads(outside("infer", "digits.onnx", "digits", "--json", "-", "--quiet", cwd=data).stdout)
    there = json.loads(inside.stdout)
    assert [image["path"] for image in there["images"]] == [image["path"] for image in here["images"]]
    assert len(there["images"]) == len(list((data / "digits").glob("*.png")))
    for ours, theirs in zip(here["images"], there["images"], strict=True):
        assert theirs["top"][0]["index"] == ours["top"][0]["index"]
        probabilities = {entry["index"]: entry["probability"] for entry in ours["top"]}
        for entry in theirs["top"]:
            assert entry["probability"] == pytest.approx(probabilities.get(entry["index"], -1.0), abs=1e-5)


def test_its_logits_are_those_outside(cpu: Image, data: Path, fact: Callable[[str], None]) -> None:
    runner = OnnxRuntimeRunner(data / "digits.onnx")
    paths = find_images([str(data / "digits")])
    reader = ImageReader(paths, runner.preprocessing, in_graph=runner.pixels_in)
    batches = [batch.images for batch in reader.batches(8)]
    inside = json.loads(cpu.python(_LOGITS, options=mounted(data)))
    answers = []
    for schedule, theirs in zip((None, [0] * runner.schedule_length), inside, strict=True):
        ours = np.concatenate([runner.infer(batch, schedule) for batch in batches])
        logits = np.concatenate([np.asarray(batch, np.float32) for batch in theirs])
        answers.append(ours)
        assert logits.shape == ours.shape == (len(paths), 10)
        np.testing.assert_allclose(logits, ours, rtol=0, atol=1e-4)
        which = "as exported" if schedule is None else "0"
        fact(f"logits inside against outside, r {which}: largest difference {np.abs(logits - ours).max():.1e}")
    assert np.abs(answers[0] - answers[1]).max() > 1e-2  # so 1e-4 tells models apart


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("infer", "nowhere.onnx", "digits"), 4, "nowhere.onnx: no such file"),
        (("infer", "truncated.onnx", "digits"), 4, "truncated.onnx: is no ONNX file, or a truncated one"),
        (("infer", "digits.onnx", "nowhere.png"), 4, "nowhere.png: no such file"),
        (("infer", "digits.onnx", "broken.png"), 4, "broken.png: cannot be read as an image"),
        (("infer", "digits.onnx", "digits/3_0.png", "broken.png", "--json", "-"), 0, "1 of 2 images skipped"),
        (("infer", "digits.onnx", "digits", "--schedule", "-1"), 2, "cannot be negative"),
    ],
    ids=["missing model", "broken model", "missing image", "broken image", "one broken of two", "usage"],
)
def test_its_errors_are_those_outside(
    cpu: Image, data: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    inside = cpu.run(*arguments, options=mounted(data))
    assert inside.returncode == code, inside.stderr
    assert message in inside.stderr
    here = outside(*arguments, cwd=data, check=False)
    assert (here.returncode, _messages(here.stderr)) == (inside.returncode, _messages(inside.stderr))


def _messages(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("error:", "warning:"))]


def test_without_torch_export_says_so(cpu: Image, data: Path) -> None:
    done = cpu.run("export", "digits.onnx", options=mounted(data))
    assert done.returncode == 3
    assert "torch" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_files_belong_to_the_caller(cpu: Image, data: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    options = (*mounted(data), "--volume", f"{tmp_path}:/out:rw", "--user", "4242:4343")
    done = cpu.run(
        "infer", "digits.onnx", "digits/3_0.png", "--csv", "/out/a.csv", "--json", "/out/a.json", options=options
    )
    assert done.returncode == 0, done.stderr
    written = sorted(path for path in tmp_path.iterdir())
    assert [(path.name, path.stat().st_uid, path.stat().st_gid) for path in written] == [
        ("a.csv", 4242, 4343),
        ("a.json", 4242, 4343),
    ]
    with (tmp_path / "a.csv").open() as file:
        assert next(csv.DictReader(file))
    tmp_path.chmod(0o755)
    refused = cpu.run("infer", "digits.onnx", "digits/3_0.png", "--csv", "/out/b.csv", options=options)
    assert refused.returncode == 4
    assert "/out" in refused.stderr


def test_validate_compares_two_onnx_files(cpu: Image, data: Path) -> None:
    same = cpu.run("validate", "digits.onnx", "digits.onnx", "--data", "digits", "--json", "-", options=mounted(data))
    assert same.returncode == 0, same.stderr
    document = json.loads(same.stdout)
    assert document["schema"].startswith("tmdeploy.validate/")
    assert document["passed"] is True


def test_bench_times_where_nothing_is_writable(cpu: Image, data: Path) -> None:
    command = ("bench", "digits.onnx", "--batch", "1", "--duration", "100ms", "--json", "-")
    done = cpu.run(*command, options=mounted(data))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"].startswith("tmdeploy.bench/")


def test_sigterm_ends_it(cpu: Image, data: Path) -> None:
    options = [option for option in CONFINED if option != "--rm"]
    command = ("bench", "digits.onnx", "--duration", "300s", "--no-memory")
    container = cpu.podman("run", "--detach", *options, *mounted(data), cpu.name, *command).stdout.strip()
    try:
        deadline = monotonic() + 30
        while not _catches_sigterm(cpu.podman("exec", container, "cat", "/proc/1/status", check=False).stdout):
            assert monotonic() < deadline
        sleep(3)  # while it imports extension modules, an exit becomes their ImportError
        start = monotonic()
        cpu.podman("stop", "--time", "30", container)
        assert monotonic() - start < 25  # else it was killed
        code = cpu.podman("inspect", container, "--format", "{{.State.ExitCode}}").stdout.strip()
        assert code == "143", cpu.podman("logs", container).stderr
    finally:
        cpu.podman("rm", "--force", "--time", "1", container)


def _catches_sigterm(status: str) -> bool:
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_its_health_check_tells_health(cpu: Image) -> None:
    options = ("--read-only", "--network", "none", "--entrypoint", "sleep")
    container = cpu.podman("run", "--detach", *options, cpu.name, "120").stdout.strip()
    try:
        assert cpu.podman("healthcheck", "run", container, check=False).returncode == 0
    finally:
        cpu.podman("rm", "--force", "--time", "1", container)
    # with a package gone, the same command fails
    hidden = "import sys; sys.modules['onnxruntime'] = None; from tmdeploy_cli import main; main(['--quiet', 'doctor'])"
    done = cpu.run("-c", hidden, options=("--entrypoint", "python"))
    assert done.returncode == 3, done.stderr


def test_its_start_up_time(cpu: Image, data: Path, fact: Callable[[str], None]) -> None:
    arguments = ("infer", "digits.onnx", "digits/3_0.png")

    def inside() -> subprocess.CompletedProcess[str]:
        return cpu.run(*arguments, options=mounted(data))

    def nothing() -> subprocess.CompletedProcess[str]:
        return cpu.run(options=("--entrypoint", "true"))

    def here() -> subprocess.CompletedProcess[str]:
        return outside(*arguments, cwd=data)

    times: dict[str, list[float]] = {"inside": [], "container": [], "outside": []}
    for _ in range(6):
        for name, call in (("inside", inside), ("container", nothing), ("outside", here)):
            start = monotonic()
            assert call().returncode == 0
            times[name].append(monotonic() - start)
    median = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first warms file caches
    ratio = median["inside"] / median["outside"]
    fact(
        f"infer, one image, whole process, median of 5: inside {median['inside']:.2f} s, "
        f"outside {median['outside']:.2f} s, ratio {ratio:.2f}; an empty container {median['container']:.2f} s"
    )
