"""Documents as version 1 wrote them (tests/card/documents, made by the code of that time) say what they said."""

import json
from pathlib import Path

import pytest

from tests.tensorrt.engines import engine_file, full_bytes
from tmdeploy.card import upgrade
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.card import ModelCard, ProofRecord, Provenance
from tmdeploy.card.facts import ModelFacts
from tmdeploy.card.metadata import ArtifactMetadata, dump, parse
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import ArtifactError, CheckpointError
from tmdeploy.models import document as checkpoint
from tmdeploy.tensorrt.record.sidecar import EngineRecord, read_sidecar, sidecar_path
from tmdeploy.tensorrt.sdk.flavor import Flavor

DOCUMENTS = Path(__file__).parent / "documents"
HERE = Path("here")
VIT = VitConfig(image_size=(16, 16), patch_size=4, width=12, depth=3, heads=2, mlp_width=24, num_classes=4)
CARD = ModelCard(
    architecture=VIT,
    recipe=Recipe(method="evit", options={"score": "cls"}, layers=(0, 2), amounts=(12, 10)),
    preprocessing=Preprocessing(image_size=(16, 16), crop_pct=0.9),
    class_names=("ant", "bee", "cat", "dog"),
)


def read(name: str) -> dict:
    return json.loads((DOCUMENTS / name).read_text())


def test_a_checkpoints_description():
    card = checkpoint.parse(read("checkpoint_v1.json"), HERE)
    assert card == CARD
    assert checkpoint.parse(checkpoint.dump(card), HERE) == card


def test_the_metadata_of_an_onnx():
    metadata = parse((DOCUMENTS / "metadata_v1.json").read_text(), path=HERE)
    card = metadata.card
    assert card.replace(provenance=None, proof=None, assumptions=()) == CARD
    sha256 = "53244d7dd0e544245a703a2cea4ab37204fd26eb17a47207eadf5d17b1ac7171"
    assert card.provenance == Provenance(
        source_name="evit.pt", source_sha256=sha256, tool_version="0.1.0", torch_version="2.13.0+cpu"
    )
    assert card.proof == ProofRecord(kind="timm", name="vit_small", images=3, error=1e-6, limit=1e-4, top1_differing=0)
    assert [one.key for one in card.assumptions] == ["act"]
    assert (metadata.schedule_input, metadata.opset, metadata.precision, len(metadata.steps)) == ("keep", 20, "int8", 2)
    assert metadata.quantization is not None
    assert parse(dump(metadata), path=HERE) == metadata


def test_the_metadata_of_a_module_with_a_fixed_schedule():
    metadata = parse((DOCUMENTS / "module_v1.json").read_text(), path=HERE)
    config = metadata.card.architecture
    assert isinstance(config, ModelFacts)
    assert (config.name, config.depth, config.tokens) == ("mine", 4, 65)
    assert (metadata.card.reduction.layers, metadata.schedule_input) == ((1, 3), None)
    assert metadata.preprocessing_in_graph
    assert metadata.card.macs() is None
    assert parse(dump(metadata), path=HERE) == metadata


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = engine_file(tmp_path, full_bytes())
    sidecar_path(path).write_text((DOCUMENTS / "sidecar_v1.json").read_text())
    return path


def test_an_engines_sidecar(engine: Path):
    record = read_sidecar(engine)
    assert (record.schema_, record.version, record.flavor) == ("tmdeploy.engine/2", 2, Flavor.TENSORRT)
    assert record.card is not None
    assert record.card.replace(provenance=None, assumptions=()) == CARD
    assert record.model is not None
    assert record.metadata is not None
    assert (record.model.schedule_input, record.metadata.schedule_input) == ("keep", None)  # the engine's is fixed
    written = json.loads(record.model_dump_json(by_alias=True))
    assert "flavour" not in written
    sidecar_path(engine).write_text(json.dumps(written))
    assert read_sidecar(engine) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule_kind": None}, r"schedule_input: Input should be 'r' or 'keep'"),
        ({"schedule_kind": "much"}, r"schedule_input: Input should be 'r' or 'keep'"),
        ({"layers": [0, 7]}, r"card: a reduction step in block 7 of 3 blocks"),
        ({"method": 3}, r"card.recipe.method: Input should be a valid string"),
        ({"unheard_of": 1}, r"unheard_of: Extra inputs are not permitted"),
        ({"architecture": None}, r"card.architecture"),
        ({"version": 3}, r"its tmdeploy metadata has version 3, and this tmdeploy reads up to 2"),
    ],
)
def test_what_was_refused_still_is(changes: dict, message: str):
    text = json.dumps({**read("metadata_v1.json"), **changes})
    with pytest.raises(ArtifactError, match=message):
        parse(text, path=HERE)


@pytest.mark.parametrize("text", ["", "[", "[]", "7", "null", '"x"', '{"version": 1}', '{"a": "\\ud800"}', "[" * 10**6])
def test_what_is_no_document(text: str, engine: Path):
    with pytest.raises(ArtifactError, match=r"here: its tmdeploy metadata cannot be read \("):
        parse(text, path=HERE)
    sidecar_path(engine).write_text(text)
    with pytest.raises(ArtifactError, match=r"is no sidecar that this version can read \("):
        read_sidecar(engine)


def test_what_a_newer_tmdeploy_wrote_is_named(engine: Path):
    with pytest.raises(
        CheckpointError, match="its tmdeploy description has version 3, and this tmdeploy reads up to 2"
    ):
        checkpoint.parse({**read("checkpoint_v1.json"), "version": 3}, HERE)
    newer = checkpoint.dump(CARD)
    newer["card"]["version"] = 2
    with pytest.raises(CheckpointError, match=r"its model card has version 2, .* up to 1\. A newer tmdeploy wrote it"):
        checkpoint.parse(newer, HERE)
    sidecar_path(engine).write_text(json.dumps({**read("sidecar_v1.json"), "version": 4}))
    with pytest.raises(ArtifactError, match="its sidecar has version 4"):
        read_sidecar(engine)


def test_versions_are_one_more_than_there_are_steps():
    models = {"tmdeploy metadata": ArtifactMetadata, "sidecar": EngineRecord, "model card": ModelCard}
    for kind, model in models.items():
        assert model.model_fields["version"].default == len(upgrade._STEPS[kind]) + 1
    assert len(upgrade._STEPS["tmdeploy description"]) + 1 == checkpoint.dump(CARD)["version"]
