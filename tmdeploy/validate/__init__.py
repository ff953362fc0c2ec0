"""Validation that understands merging."""

from tmdeploy.report.schemas.validation import ValidationReport
from tmdeploy.validate.limits import Limits
from tmdeploy.validate.run import Samples, validate

__all__ = ["Limits", "Samples", "ValidationReport", "validate"]
