"""Backends: one file each, one protocol (`base.Runner`)."""

from tmdeploy.backends.base import BACKENDS, Runner, StepTrace, Trace, backend_for, open_runner

__all__ = ["BACKENDS", "Runner", "StepTrace", "Trace", "backend_for", "open_runner"]
