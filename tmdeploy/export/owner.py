"""The owner's own model behind `--against`: found by name, given the checkpoint's weights, run on images."""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tmdeploy.card.arch import VitConfig
from tmdeploy.errors import EnvironmentMissing, ExportError, UsageError
from tmdeploy.lazy import require
from tmdeploy.models.checkpoint import LoadedCheckpoint, misfit

Builder = Callable[[], object]
Originals = Callable[[], Mapping[str, Tensor]]
Kind = Literal["module", "timm", "transformers"]
FORMS = "a module as pkg.mod:build, timm:NAME, transformers:FOLDER, or a file of outputs.npz"
_BATCH = 4  # images at a time


@dataclass(frozen=True, eq=False)
class Owner:
    """A model that the checkpoint's owner says is theirs.

    Attributes:
        kind: Where it is from.
        name: As the user wrote it.
        module: In eval mode, float32, on the CPU.
        weights: `checkpoint`: it was given the checkpoint's; `own`: it came with weights.
        preprocessing: What it says about its input: any of `mean`, `std`, `crop_pct`, `interpolation`.
    """

    kind: Kind
    name: str
    module: nn.Module
    weights: Literal["checkpoint", "own"]
    preprocessing: Mapping[str, object] = field(default_factory=dict)

    def logits(self, images: NDArray[np.float32], config: VitConfig) -> NDArray[np.float32]:
        """Run it.

        Args:
            images: f32 [B, channels, H, W], normalised.
            config: Architecture of our model: how many outputs to expect, and how features are pooled.

        Returns:
            Logits f32 [B, classes]; features [B, width] of a model without a head.

        Raises:
            ExportError: It fails, or returns something else.
        """
        rows = []
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                batch = torch.from_numpy(images[start : start + _BATCH])
                try:
                    output = self.module(batch)
                except Exception as error:
                    raise _failed(self.name, f"cannot run on images {list(batch.shape)}", error) from error
                rows.append(_outputs(output, config, self.name).float().numpy())
        return np.concatenate(rows)


@contextlib.contextmanager
def open_owner(
    target: str | nn.Module | Builder, loaded: LoadedCheckpoint, *, originals: Originals | None = None
) -> Iterator[Owner]:
    """The model of `--against`; the current directory is importable until the context ends.

    A module that exists keeps its weights. One that a callable builds gets the checkpoint's, strictly, unless it brings
    its own: they are the checkpoint's already, or building it twice gives the same weights, which no initialisation
    does.

    Args:
        target: `pkg.mod:name` (a module, or what builds one without arguments), `timm:NAME`, `transformers:FOLDER`, or
            such a module or callable itself.
        loaded: The checkpoint.
        originals: Reads the weights again by the names in the file, which are seldom needed: timm's come first.

    Raises:
        UsageError: Nothing of that name, or no module.
        EnvironmentMissing: timm or transformers is not installed.
        ExportError: It cannot be built, or the checkpoint's weights do not fit it.
    """
    if not isinstance(target, str):
        yield _from_object(target, "module", _called(target), loaded, originals)
        return
    library, _, name = target.partition(":")
    if library == "timm":
        yield _from_timm(target, name, loaded, originals)
    elif library == "transformers":
        yield _from_transformers(target, name, loaded)
    else:
        with _current_directory_importable():
            yield _from_object(_find(target), "module", target, loaded, originals)


def _called(target: nn.Module | Builder) -> str:
    return str(getattr(target, "__qualname__", type(target).__qualname__))


