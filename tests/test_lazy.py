"""Remedies name what can be installed: this distribution or this checkout, never another project."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tmdeploy import lazy
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.lazy import DISTRIBUTION, install_command
from tmdeploy.tensorrt.sdk.flavor import Flavor

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text()
# Python 3.10 has no tomllib.
EXTRAS = re.findall(
    r"^(\w+) = \[", PROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0], re.MULTILINE
)

# What pip would take from an index: "NAME[extra]" with an extra of ours, or "pip install ... tmdeploy".
WITH_EXTRA = re.compile(rf"(?<![\w./{{}}-])([A-Za-z][\w.-]*)\[(?:{'|'.join(EXTRAS)})(?:,\w+)*\]")
BARE = re.compile(r"(?:pip3?|uv pip|pipx|uv tool) install\s[^\n`|]*?(?<![\w./-])(tmdeploy[\w-]*)(?![\w/.-])")


def foreign(text: str) -> list[str]:
    """Distributions named as if they were ours."""
    return [name for pattern in (WITH_EXTRA, BARE) for name in pattern.findall(text) if name != DISTRIBUTION]


def test_the_name_is_the_one_of_the_project():
    assert re.search(r'^name = "([\w-]+)"$', PROJECT, re.MULTILINE)[1] == DISTRIBUTION
    assert DISTRIBUTION != "tmdeploy"  # another project on the package index
    assert {"export", "openvino", "tensorrt", "rtx", "dev"} <= set(EXTRAS)
    assert set(lazy._EXTRA.values()) | {flavor.value for flavor in Flavor} <= set(EXTRAS)


def test_no_text_names_another_distribution():
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in files.stdout.split("\0") if name and name != "CHANGELOG.md"]
    texts = [
        path for path in paths if path.suffix in {"", ".py", ".md", ".sh", ".toml", ".yaml", ".yml", ".cpu", ".gpu"}
    ]
    assert len(texts) > 300
    found = {
        str(path.relative_to(ROOT)): names
        for path in texts
        if path.is_file() and path != Path(__file__) and (names := foreign(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'tmdeploy[export]'",
        "pip install tmdeploy",
        "pip install --upgrade tmdeploy and then",
        "needs `tmdeploy[rtx]`",
        "pip install 'tm-deploy[openvino,export]'",
        "pip install tmdeploy-tools",
    ],
)
def test_another_distribution_would_be_found(text: str):
    assert foreign(text)


@pytest.mark.parametrize(
    "text",
    [
        f"pip install '{DISTRIBUTION}[export]'",
        "pip install '.[export]'",
        "pip install 'onnxruntime-gpu[cuda,cudnn]'",
        "pip install dist/tmdeploy_vit-0.1.0-py3-none-any.whl",
        "pip install -e /somewhere/tmdeploy",
    ],
)
def test_what_is_ours_is_not(text: str):
    assert not foreign(text)


def test_a_checkout_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert install_command("openvino") == "pip install -e '.[openvino]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("openvino") == f"pip install -e '{ROOT.resolve()}[openvino]'"


def test_an_installed_wheel_names_its_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lazy, "__file__", str(tmp_path / "site-packages" / "tmdeploy" / "lazy.py"))
    assert install_command("openvino") == f"pip install '{DISTRIBUTION}[openvino]'"
    with pytest.raises(
        EnvironmentMissing, match=rf"needs .*'cuda'\. Install it with: pip install '{DISTRIBUTION}\[rtx\]'"
    ):
        lazy.require("cuda.nothing_of_that_name", purpose="a test")
    with pytest.raises(EnvironmentMissing, match=r"Install it with: pip install nothing_of_that_name"):
        lazy.require("nothing_of_that_name", purpose="a test")
