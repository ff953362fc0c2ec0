"""Whether two versions of tmdeploy write the same files: graphs byte for byte, engines' kernels, metadata, reports.

Makes a matrix of small artifacts (`artifacts/matrix.py`: every method, every value of its options, every form of a
file, engines of TensorRT-RTX) with the `tmdeploy` of the Python that runs it, and stores what is in them without what
varies from run to run. For a change that must not change behaviour:

    python scripts/same_artifacts.py snapshot /tmp/old              # before
    python scripts/same_artifacts.py snapshot /tmp/new              # after
    python scripts/same_artifacts.py compare /tmp/old /tmp/new      # exit code 1 if a graph or a kernel listing differs
    python scripts/same_artifacts.py reread /tmp/old                # the new version, on files of the old one

Needs the extras `export`, `rtx`, `openvino`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.printer
from artifacts.checkpoints import write_checkpoints
from artifacts.matrix import Case, cases

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
GROUPS = ("graphs", "kernels", "metadata", "reports", "pictures", "text")
DECISIVE = ("graphs", "kernels")
SNAPSHOT = "snapshot.json"
VARIES = "~"
# What a clock or the machine's load decides.
_MEASURED = re.compile(
    r".*_ms|.*seconds|date|load_(before|after)|cv|calls|images_per_s|(peak|model)_mib|builder_peak_\w+|stable_warm_up|realised"
)
_MEASURED_IN_BENCH = re.compile(r"median|low|high|decided|value|percentiles|passed")
_DOUBTS = re.compile(r"the machine was busy|noisy: |warm-up ended|.* (vary|varies) by ")
_PRINTED = re.compile(r"\d+\.\d+|[0-9a-f]{12,}")  # times, sizes and hashes; columns are as wide as those
_NUMBERED = re.compile(r"__mye\d+")  # TensorRT numbers the graphs of a process
_Json = Any


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("snapshot", help="make the artifacts, and store what is in them")
    one.add_argument("out", type=Path)
    two = commands.add_parser("compare", help="print every difference of two snapshots")
    two.add_argument("old", type=Path)
    two.add_argument("new", type=Path)
    three = commands.add_parser("reread", help="run the commands that read on the files of a snapshot")
    three.add_argument("old", type=Path)
    for command in (two, three):
        command.add_argument("--text", action="store_true", help="also compare what is printed")
    arguments = parser.parse_args()
    if arguments.command == "snapshot":
        return snapshot(arguments.out.resolve())
    if arguments.command == "compare":
        code = compare(_load(arguments.old), _load(arguments.new), text=arguments.text)
        explain_graphs(arguments.old, arguments.new)
        return code
    return reread(arguments.old.resolve(), text=arguments.text)


def snapshot(out: Path) -> int:
    """Make all artifacts in `out/files`, and write `out/snapshot.json`."""
    shutil.rmtree(out, ignore_errors=True)
    files = out / "files"
    files.mkdir(parents=True)
    shutil.copytree(EXAMPLES / "digits", files / "digits")
    shutil.copy(EXAMPLES / "digits_tome.pt", files)
    write_checkpoints(files)
    os.chdir(files)
    command = _command()
    _forked(lambda: command(["methods", "--json", "methods.json"]), "methods")
    matrix = list(cases(json.loads(Path("methods.json").read_text())["methods"]))
    _warm_up(command)
    code, printed = _forked(_export_modules, "api")
    if code:
        raise SystemExit(printed)
    stored = _empty()
    _run(matrix, command, stored)
    _read_files(stored, files)
    (out / SNAPSHOT).write_text(json.dumps(stored, indent=1, sort_keys=True))
    print(f"{out}: " + ", ".join(f"{len(stored[group])} {group}" for group in GROUPS))
    return 0


def reread(old: Path, *, text: bool) -> int:
    """Whether this version makes of the old files what the old version made of them."""
    before = _load(old)
    with tempfile.TemporaryDirectory(prefix="same-artifacts-") as temporary:
        files = Path(temporary).resolve()
        shutil.copytree(old / "files", files, dirs_exist_ok=True)
        os.chdir(files)
        every = cases(json.loads(Path("methods.json").read_text())["methods"])
        matrix = [case for case in every if case.reads_our_files]
        stored = _empty()
        command = _command()
        _warm_up(command)
        for reads in (True, False):  # those that write models replace the old ones
            chosen = [case for case in matrix if case.reads is reads]
            for path in [path for case in chosen for path in files.glob(f"{case.name}.*")]:
                path.unlink()
            _run(chosen, command, stored)
        _read_files(stored, files, old / "files")
    names = {case.name for case in matrix}
    print(f"{old}: {len(names)} commands on its files")
    kept, found = (
        {group: {key: value for key, value in one[group].items() if _case_of(key) in names} for group in one}
        for one in (before, stored)
    )
    return compare(kept, found, text=text)


def _case_of(key: str) -> str:
    """`tome.plan.json` and `tome/0.png` to `tome`."""
    return re.split(r"/|\.", key)[0]


def compare(old: Mapping[str, _Json], new: Mapping[str, _Json], *, text: bool) -> int:
    """Print the differences, alike ones together; 1 if a graph or a kernel listing differs or is gone."""
    decisive = False
    for group in ("codes", *GROUPS):
        if group not in old or (group == "text" and not text):
            continue
        before, after = old[group], new[group]
        same = [name for name in before if name in after and before[name] == after[name]]
        differing = [name for name in before if name in after and before[name] != after[name]]
        gone, added = [name for name in before if name not in after], [name for name in after if name not in before]
        counts = f"{len(same)} of {len(before)} the same"
        print(f"== {group}: {counts}, {len(differing)} differ, {len(gone)} gone, {len(added)} new")
        for what, names in (("gone", gone), ("new", added)):
            if names:
                print(f"   {what}: {', '.join(names)}")
        alike: dict[tuple[str, str], list[tuple[str, str]]] = collections.defaultdict(list)
        for name in differing:
            for where, what, example in _differences(before[name], after[name]):
                alike[where, what].append((name, example))
        for (where, what), found in sorted(alike.items()):
            names = list(dict.fromkeys(name for name, _ in found))
            some = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            print(f"   {what} {where or 'value'} in {len(names)} ({some}): {found[0][1]}")
        decisive |= group in DECISIVE and bool(differing or gone)
    return int(decisive)


def _differences(old: _Json, new: _Json, where: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two documents differ, with list indices as `*`; what kind of difference; an example."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            inside = f"{where}.{key}" if where else key
            if key not in new:
                yield inside, "lost", _short(old[key])
            elif key not in old:
                yield inside, "gained", _short(new[key])
            else:
                yield from _differences(old[key], new[key], inside)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"the length of {where}", "changed", f"{len(old)} -> {len(new)}"
        for first, second in zip(old, new, strict=False):
            yield from _differences(first, second, f"{where}[*]")
    elif old != new or type(old) is not type(new):
        yield where, "changed", f"{_short(old)} -> {_short(new)}"


def explain_graphs(old: Path, new: Path) -> None:
    """Print the first line in which each graph that differs does so."""
    before, after = _load(old)["graphs"], _load(new)["graphs"]
    for name in (name for name in before if before[name] != after.get(name, before[name])):
        texts = []
        for folder in (old, new):
            model = onnx.load(folder / "files" / name)
            del model.metadata_props[:]
            texts.append(onnx.printer.to_text(model).splitlines())
        pairs = itertools.zip_longest(*texts, fillvalue="(nothing)")
        first, second = next(
            (pair for pair in pairs if len(set(pair)) > 1), ("the same text", "another order of bytes")
        )
        print(f"   {name}: {len(texts[0])} lines, now {len(texts[1])}: {first.strip()[:300]} -> {second.strip()[:300]}")


def _short(value: _Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _load(folder: Path) -> dict[str, _Json]:
    stored: dict[str, _Json] = json.loads((folder / SNAPSHOT).read_text())
    return stored


# Running


def _command() -> Callable[[Sequence[str]], object]:
    """The `tmdeploy` that is installed for this Python."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="tmdeploy")
    main_function: Callable[[Sequence[str]], object] = script.load()
    return main_function


