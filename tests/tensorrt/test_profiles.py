from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.tensorrt.build.source import load_source
from tmdeploy.tensorrt.record.profiles import BatchRange, advice, check_clipping, parse_batch, parse_schedule


@pytest.fixture
def tome(exported: Callable[..., Path]) -> tuple[onnx.ModelProto, ArtifactMetadata]:
    model, metadata = load_source(exported("tome"))
    assert metadata is not None
    return model, metadata


@pytest.fixture
def evit(exported: Callable[..., Path]) -> ArtifactMetadata:
    metadata = load_source(exported("evit"))[1]
    assert metadata is not None
    return metadata


def test_batches():
    assert parse_batch("8") == BatchRange(min=8, opt=8, max=8)
    assert parse_batch("8").static
    assert str(parse_batch("1:8:32")) == "1:8:32"
    assert advice([parse_batch("1:2:32")])[0].startswith("profile 1:2:32: kernels are chosen for batch 2")
    assert advice([parse_batch("1:8:32")]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "at least one image"),
        ("8:4:32", "not in ascending order"),
        ("1:2", "has 2 ends"),
        ("many", "not whole numbers"),
        ("-1", "cannot be negative"),
        ("1,2:3:4", "a batch size is one number"),
    ],
)
def test_batches_that_cannot_be_meant(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_batch(text)


def test_schedules_and_the_tokens_they_leave(tome: tuple[onnx.ModelProto, ArtifactMetadata], evit: ArtifactMetadata):
    found = parse_schedule("0:8:20", tome[1])
    assert (found.min, found.opt, found.max) == ((0, 0), (8, 8), (20, 20))
    assert (found.fewest_tokens, found.most_tokens, found.clipped) == ((45, 25), (65, 65), ())
    clipped = parse_schedule("0:8,4:32", tome[1])
    assert clipped.opt == (8, 4)
    # 65 tokens lose 32, then the 32 patch tokens left can lose only 16
    assert (clipped.fewest_tokens, clipped.clipped) == ((33, 17), (1,))
    kept = parse_schedule("5:20:60", evit)
    assert kept.kind == "keep"
    assert kept.fewest_tokens == (7, 7)  # class token, 5 kept, the fused one
    assert kept.most_tokens == (62, 62)  # class token and 60; of 61 patch tokens one is fused again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:8:9999999999", "above 2147483647"),
        ("8:0:16", "not in ascending order"),
        ("0:1,2,3:8", "3 values for 2 reduction steps"),
        ("0:-1:8", "cannot be negative"),
        ("some", "not whole numbers"),
    ],
)
def test_schedules_that_cannot_be_meant(text: str, message: str, tome: tuple[onnx.ModelProto, ArtifactMetadata]):
    with pytest.raises(UsageError, match=message):
        parse_schedule(text, tome[1])


def test_an_end_beyond_what_is_possible_is_clipped(
    tome: tuple[onnx.ModelProto, ArtifactMetadata], evit: ArtifactMetadata
):
    assert parse_schedule("0:8:999", tome[1]).clipped == (0, 1)
    kept = parse_schedule("1:5:65", evit)
    assert (kept.most_tokens[0], kept.clipped) == (65, (0, 1))
    with pytest.raises(UsageError, match="at least one patch token is kept"):
        parse_schedule("0:5:10", evit)


def test_a_fixed_schedule_has_no_range(tome: tuple[onnx.ModelProto, ArtifactMetadata]):
    with pytest.raises(UsageError, match="fixed schedule.*--runtime-r"):
        parse_schedule("0:1:2", tome[1].model_copy(update={"schedule_input": None}))
    bare = tome[1].card.replace(recipe=None)
    with pytest.raises(UsageError, match="reduces no tokens"):
        parse_schedule("0:1:2", tome[1].model_copy(update={"card": bare, "schedule_input": None}))


def test_an_unbounded_graph_is_refused(tome: tuple[onnx.ModelProto, ArtifactMetadata]):
    model, metadata = tome
    schedule = parse_schedule("0:8:16", metadata)
    check_clipping(model, schedule, path="f.onnx")
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    node = next(node for node in changed.graph.node if node.output[0] == "step_1_removed")
    node.op_type = "Identity"
    with pytest.raises(ArtifactError, match="does not bound r in step 1: .* negative number of tokens"):
        check_clipping(changed, schedule, path="f.onnx")
