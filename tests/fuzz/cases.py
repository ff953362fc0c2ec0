"""Which command is given which broken file."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.fuzz.mutators import BYTES, MEANING


@dataclass(frozen=True)
class Target:
    """A command line, and the file of the corpus that is broken before it runs.

    Attributes:
        broken: Name in the corpus.
        command: Arguments; `{name}` stands for a file of the corpus, `{out}` for an output in a folder of its own.
        weight: How often it is drawn, relative to others.
    """

    broken: str
    command: str
    weight: int = 4

    @property
    def name(self) -> str:
        """The command, and the kind of what is broken."""
        _, _, kind = self.broken.partition(".")
        return f"{self.command.split()[0]} .{kind}"


_TIMES = "--batch 1 --warm-up 0.001s --duration 0.001s --iterations 3 --rounds 3 --no-memory"
_LIMIT = "--timeout 20"
TARGETS = (
    Target("tome.onnx", "inspect {tome.onnx} --json {out}.json"),
    Target("evit.onnx", "inspect {evit.onnx}"),
    Target("foreign.onnx", "inspect {foreign.onnx}", 2),
    Target("tome.onnx", f"infer {{tome.onnx}} {{2_a.png}} --csv {{out}}.csv {_LIMIT}"),
    Target("evit.onnx", f"infer {{evit.onnx}} {{2_a.png}} --json {{out}}.json {_LIMIT}"),
    Target("foreign.onnx", f"infer {{foreign.onnx}} {{2_a.png}} {_LIMIT}"),
    Target("2_a.png", f"infer {{tome.onnx}} {{2_a.png}} {_LIMIT}", 1),
    Target("3_b.jpg", f"infer {{tome.onnx}} {{3_b.jpg}} {_LIMIT}", 1),
    Target("names.txt", f"infer {{tome.onnx}} {{2_a.png}} --class-names {{names.txt}} {_LIMIT}", 1),
    Target("names.json", f"infer {{tome.onnx}} {{2_a.png}} --class-names {{names.json}} {_LIMIT}", 2),
    Target("tome.onnx", f"visualize {{tome.onnx}} {{2_a.png}} -o {{out}}.png {_LIMIT}"),
    Target("tome.onnx", f"validate {{evit.onnx}} {{tome.onnx}} --random 2 --batch 2 {_LIMIT}"),
    Target("evit.onnx", f"validate {{evit.onnx}} {{evit.onnx}} --random 2 --batch 2 {_LIMIT}"),
    Target("tome.onnx", f"validate {{tome.pt}} {{tome.onnx}} --random 2 --batch 1 --json {{out}}.json {_LIMIT}"),
    Target("tome.pt", f"validate {{tome.pt}} {{tome.onnx}} --random 2 --batch 2 {_LIMIT}"),
    Target("tome.onnx", f"bench {{tome.onnx}} {_TIMES} --free-merge --json {{out}}.json {_LIMIT}", 2),
    Target(
        "tome.onnx", f"quantize {{tome.onnx}} --int8 --data {{2_a.png}} --data {{3_b.jpg}} -o {{out}}.onnx {_LIMIT}"
    ),
    Target("evit.onnx", f"quantize {{evit.onnx}} --fp8 --data {{2_a.png}} --data {{3_b.jpg}} -o {{out}}.onnx {_LIMIT}"),
    Target("tome.onnx", "build {tome.onnx} -o {out}.plan", 1),
    Target("tome.pt", "inspect {tome.pt}"),
    Target("evit.safetensors", "inspect {evit.safetensors}"),
    Target("tome.pt", "infer {tome.pt} {2_a.png}", 2),
    Target("evit.safetensors", "infer {evit.safetensors} {2_a.png}", 2),
    Target("tiny.plan", "inspect {tiny.plan}", 1),
    Target("tiny.plan.json", "inspect {tiny.plan} --layers"),
    Target("tiny.plan.json", "infer {tiny.plan} {2_a.png}", 2),
    Target("tiny.plan.json", "bench {tiny.plan}", 1),
    Target("tiny.plan.json", "refit {tiny.plan} {tome.onnx} -o {out}.plan", 1),
    Target("tiny.plan.layers.json", "inspect {tiny.plan} --layers", 2),
)
# Tracing takes seconds, so there are few of these among many others.
SLOW = (
    Target("tome.pt", "export {tome.pt} -o {out}.onnx", 1),
    Target("evit.safetensors", "export {evit.safetensors} -o {out}.onnx", 1),
)


@dataclass(frozen=True)
class Case:
    """One try: a target, a way to break its file, and the seed of that."""

    target: Target
    mutator: str
    seed: str


def draw(number: int, seed: int) -> Case:
    """The case of this number; the same for the same seed."""
    rng = random.Random(f"{seed}/{number}")
    targets = SLOW if number % 100 == 99 else TARGETS
    target = rng.choices(targets, [entry.weight for entry in targets])[0]
    suffix = "." + target.broken.rpartition(".")[2]
    meaning = MEANING.get(suffix, {})
    # what is wrong inside a file gets further than what is wrong with its bytes
    mutator = rng.choice([*BYTES, *meaning, *meaning, *meaning])
    return Case(target, mutator, f"{seed}/{number}")
