"""Quantisation of an exported file to int8 or fp8, with planners left in float32."""

from tmdeploy.lazy import called_as_verb
from tmdeploy.quantize.request import QuantizeRequest
from tmdeploy.quantize.run import quantize
from tmdeploy.report.schemas.quantize import QuantizeReport

__all__ = ["QuantizeReport", "QuantizeRequest", "quantize"]

called_as_verb(__name__)
