"""The command lines of scripts/same_artifacts.py, by name."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What each kind of schedule is given where a case is not about schedules: two blocks, 36 patches.
AMOUNTS: Mapping[str | None, str] = {"r": "--r 4", "keep": "--layers 0,1 --keep 0.7", None: ""}
TOME, EVIT, MSTM, TOPK = (
    f"--method {name} {AMOUNTS['r' if name == 'tome' else 'keep']}" for name in ("tome", "evit", "mstm", "topk")
)
_BENCH = "--duration 10ms --warm-up 5ms --iterations 2 --rounds 3"


@dataclass(frozen=True)
class Case:
    """A command line; the report that it writes is `NAME.json`, a model `NAME.onnx` or `NAME.plan`."""

    name: str
    argv: tuple[str, ...]

    @property
    def reads(self) -> bool:
        """Whether it takes a model and leaves none behind."""
        return self.argv[0] in {"inspect", "validate", "infer", "bench", "visualize"}

    @property
    def reads_our_files(self) -> bool:
        """Whether it takes a file that tmdeploy wrote."""
        return self.reads or self.argv[0] in {"quantize", "build"} or "saved.pt" in self.argv


def cases(methods: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    """Every command line, in an order in which they can run.

    Args:
        methods: As `tmdeploy methods --json` lists them.
    """
    made = [*_methods(methods), *_forms(), *_architectures(), *_proved(), *_quantised(), *_built(methods)]
    yield from made
    for case in made:
        yield _case(f"inspect-{case.name}", f"inspect {case.name}.{'plan' if case.argv[0] == 'build' else 'onnx'}")
    yield from _reading()
    yield from _refused()


def _case(name: str, line: str) -> Case:
    return Case(name, (*shlex.split(line), "--json", f"{name}.json"))


def _export(name: str, checkpoint: str, options: str, *, verify: bool = False) -> Case:
    file = checkpoint if "." in checkpoint else f"{checkpoint}.pt"
    heads = "" if "heads" in options or checkpoint in {"own", "digits_tome"} else "-A heads=3"
    return _case(name, f"export {file} -o {name}.onnx {heads} {options} {'' if verify else '--no-verify'}")


def _methods(methods: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    """Each value of each option alone with a class token, then the rows of tests/export/test_method_options.py."""
    for method in methods:
        name, amounts = method["name"], AMOUNTS[method["schedule"]]
        values = {entry["name"]: entry["choices"] or ["false", "true"] for entry in method["options"]}
        yield _export(name, "plain", f"--method {name} {amounts}")
        for entry in method["options"]:
            for value in values[entry["name"]]:
                if value != str(entry["default"]).lower():
                    option = f"{entry['name']}={value}"
                    yield _export(f"{name}-{option}", "plain", f"--method {name} {amounts} -O {option}")
        pairs = list(itertools.product(values.get("weight", ()), values.get("prop_attn", ())))
        for number in range(max([len(pairs), *map(len, values.values())], default=0)):
            row = {
                option: choices[(number if len(choices) > 2 else number // 2) % len(choices)]
                for option, choices in values.items()
            }
            if pairs:
                row["weight"], row["prop_attn"] = pairs[number % len(pairs)]
            checkpoint = "bare" if row.get("score", "received") in {"received", "key_norm"} else "mean"
            options = " ".join(f"-O {option}={value}" for option, value in row.items())
            yield _export(f"{name}-row{number}", checkpoint, f"--method {name} {amounts} {options} --extra-output plan")


def _forms() -> Iterator[Case]:
    """Every form of the file, and every kind of schedule."""
    merging = {"tome": TOME, "evit": EVIT, "mstm": MSTM, "topk": TOPK}
    for opset in (18, 19, 21, 22, 23):
        for name in ("tome", "mstm", "evit")[: 3 if opset in {18, 23} else 1]:
            yield _export(f"opset{opset}-{name}", "plain", f"{merging[name]} --opset {opset}")
    for form, flag in (("fp16", "--precision fp16"), ("portable", "--lowering portable"), ("fast", "--fast-planner")):
        for name, options in merging.items():
            yield _export(f"{form}-{name}", "plain", f"{options} {flag}")
    for form in ("static-r", "static-batch", "with-preprocessing"):
        for name in ("tome", "evit", "mstm"):
            yield _export(f"{form}-{name}", "plain", f"{merging[name]} --{form}")
    plan, size, features = (f"--extra-output {name}" for name in ("plan", "size", "features"))
    mixed = "--lowering portable --precision fp16"
    for name, options in {
        "fp16-none": "--method none --precision fp16",
        "outputs-tome": f"{TOME} {plan} {size} {features}",
        "outputs-mstm": f"{MSTM} {plan} {size} {features}",
        "outputs-evit": f"{EVIT} {plan} {features}",
        "outputs-topk": f"{TOPK} {plan} {features} --lowering portable",
        "mixed-tome": f"{TOME} {mixed} --fast-planner --static-r --static-batch --opset 18 {plan} {size} {features}",
        "mixed-mstm": f"{MSTM} {mixed} --opset 23 {size}",
        "mixed-evit": f"{EVIT} {mixed} --with-preprocessing",
        "mixed-topk": f"{TOPK} --precision fp16 --fast-planner --with-preprocessing --static-batch",
        "r-linear": "--method tome --r 6:0",
        "r-list": "--method tome --r 3,5",
        "r-zero": "--method tome --r 0",
        "r-all": "--method tome --r 100",
        "r-one-block": "--method tome --layers 1 --r 5",
        "schedule": "--method tome --schedule 2",
        "keep-half": "--method evit --layers 1 --keep 0.5",
        "keep-rates": "--method mstm --layers 0,1 --keep 0.9,0.5",
        "keep-counts": "--method topk --layers 0,1 --keep 20,9",
        "keep-all": "--method evit --layers 0 --keep 1.0",
        "keep-one": "--method evit --layers 0 --keep 1",
        "smaller": f"{TOME} --image-size 32",
        "smaller-bicubic": f"{EVIT} --image-size 40 -A pos_embed_resize=bicubic",
    }.items():
        yield _export(name, "plain", options)


def _architectures() -> Iterator[Case]:
    """Every kind of ViT, and everything that names and shapes leave open."""
    for name in ("distilled", "registers", "registers-free", "layer-scale", "scales", "scales-concat", "pre-norm"):
        yield _export(f"arch-{name}", name, TOME)
    for name in ("no-qkv-bias", "headless", "grey", "half", "prefixed", "safe.safetensors"):
        yield _export(f"arch-{name.partition('.')[0]}", name, TOME)
    pixels = "-A mean=0.5 -A std=0.5,0.4,0.3 -A crop_pct=1 --with-preprocessing"
    for name, checkpoint, options in (
        ("distilled-evit", "distilled", EVIT),
        ("registers-mstm", "registers", MSTM),
        ("scales-nearest", "scales", f"{MSTM} -A resample=nearest"),
        ("rectangle", "rectangle", f"{TOME} -A grid=4x9"),
        ("deep", "deep", "--method mstm --layers 1,3 --keep 0.8,0.5"),
        ("averaged", "averaged", f"{TOME} --ema"),
        ("extra", "extra", f"{TOME} --ignore-extra"),
        ("bare-tome", "bare", TOME),
        ("mean-tome", "mean", TOME),
        ("pooled", "plain", f"{TOME} -A pool=avg"),
        ("res-post", "plain", f"{TOME} -A norm_placement=res_post -A norm_eps=1e-5"),
        ("statistics", "plain", f"{TOME} --num-heads 6 {pixels}"),
        *((f"act-{act}", "plain", f"{TOPK} -A act={act}") for act in ("gelu_tanh", "quick_gelu", "relu", "silu")),
    ):
        yield _export(f"arch-{name}", checkpoint, options)
    yield _export("own", "own", "")
    yield _export("own-none", "own", "--method none")
    yield _export("own-saved", "saved", "")


def _proved() -> Iterator[Case]:
    """Exports that are compared with PyTorch, and with the owner's model."""
    for name, checkpoint, options in (
        ("digits", "digits_tome", ""),
        ("proved-tome", "plain", f"{TOME} --verify-data digits"),
        ("proved-mstm", "bare", f"{MSTM} -O score=key_norm --lowering portable"),
        ("proved-evit", "plain", f"{EVIT} --precision fp16"),
        ("proved-against", "plain", f"{TOPK} --against owner:build -A mean=0.5,0.4,0.3 -A std=0.2,0.3,0.4"),
    ):
        yield _export(name, checkpoint, options, verify=True)