@contextlib.contextmanager
def _current_directory_importable() -> Iterator[None]:
    """Last on the path, so that nothing in the directory can stand in for an installed package."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.reverse()
            sys.path.remove(here)
            sys.path.reverse()


def _find(target: str) -> nn.Module | Builder:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", target):
        raise UsageError(f"--against {target}: names no model", remedy=f"Give {FORMS}")
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise _failed(target, f"importing {module_name} failed", error) from error
        raise UsageError(
            f"--against {target}: there is no module '{error.name}'",
            remedy="Run from the folder it is in, or put that on PYTHONPATH",
        ) from None
    except (Exception, SystemExit) as error:  # a training script may parse its arguments when it is imported
        raise _failed(target, f"importing {module_name} failed", error) from error
    where = getattr(found, "__file__", None) or "built in"
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(
                f"--against {target}: {module_name} ({where}) has no '{attribute}'",
                remedy="Name a module, or a callable without arguments that builds one",
            )
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"--against {target}: is of type {type(found).__name__}, neither a module nor a callable that builds one"
        )
    return found  # type: ignore[no-any-return]


def _from_object(
    target: nn.Module | Builder, kind: Kind, name: str, loaded: LoadedCheckpoint, originals: Originals | None
) -> Owner:
    if isinstance(target, nn.Module):
        return Owner(kind, name, _as_reference(target), "own", _timm_preprocessing(target))
    module = _build(target, name)
    own = _holds(module, loaded.state_dict) or _same_weights(module, _build(target, name))
    if not own:
        _give_weights(module, loaded, name, originals)
    return Owner(kind, name, _as_reference(module), "own" if own else "checkpoint", _timm_preprocessing(module))


def _from_timm(target: str, name: str, loaded: LoadedCheckpoint, originals: Originals | None) -> Owner:
    timm = _library("timm", target)
    config = loaded.config
    if ":" in name or "/" in name:
        raise UsageError(
            f"--against {target}: is no architecture of timm's", remedy="Name one, as timm.list_models() does"
        )
    arguments: dict[str, Any] = {"num_classes": config.num_classes, "in_chans": config.in_channels}
    try:
        module = timm.create_model(name, pretrained=False, img_size=config.image_size, **arguments)
    except Exception as error:
        raise _failed(target, "timm cannot build it", error) from error
    _give_weights(module, loaded, target, originals)
    return Owner("timm", target, _as_reference(module), "checkpoint", _timm_preprocessing(module))


def _from_transformers(target: str, folder: str, loaded: LoadedCheckpoint) -> Owner:
    if not Path(folder).is_dir():
        raise UsageError(
            f"--against {target}: there is no folder '{folder}'", remedy="Name one that save_pretrained wrote"
        )
    transformers = _library("transformers", target)
    auto = transformers.AutoModelForImageClassification if loaded.config.num_classes else transformers.AutoModel
    try:
        module = auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _failed(target, "transformers cannot load it", error) from error
    module = getattr(module, "vision_model", module) if not loaded.config.num_classes else module
    return Owner("transformers", target, _as_reference(module), "own", _transformers_preprocessing(Path(folder)))


def _library(name: str, target: str) -> ModuleType:
    try:
        return require(name, purpose=f"--against {target}")
    except EnvironmentMissing:
        raise
    except Exception as error:  # installed, but for another torch or torchvision
        raise EnvironmentMissing(
            f"--against {target}: {name} does not import ({_first_line(error)})",
            remedy=f"Install versions of {name}, torch and torchvision that fit each other",
        ) from error


def _build(builder: Builder, name: str) -> nn.Module:
    try:
        module = builder()
    except (Exception, SystemExit) as error:
        raise _failed(name, "building it failed", error) from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"--against {name}: returns {type(module).__name__}, no torch.nn.Module",
            remedy="Name a callable without arguments that builds the model",
        )
    return module


def _holds(module: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    given = module.state_dict()
    return given.keys() == weights.keys() and all(
        tensor.shape == weights[name].shape and bool(torch.equal(tensor.detach().cpu().float(), weights[name]))
        for name, tensor in given.items()
    )


def _same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(bool(torch.equal(ours[name], theirs[name])) for name in ours)


def _give_weights(module: nn.Module, loaded: LoadedCheckpoint, name: str, originals: Originals | None) -> None:
    """Load the checkpoint's weights, strictly: by timm's names, else by those in the file."""
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    misfits = []
    for weights in _weights(loaded, originals):
        named = _with_prefix(weights, expected)
        problem = misfit(expected, {key: tuple(tensor.shape) for key, tensor in named.items()})
        if problem is None:
            module.load_state_dict(named, strict=True)
            return
        misfits.append(problem)
    raise ExportError(
        f"--against {name}: the checkpoint's weights do not fit the module: {misfits[0]}",
        path=loaded.path,
        remedy="Build the model that the checkpoint was saved from, or load the weights in the builder",
    )


def _weights(loaded: LoadedCheckpoint, originals: Originals | None) -> Iterator[Mapping[str, Tensor]]:
    yield loaded.state_dict
    if originals is not None:
        yield originals()


def _with_prefix(weights: Mapping[str, Tensor], expected: Mapping[str, object]) -> dict[str, Tensor]:
    """The weights as a module that wraps the ViT calls them (`backbone.`, `model.`)."""
    anchor = "patch_embed.proj.weight" if "patch_embed.proj.weight" in weights else next(iter(weights))
    found = [key for key in expected if key.endswith(f".{anchor}")]
    prefix = found[0].removesuffix(anchor) if len(found) == 1 else ""
    return {prefix + key: tensor for key, tensor in weights.items()}


def _as_reference(module: nn.Module) -> nn.Module:
    """In eval mode, float32, on the CPU: a copy where that would change the owner's module."""
    tensors = [*module.parameters(), *module.buffers()]
    as_wanted = all(
        tensor.device.type == "cpu" and (tensor.dtype == torch.float32 or not tensor.is_floating_point())
        for tensor in tensors
    )
    if as_wanted and not any(part.training for part in module.modules()):
        return module
    return copy.deepcopy(module).to("cpu", torch.float32).eval()


def _outputs(output: object, config: VitConfig, name: str) -> Tensor:
    """The logits or features in what a model returned: a tensor, the first of several, or a field."""
    if isinstance(output, Mapping) or hasattr(output, "last_hidden_state") or hasattr(output, "logits"):
        output = _field(output, config)
    elif isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ExportError(f"--against {name}: returns {type(output).__name__}, no tensor of logits or features")
    if output.dim() == 3 and config.num_classes == 0:
        output = output[:, 0] if config.pool == "token" else output[:, config.num_prefix :].mean(dim=1)
    return output


def _field(output: Any, config: VitConfig) -> object:
    # CLIP normalises its pooled token only; what others call pooled has been through another layer
    names = ("image_embeds", "x_norm_clstoken", "last_hidden_state")
    for name in ("logits", "pred", *(() if config.num_classes else names)):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if value is not None:
            return value
    return output


def _timm_preprocessing(module: nn.Module) -> dict[str, object]:
    stated = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if not isinstance(stated, Mapping):
        return {}
    names = ("mean", "std", "crop_pct", "interpolation")
    return {name: stated[name] for name in names if stated.get(name) is not None}


def _transformers_preprocessing(folder: Path) -> dict[str, object]:
    import json

    try:
        stated = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        return {name: tuple(map(float, stated[f"image_{name}"])) for name in ("mean", "std")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _failed(name: str, what: str, error: BaseException) -> ExportError:
    return ExportError(
        f"--against {name}: {what} ({type(error).__name__}: {_first_line(error)})",
        remedy="Run again with --debug for the traceback",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