def _empty() -> dict[str, dict[str, _Json]]:
    return {group: {} for group in ("codes", *GROUPS)}


def _run(
    matrix: Sequence[Case], command: Callable[[Sequence[str]], object], stored: dict[str, dict[str, _Json]]
) -> None:
    """Run every case in a child of its own; store exit codes, and what they print."""
    for number, case in enumerate(matrix, 1):
        started = time.monotonic()
        code, printed = _forked(lambda argv=case.argv: command(argv), *case.argv)  # type: ignore[misc]
        stored["codes"][case.name] = code
        if case.argv[0] != "bench":  # which prints times
            stored["text"][case.name] = printed
        seconds = time.monotonic() - started
        print(f"{number}/{len(matrix)} {case.name}: exit code {code}, {seconds:.1f} s", file=sys.stderr)


def _forked(work: Callable[[], object], *argv: str) -> tuple[int, str]:
    """Do it in a child process, which starts with all that is loaded here: its exit code, and what it printed."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.environ["COLUMNS"] = "120"
            sys.argv = ["tmdeploy", *argv]
            os._exit(_exit_code(work))
        _, status = os.waitpid(child, 0)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(status), printed


def _exit_code(work: Callable[[], object]) -> int:
    try:
        work()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _warm_up(command: Callable[[Sequence[str]], object]) -> None:
    """Export once: what that loads, every child then has."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        code = _exit_code(lambda: command(["export", "own.pt", "-o", "warm.onnx", "--no-verify"]))
    if code:
        raise SystemExit(f"the first export failed with exit code {code}: is everything installed?")
    Path("warm.onnx").unlink()


