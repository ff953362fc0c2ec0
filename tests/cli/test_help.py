"""Help as it is shown, and completion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tmdeploy_cli.app import COMMANDS, build_app
from typer.main import get_command

from tests.cli.running import run


def _help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, *command: str) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = run(capsys, *command, "--help")
    assert (done.code, done.err) == (0, "")
    return done.out


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_cut_and_nothing_is_noise(
    name: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    shown = _help(capsys, monkeypatch, columns, name)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    for noise in ("<bool>", "<str>", "<path>", "<int", "<float", "<list["):
        assert noise not in shown
    command = get_command(build_app()).commands[name]  # type: ignore[attr-defined]
    flat = " ".join(shown.split())
    for parameter in command.params:
        if parameter.param_type_name == "option":
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"(^|[\s,]){option}(\s|,|$)", shown, re.MULTILINE), option
            words = " ".join((parameter.help or "").split())
            assert words.replace("- ", "-") in flat.replace("- ", "-"), "a long word may be broken at its hyphen"


@pytest.mark.parametrize("columns", [80, 140])
def test_the_list_of_commands_is_whole(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    shown = _help(capsys, monkeypatch, columns)
    assert "..." not in shown.replace("[ARGS]...", "")
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown, re.MULTILINE)
    assert (
        "quantize Quantise a model's linear layers, never its planners, and compare it with the original on other"
        in (" ".join(shown.split()))
    )
    assert "--install-completion" in shown


def test_brackets_are_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    assert "Take uint8 [batch, H, W, 3] pixels" in _help(capsys, monkeypatch, 140, "export")


def _tmdeploy(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    code = f"import tmdeploy_cli; tmdeploy_cli.main({list(arguments)!r})"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **variables},
    )


@pytest.mark.parametrize(
    ("typed", "word", "offered"),
    [("tmdeploy ex", 1, ["export"]), ("tmdeploy bench --min", 2, ["--min-speedup"])],
)
def test_completion_offers_commands_and_options(typed: str, word: int, offered: list[str]):
    done = _tmdeploy(_TMDEPLOY_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(word))
    assert done.stdout.split() == offered, done.stderr


def test_completion_can_be_installed(tmp_path: Path):
    done = _tmdeploy("--install-completion", "bash", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "_TMDEPLOY_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "tmdeploy.sh").read_text()


def test_help_needs_no_rich():
    code = "import sys; sys.argv = ['tmdeploy', 'bench', '--help']\nimport tmdeploy_cli\ntry: tmdeploy_cli.main()\n"
    code += "finally: print('rich.table' in sys.modules, 'torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr.split()[-2:] == ["False", "False"], done.stderr