def _quantised() -> Iterator[Case]:
    for name, source, options in (
        ("int8-tome", "tome", "--int8"),
        ("int8-evit", "evit", "--int8 --calibration minmax"),
        ("int8-mstm", "mstm", "--int8 --keep-float +head,-attention --percentile 99.9"),
        ("int8-none", "none", "--int8 --keep-float patch-embed"),
        ("int8-entropy", "topk", "--int8 --calibration entropy"),
        ("int8-portable", "portable-tome", "--int8 --batch 2"),
        ("int8-pixels", "with-preprocessing-tome", "--int8"),
        ("fp8-tome", "tome", "--fp8"),
        ("fp8-none", "none", "--fp8 --eval-data digits"),
    ):
        images = f"--data digits --images {2 if 'entropy' in options else 4} --threads 1"
        yield _case(name, f"quantize {source}.onnx -o {name}.onnx {images} {options}")


def _built(methods: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    """Engines of TensorRT-RTX, which needs no GPU to build them."""
    for name, source, options in (
        *((f"rtx-{method['name']}", method["name"], "--precision fp16") for method in methods),
        *((f"rtx-{precision}", "tome", f"--precision {precision}") for precision in ("fp32", "tf32", "bf16")),
        ("rtx-range-tome", "tome", "--precision fp16 --schedule-range 0:4:8 --min-batch 1 --opt-batch 2 --max-batch 4"),
        ("rtx-range-evit", "evit", "--precision fp16 --schedule-range 8:20:30 --profile 1 --profile 2:4:8"),
        ("rtx-range-mstm", "mstm", "--precision bf16 --schedule-range 8:20:30"),
        ("rtx-keep", "tome", "--precision fp16 --keep-fp32 +Gelu,-softmax"),
        ("rtx-target", "topk", "--precision fp16 --target-sm sm_89"),
        ("rtx-targets", "tome", "--precision fp16 --target-sm sm_86,sm_120 --plugins none"),
        ("rtx-options", "tome", "--builder-optimization-level 0 --workspace 64 --profiling-verbosity layer-names-only"),
        ("rtx-streaming", "tome", "--weight-streaming --profiling-verbosity none"),
        ("rtx-portable", "portable-mstm", "--precision fp16"),
        ("rtx-pixels", "with-preprocessing-tome", "--precision fp16"),
        ("rtx-half", "fp16-tome", ""),
        ("rtx-static", "static-batch-tome", "--precision fp16 --profile 1"),
        ("rtx-int8", "int8-tome", "--precision fp16"),
        ("rtx-fp8", "fp8-tome", ""),
        ("rtx-facts", "facts", "--precision fp16"),
    ):
        yield _case(name, f"build {source}.onnx -o {name}.plan --flavor rtx {options}")
    exported = "--max-batch 8 --layers 1 --keep 0.5"
    yield _case("rtx-checkpoint", f"build saved.pt -o rtx-checkpoint.plan --flavor rtx {exported} --method evit")


def _reading() -> Iterator[Case]:
    """Commands that leave no model behind."""
    for name in ("plain", "bare", "distilled", "registers", "layer-scale", "scales-concat", "half"):
        yield _case(f"inspect-pt-{name}", f"inspect {name}.pt -A heads=3")
    for name, line in {
        "inspect-pt-rectangle": "inspect rectangle.pt -A heads=3 -A grid=4x9",
        "inspect-pt-extra": "inspect extra.pt -A heads=3 --ignore-extra",
        "inspect-pt-own": "inspect own.pt",
        "inspect-pt-saved": "inspect saved.pt",
        "inspect-pt-digits": "inspect digits_tome.pt",
        "inspect-pt-safe": "inspect safe.safetensors -A heads=3 -A act=relu",
        "inspect-api": "inspect api.onnx",
        "inspect-facts": "inspect facts.onnx",
        "inspect-foreign": "inspect foreign.onnx",
        "inspect-layers": "inspect rtx-tome.plan --layers",
        "validate-tome": "validate plain.pt tome.onnx --data digits",
        "validate-r": "validate plain.pt tome.onnx --random 4 --r 0 --r 8 --r 3,5 --batch 1,3",
        "validate-evit": "validate plain.pt evit.onnx --random 4 --no-native",
        "validate-mstm": "validate bare.pt mstm-row4.onnx --random 4 --batch 2",
        "validate-fp16": "validate plain.pt fp16-tome.onnx --random 8",
        "validate-int8": "validate tome.onnx int8-tome.onnx --data digits",
        "validate-keep": "validate evit.onnx portable-evit.onnx --data digits --limit 9 --keep 0.5 --keep 30",
        "validate-portable": "validate tome.onnx portable-tome.onnx --data digits --limit 9 --r 6:0",
        "validate-openvino": "validate plain.pt topk.onnx --random 4 --backend openvino",
        "validate-none": "validate plain.pt none.onnx --random 4",
        "validate-other": "validate plain.pt arch-act-relu.onnx --random 4",
        "validate-own": "validate own.pt own.onnx --random 4 --atol 1e-9",
        "validate-scales": "validate scales.pt arch-scales.onnx --random 3 --batch 1",
        "validate-rectangle": "validate rectangle.pt arch-rectangle.onnx --random 3 --batch 1 -A grid=4x9",
        "validate-facts": "validate facts.onnx api.onnx --random 3 --batch 1",
        "bench-tome": f"bench tome.onnx plain.pt {_BENCH} --batch 1,2 --no-memory --threads 1 -A heads=3",
        "bench-evit": f"bench evit.onnx portable-evit.onnx {_BENCH} --batch 1 --free-merge --no-native --no-memory",
        "bench-schedules": f"bench mstm.onnx {_BENCH} --batch 2 --keep 0.5 --keep 20 --no-twin --no-memory",
        "bench-memory": f"bench int8-tome.onnx {_BENCH} --batch 1 --free-merge --data digits",
        "bench-openvino": f"bench tome.onnx {_BENCH} --batch 1 --backend onnxruntime,openvino --no-memory",
        "bench-gate": f"bench tome.onnx {_BENCH} --batch 1 --min-speedup 1000 --no-memory",
        "infer-tome": "infer tome.onnx digits --top-k 3 --csv infer-tome.csv",
        "infer-tome-r": "infer tome.onnx digits --r 9 --batch 3",
        "infer-evit": "infer evit.onnx digits/0_0.png --schedule 0.4 --threads 1",
        "infer-mstm": "infer mstm.onnx digits/0_0.png digits/3_1.png --no-native",
        "infer-pixels": "infer with-preprocessing-tome.onnx digits",
        "infer-int8": "infer int8-tome.onnx digits",
        "infer-fp16": "infer fp16-tome.onnx digits",
        "infer-openvino": "infer tome.onnx digits --backend openvino",
        "infer-facts": "infer facts.onnx digits",
        "infer-own": "infer own.pt digits --keep 0.5",
        "infer-digits": "infer digits.onnx digits",
        "infer-digits-pt": "infer digits_tome.pt digits --top-k 1",
        "visualize-tome": "visualize tome.onnx digits/0_0.png -o visualize-tome.png",
        "visualize-mstm": "visualize mstm.onnx digits/0_0.png digits/3_1.png -o visualize-mstm --block 0 --keep 0.5",
        "visualize-pt": "visualize digits_tome.pt digits/3_1.png -o visualize-pt.png --r 4",
        "methods": "methods",
        "doctor": "doctor",
    }.items():
        yield _case(name, line)


def _refused() -> Iterator[Case]:
    """What a user gets wrong: exit code and message."""
    heads = "-A heads=3"
    for number, line in enumerate(
        (
            "export plain.pt -o refused.onnx",
            f"export plain.pt -o refused.onnx {heads} --method toem",
            f"export plain.pt -o refused.onnx {heads} --method evit --r 3",
            f"export plain.pt -o refused.onnx {heads} --method evit --layers 7",
            f"export plain.pt -o refused.onnx {heads} --method tome -O weight=heavy",
            f"export bare.pt -o refused.onnx {heads} --method evit --layers 1",
            f"export plain.pt -o refused.onnx {heads} --opset 17",
            f"export plain.pt -o refused.onnx {heads} --method tome --extra-output sizes",
            f"export plain.pt -o refused.onnx {heads} --method none --extra-output plan",
            "export own.pt -o refused.onnx -A act=relu",
            "export gone.pt -o refused.onnx",
            "export own.pt -o refused.plan",
            "infer none.onnx digits --r 3",
            "infer static-r-tome.onnx digits --r 3",
            "infer rtx-tome.plan digits",
            "bench rtx-tome.plan",
            "inspect owner.py",
            "validate gone.pt tome.onnx",
            "quantize none.onnx -o refused.onnx --int8 --fp8 --data digits",
            "quantize int8-tome.onnx -o refused.onnx --int8 --data digits",
            "build tome.onnx -o refused.plan --flavor rtx --plugins aot",
            "build tome.onnx -o refused.plan --flavor rtx --schedule-range 0:8,8:9,3:4",
            "refit rtx-tome.plan tome.onnx -o refused.plan",
        ),
        1,
    ):
        yield _case(f"refused-{number}", line)
