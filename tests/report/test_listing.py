import io

import pytest

from tmdeploy.report.console import PlainConsole
from tmdeploy.report.listing import print_facts, print_places, print_states

PATH = "/home/someone/with/a/long/name/.cache/tmdeploy/0.1.0/deep/in/a/folder/of/folders/libtmdeploy_ort.so"


def _console(width: int) -> PlainConsole:
    console = PlainConsole(width=width)
    console.file = io.StringIO()
    return console


def _lines(console: PlainConsole) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 140])
def test_paths_and_commands_stay_whole(width: int):
    console = _console(width)
    rows = [
        ("ONNX Runtime (CPU)", True, "1.31.1, opset 20 model ran", ""),
        (
            "native ops",
            False,
            f"the library {PATH} is not loaded: no checksum",
            "tmdeploy plugins build, or run without",
        ),
    ]
    print_states("Backends", rows, console)
    lines = _lines(console)
    assert lines[0] == "Backends"
    assert " ONNX Runtime (CPU)  yes  1.31.1, opset 20 model ran" in lines
    assert " native ops          no   the library" in "\n".join(lines)
    assert sum(PATH in line for line in lines) == 1
    assert any(line.strip() == "→ tmdeploy plugins build, or run without" for line in lines)
    assert all(len(line) <= width for line in lines if PATH not in line)


def test_places_are_a_line_each():
    console = _console(80)
    print_places("Libraries", [(PATH, "absent; the user's cache"), ("[/bold]x.so", "used")], console)
    assert f" {PATH}" in _lines(console)
    assert "    absent; the user's cache" in _lines(console)
    assert " [/bold]x.so" in _lines(console)


def test_facts_are_aligned():
    console = _console(38)
    print_facts("This machine", [("CPU", "a processor with quite a long name"), ("GPU", "none"), ("x", "")], console)
    assert _lines(console)[2:6] == [" CPU  a processor with quite a long", "      name", " GPU  none", " x    "]
