"""Turning a plain ViT into a merged one: the only torch code between methods and models."""

from tmdeploy.patching.patch import Reduction, patch, reduction_of, unpatch

__all__ = ["Reduction", "patch", "reduction_of", "unpatch"]
