import io
import sys
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

import tmdeploy
from tmdeploy.report.console import PlainConsole
from tmdeploy.report.tables.table import facts_table, plain_table
from tmdeploy.report.text import never_fail_to_print, one_line, printable, styled

NASTY = "[/bold] [unused0] [x].png :smile: \x1b[31m\x9b2J\x07\u202egnp\udce9"
SHOWN = r"[/bold] [unused0] [x].png :smile: \x1b[31m\x9b2J\x07\u202egnp\udce9"


def test_what_files_hold_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]):
    console = PlainConsole(width=200)
    table, facts = plain_table(NASTY), facts_table(NASTY)
    table.add_column(NASTY)
    table.add_row(NASTY)
    table.add_row(styled(NASTY, (NASTY, "bold")))
    facts.add_row(NASTY, NASTY)
    foreign = Table(title=NASTY)
    foreign.add_column(NASTY)
    for thing in (NASTY, styled((NASTY, "red"), NASTY), table, facts, foreign):
        console.print(thing)
    console.rule(NASTY)
    printed = capsys.readouterr().out
    assert printed.count(SHOWN) == 14
    assert not set(printed) & set("\x1b\x9b\x07\u202e\udce9")


def test_a_style_that_was_asked_for_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    console = PlainConsole()
    console.file = stream
    console.print(styled(("FAILED", "red"), ": [red]"))
    assert stream.getvalue() == "\x1b[31mFAILED\x1b[0m: [red]\n"


def test_text_of_one_row_has_no_breaks():
    assert printable("a\tb\nc\r") == "a\tb\nc\\r"
    assert one_line("a\tb\nc") == r"a\tb\nc"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_letters_gets_others(encoding: str, monkeypatch: pytest.MonkeyPatch):
    raw = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding))
    never_fail_to_print()
    print("197 → 189 ≤ 1…, 日本")
    sys.stdout.flush()
    assert raw.getvalue() == rb"197 -> 189 <= 1..., \u65e5\u672c" + b"\n"


def test_every_console_is_the_plain_one_and_no_sentence_has_markup():
    """Whoever adds a console or markup opens the door to file names that are obeyed."""
    for folder in (Path(tmdeploy.__file__).parent, Path(tmdeploy.__file__).parents[1] / "cli"):
        for path in folder.rglob("*.py"):
            source = path.read_text()
            for forbidden in (" Console(", "rich.markup", "markup=True", '"[/', "from_markup"):
                assert forbidden not in source or path.name == "console.py", (path, forbidden)
            assert "TextColumn(" not in source or "markup=False" in source, path


def test_progress_shows_names_as_they_are():
    console = PlainConsole()
    console.file = stream = io.StringIO()
    with Progress(TextColumn("{task.description}", markup=False), console=console) as display:
        display.add_task(printable(NASTY))
    assert SHOWN in stream.getvalue()
