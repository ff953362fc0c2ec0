"""Quantisation of an exported file to int8 or fp8, with planners left in float32."""

from tmdeploy.quantize.report import QuantizeReport
from tmdeploy.quantize.request import QuantizeRequest
from tmdeploy.quantize.run import quantize

__all__ = ["QuantizeReport", "QuantizeRequest", "quantize"]
