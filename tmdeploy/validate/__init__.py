"""Validation that understands merging."""

from tmdeploy.validate.limits import Limits
from tmdeploy.validate.report import ValidationReport
from tmdeploy.validate.run import Samples, validate

__all__ = ["Limits", "Samples", "ValidationReport", "validate"]
