"""Validation that understands merging."""

from tmdeploy.lazy import called_as_verb
from tmdeploy.report.schemas.validation import ValidationReport
from tmdeploy.validate.limits import Limits
from tmdeploy.validate.run import Samples, validate

__all__ = ["Limits", "Samples", "ValidationReport", "validate"]

called_as_verb(__name__)
