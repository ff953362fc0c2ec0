"""`tmdeploy quantize`: ONNX file to a quantised one, compared with the original."""

from __future__ import annotations

from tmdeploy.api.quantize import quantize as verb
from tmdeploy.api.quantize import quantized_path

from .command import Call, command
from .console import warn_skipped


@command(verb, "int8", "fp8", "timeout", "native")
def quantize(call: Call, int8: bool | None, fp8: bool | None) -> None:
    """Quantise a model's linear layers, never its planners, and compare it with the original on other images.

    tmdeploy quantize deit_s.onnx --data photos/ --int8
    """
    from tmdeploy.errors import CheckFailed, UsageError
    from tmdeploy.report.tables.quantize import print_quantization

    if int8 == fp8:
        raise UsageError("--int8 and --fp8 exclude each other" if int8 else "no scheme", remedy="Give --int8 or --fp8")
    scheme = "int8" if int8 else "fp8"
    output = quantized_path(call["model"], call["output"], scheme)
    out = call.output(reads=call.files("model", "data", "eval_data"), writes={"-o": output})
    report = call(scheme=scheme)
    print_quantization(report, out.console)
    warn_skipped(report.calibration_skipped, read=report.record.images)
    warn_skipped(report.comparison.skipped_images, read=report.comparison.images)
    out.emit(report)
    if not report.drop.passed:
        raise CheckFailed(
            f"{report.drop.measure} drops by {report.drop.value:.2%}, more than {report.drop.limit:.2%}",
            path=call["model"],
        )