def _export_modules() -> None:
    """The Python API: modules of the user's own (`owner.py`), patched and exported; and saved as a checkpoint."""
    import torch

    import tmdeploy
    from tmdeploy.models.checkpoint import save_checkpoint
    from tmdeploy.patching import reduction_of

    sys.path.append(os.getcwd())
    owner = importlib.import_module("owner")
    model = tmdeploy.patch(owner.loaded(), "tome", r=5)
    save_checkpoint("saved.pt", model, recipe=reduction_of(model).recipe, class_names="abcdefghij")
    tmdeploy.export(model, "api.onnx", extra_output=["plan"])
    odd = tmdeploy.patch(owner.loaded(torch.nn.Hardswish()), "evit", layers=[0, 1], keep=0.6)
    tmdeploy.export(odd, "facts.onnx", name="odd")


# What is in the files


def _read_files(stored: dict[str, dict[str, _Json]], files: Path, *more: Path) -> None:
    """Fill in the groups from what lies in the folder; `more` folders hold files of the same names."""
    hashes = {
        hashlib.sha256(path.read_bytes()).hexdigest(): f"sha256 of {name}"
        for folder in (*more, files)
        for name, path in _paths(folder)
    }
    plain = _Plain(files, hashes)
    for name, path in _paths(files):
        if path.suffix == ".onnx":
            model = onnx.load(path)
            texts = {entry.key: entry.value for entry in model.metadata_props}
            del model.metadata_props[:]
            stored["graphs"][name] = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
            stored["metadata"][name] = {
                key: plain.json(json.loads(text)) if text.startswith("{") else text for key, text in texts.items()
            }
        elif name.endswith(".plan.layers.json"):
            stored["kernels"][name] = plain.json(json.loads(path.read_text()))
        elif name.endswith(".plan.json"):
            record = plain.json(json.loads(path.read_text()))
            stored["kernels"][name] = record.pop("kernels")
            stored["metadata"][name] = record
        elif name == "saved.pt":
            stored["metadata"][name] = _description(path)
        elif path.suffix == ".json":
            stored["reports"][name] = plain.json(json.loads(path.read_text()))
        elif path.suffix == ".csv":
            stored["reports"][name] = path.read_text()
        elif path.suffix == ".png":
            stored["pictures"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name, printed in stored["text"].items():
        stored["text"][name] = re.sub("[ ─]+", " ", _PRINTED.sub(" ", plain.text(printed)))


def _paths(folder: Path) -> list[tuple[str, Path]]:
    """All files but the images that were there before, with their names."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return sorted((name, path) for name, path in found.items() if not name.startswith("digits/"))


def _description(path: Path) -> _Json:
    """A checkpoint of tmdeploy's own without its weights, which are counted."""
    import torch

    held = torch.load(path)
    weights = held.pop("state_dict")
    return {**held, "weights": sum(tensor.double().sum().item() for tensor in weights.values())}


def _checkout() -> str:
    """Where this Python finds tmdeploy."""
    found = importlib.util.find_spec("tmdeploy")
    return str(Path(str(found and found.origin)).resolve().parents[1])


class _Plain:
    """Documents without what varies: times, names of folders, and hashes of files that hold metadata."""

    def __init__(self, files: Path, hashes: Mapping[str, str]) -> None:
        caches = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        self.folders = {str(files): "FILES", caches: "CACHE", sys.prefix: "PYTHON", _checkout(): "CHECKOUT"}
        self.hashes = hashes

    def text(self, text: str) -> str:
        for folder, name in self.folders.items():
            text = text.replace(folder, name)
        return _NUMBERED.sub("__mye", self.hashes.get(text, text))

    def json(self, value: _Json, *, bench: bool = False) -> _Json:
        if isinstance(value, dict):
            bench = bench or str(value.get("schema", "")).startswith("tmdeploy.bench")
            return {
                key: VARIES if self._varies(key, inside, bench) else self.json(inside, bench=bench)
                for key, inside in value.items()
            }
        if isinstance(value, list):
            kept = [one for one in value if not (bench and isinstance(one, str) and _DOUBTS.match(one))]
            return [self.json(one, bench=bench) for one in kept]
        return self.text(value) if isinstance(value, str) else value

    @staticmethod
    def _varies(key: str, value: _Json, bench: bool) -> bool:
        if value is None:
            return False
        if key == "bytes":  # of a file that holds its metadata
            return True
        if bench and isinstance(value, float) and key == "ratio":  # of the gate; an arm's is a document
            return True
        return bool(_MEASURED.fullmatch(key) or (bench and _MEASURED_IN_BENCH.fullmatch(key)))


if __name__ == "__main__":
    sys.exit(main())
