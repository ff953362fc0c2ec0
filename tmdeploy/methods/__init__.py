"""Reduction methods: declarative, one file each, found by the registry. No torch in here."""

from tmdeploy.methods.registry import METHODS, MethodInfo, build_method, method, method_info, methods
from tmdeploy.methods.spec import MethodSpec

__all__ = ["METHODS", "MethodInfo", "MethodSpec", "build_method", "method", "method_info", "methods"]
