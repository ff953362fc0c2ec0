"""Reading and writing files of torch.save: `.pt`, `.pth`."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tmdeploy.card.card import ModelCard
from tmdeploy.errors import CheckpointError
from tmdeploy.models.content import is_pickle, is_zip, not_a_checkpoint, read_head
from tmdeploy.models.document import FORMAT, dump, own_entries, parse
from tmdeploy.models.formats import Contents

_AGAIN = "Get the file again"
_TRUST = "Save model.state_dict() instead, or, if you trust where the file is from, pass --trust-checkpoint"


class _Record:
    """Stand-in for a class that only records options beside the weights: accepts any arguments and keeps none."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        """Ignore the pickled state."""


# Beside its weights a checkpoint keeps the options of its training script. A Namespace only holds attributes: making
# one runs no code of the file's choosing. Neither does a stand-in for the classes in which Lightning, OmegaConf and
# yacs keep options; it is taken whether or not those packages are installed.
_MAPPINGS = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
)
_RECORDS = (
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "types.SimpleNamespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.Path",
    "pathlib._local.PosixPath",
    # a numpy scalar, such as the best accuracy so far
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
_HARMLESS: list[Any] = [
    argparse.Namespace,
    *((_Record, name) for name in _RECORDS),
    *((OrderedDict, name) for name in _MAPPINGS),
]
# The magic number that torch older than 1.6 pickled first.
_OLD_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_UNCOMPRESSED_SLACK = 1 << 20


def read(path: Path, *, trust: bool) -> Contents:
    """Read a file of torch.save.

    Args:
        path: The file.
        trust: Unpickle anything, which runs whatever code the file holds. Without it only weights are unpickled.

    Raises:
        CheckpointError: It is no such file, damaged, or holds more than weights.
    """
    head = read_head(path)
    if is_zip(head):
        _check_archive(path)
    elif not is_pickle(head):
        raise not_a_checkpoint(path, head)
    elif _OLD_MAGIC not in head[:64]:
        raise CheckpointError("is a pickle, but not one of torch.save", path=path, remedy="Save it with torch.save")
    held = _load_trusted(path) if trust else _load_weights(path)
    if isinstance(held, Mapping) and held.get("format") == FORMAT:
        return Contents(held.get("state_dict"), parse(own_entries(held), path))
    return Contents(held)


def write(path: Path, state_dict: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write tmdeploy's own `.pt`, which `weights_only=True` can read."""
    torch.save({**dump(card), "state_dict": dict(state_dict)}, path)


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise CheckpointError(
            "is truncated or damaged: its zip archive does not end", path=path, remedy=_AGAIN
        ) from None
    names = [member.filename for member in members]
    if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        some = ", ".join(names[:3]) or "nothing"
        raise CheckpointError(
            f"is a zip archive, but not one of torch.save (it holds {some})",
            path=path,
            remedy="Give a .pt, .pth or .safetensors file",
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            "is a TorchScript archive", path=path, remedy="Save the state_dict of the model it was made from"
        )
    # torch.save does not compress, so a file that grows when read is not its own
    if sum(member.file_size for member in members) > path.stat().st_size + _UNCOMPRESSED_SLACK:
        raise CheckpointError(
            "is a compressed zip archive, which torch.save does not write", path=path, remedy="Save it again"
        )


def _load_weights(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(list(_HARMLESS)):
            return _load(path, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(str(error), path) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(error, path) from None


def _load_trusted(path: Path) -> object:
    try:
        return _load(path, weights_only=False)
    except (ModuleNotFoundError, AttributeError) as error:
        raise CheckpointError(
            f"its pickle needs code that is not here ({error})",
            path=path,
            remedy="Install that package, or save model.state_dict() where it is installed",
        ) from None
    except Exception as error:
        raise _damaged(error, path) from None


def _load(path: Path, *, weights_only: bool) -> object:
    with warnings.catch_warnings(), path.open("rb") as stream:
        warnings.simplefilter("ignore")  # torch's own warning about storages of old files
        return torch.load(stream, map_location="cpu", weights_only=weights_only)


def _refusal(message: str, path: Path) -> CheckpointError:
    found = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", message)
    if found is None:
        found = re.search(r"reduce for unrecognized function (.+)", message)
    if found is not None:
        return CheckpointError(
            f"refused: besides weights, its pickle asks for {found[1]}, which could run code", path=path, remedy=_TRUST
        )
    reason = message.rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    return CheckpointError(f"is damaged, or holds more than weights ({reason})", path=path, remedy=_TRUST)


def _damaged(error: Exception, path: Path) -> CheckpointError:
    reason = str(error).strip().partition("\n")[0][:120]
    detail = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return CheckpointError(f"is truncated or damaged ({detail})", path=path, remedy=_AGAIN)
