"""Turning a plain ViT into a merged one: the only torch code between methods and models."""

from tmdeploy.patching.parts import halve
from tmdeploy.patching.patch import attach, patch, patched_model, unpatch
from tmdeploy.patching.reduction import Reduction, reduction_of
from tmdeploy.patching.stem import add_scales

__all__ = ["Reduction", "add_scales", "attach", "halve", "patch", "patched_model", "reduction_of", "unpatch"]
