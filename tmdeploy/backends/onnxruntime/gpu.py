"""What sessions on a GPU have in common: they start there or not at all, and say which node runs where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tmdeploy.backends.onnxruntime.packages import CUDA, check_offered, load_libraries, missing, reason_of, telling
from tmdeploy.backends.onnxruntime.placement import RECORD, Placement, listed
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.native.library import NativeLibrary, has_cuda_kernels, ort_library

_SILENT, _USUAL = 4, 2  # severities of ONNX Runtime's log
BUILD_COMMAND = "tmdeploy plugins build --ort --cuda"


def cuda_options(device_id: int) -> dict[str, str]:
    """Options of the CUDA provider.

    Args:
        device_id: CUDA's number of the device; CUDA_VISIBLE_DEVICES renumbers them.
    """
    return {
        "device_id": str(device_id),
        # TF32 is on by default, and gives about 3 % of images another plan.
        "use_tf32": "0",
        # The default tries all algorithms and takes the fastest: another one in another session, so other roundings.
        "cudnn_conv_algo_search": "HEURISTIC",
        # The default doubles what it takes from the device, which no one could call the model's memory.
        "arena_extend_strategy": "kSameAsRequested",
        # A captured graph holds for one set of shapes; batch and schedule are open.
        "enable_cuda_graph": "0",
    }


class GpuTarget:
    """A provider that needs a GPU; see `session.Target`.

    Args:
        device_id: CUDA's number of the device.
    """

    backend = ""
    provider = ""
    device = "cuda"
    library: NativeLibrary | None = None

    def __init__(self, device_id: int = 0) -> None:
        self.device_id = device_id
        self._started = False

    def prepare(self, runtime: Any, path: Path) -> None:
        """Look for the provider in the package, and load what it links.

        Raises:
            EnvironmentMissing: The package was built without it.
        """
        check_offered(runtime, self.provider)
        load_libraries(runtime, self.provider)
        # What it has to say comes as one error: from an exception, or from `confirm`.
        runtime.set_default_logger_severity(_SILENT)

    def configure(self, options: Any) -> None:
        """Have the placement of nodes recorded."""
        options.add_session_config_entry(RECORD, "1")

    def cause(self, runtime: Any, error: Exception) -> EnvironmentMissing | None:
        """Libraries, driver or device, if they are to blame."""
        runtime.set_default_logger_severity(_USUAL)
        reason = telling(str(error))
        if not reason and not self._started:
            # What is missing may only be in the log; and where the session fell back, the model may not suit the CPU.
            reason = reason_of(self.provider, self.device_id) or ""
        if self._started and reason.startswith("CUDA failure"):
            return None  # out of memory, say: it is here, and did not do what the model asked for
        return missing(runtime, self.provider, reason) if reason else None

    def confirm(self, runtime: Any, session: Any, path: Path) -> None:
        """Refuse a session that computes elsewhere, and one that reduces tokens on the CPU.

        Raises:
            EnvironmentMissing: The provider did not start, or took nothing, or the steps run on the CPU.
        """
        runtime.set_default_logger_severity(_USUAL)
        if self.provider not in session.get_providers():
            reason = reason_of(self.provider, self.device_id)
            raise missing(runtime, self.provider, reason or "ONNX Runtime fell back to the CPU and does not say why")
        self._started = True
        placement = Placement.of(session)
        if placement is None:
            return
        if placement.passed_over(self.provider):
            raise EnvironmentMissing(
                f"{path}: the {self.provider} took no node of it ({placement})",
                remedy="Run it with another --backend",
            )
        if placement.steps_on_cpu:
            raise EnvironmentMissing(
                f"{path}: ONNX Runtime put reduction steps on the CPU ({listed(placement.steps_on_cpu)}), so that the "
                "tokens would be copied from the GPU and back for each",
                remedy=f"Build the library again ({BUILD_COMMAND}), or run with --no-native",
            )

    def remarks(self, session: Any) -> dict[str, str]:
        """Which node runs where."""
        placement = Placement.of(session)
        if placement is None:
            return {"placement": "not told by this ONNX Runtime (1.24 does)"}
        strays = {"copied_to_the_cpu_for": listed(placement.strays)} if placement.strays else {}
        return {"placement": str(placement), **strays}


class CudaTarget(GpuTarget):
    """ONNX Runtime's CUDA provider.

    Args:
        native: Register the custom-op library where there is one that has kernels for CUDA. One without is left out:
            its nodes would run on the CPU in the middle of the model, while function bodies run on the GPU.
        device_id: CUDA's number of the device.
    """

    backend = "onnxruntime-cuda"
    provider = CUDA

    def __init__(self, *, native: bool = True, device_id: int = 0) -> None:
        super().__init__(device_id)
        found = ort_library() if native else None
        self._without_cuda = found is not None and not has_cuda_kernels(found.path)
        self.library = None if self._without_cuda else found

    def providers(self, source: Path | bytes) -> list[tuple[str, dict[str, str]]]:
        """CUDA alone; ONNX Runtime adds the CPU's by itself."""
        return [(CUDA, cuda_options(self.device_id))]

    def lowering(self, metadata: ArtifactMetadata) -> str:
        """The library's kernels, or the function bodies on the GPU."""
        if self.library is not None:
            return f"native CUDA ({self.library.path})"
        if self._without_cuda:
            return f"portable (function bodies; the native library has no CUDA kernels: {BUILD_COMMAND})"
        return "portable (function bodies)"
