"""Networks other than plain ViTs, recognised by the names and shapes of their weights. No torch in here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tmdeploy.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

READABLE = "Save the state_dict of a timm-style ViT or DeiT; other layouts have to be converted to its names first"
_PATCH = "Patch your own module with tmdeploy.patch() instead (docs/guide/own-module.md)"

# Other layouts: a weight's name that reveals each, and what to call it. The first match counts.
_FOREIGN: tuple[tuple[str, str], ...] = (
    (r"(^|\.)embeddings\.patch_embeddings\.projection\.weight$", "a ViT, DeiT, BEiT or DINO with Hugging Face's names"),
    (r"(^|\.)vision_model\.head\.attention\.", "a SigLIP model with Hugging Face's names"),
    (r"(^|\.)vision_model\.(embeddings|encoder)\.", "a CLIP or SigLIP model with Hugging Face's names"),
    (r"(^|\.)encoder\.layers\.encoder_layer_\d+\.", "a ViT with torchvision's names"),
    (
        r"(^|\.)(visual\.conv1|visual\.class_embedding|visual\.trunk\.|class_embedding)",
        "a CLIP model with OpenAI's names",
    ),
    (r"(^|\.)layers\.\d+\.(blocks|residual_group)\.\d+\.", "a Swin or another hierarchical transformer"),
    (r"(^|\.)encoder\.layers\.\d+\.blocks\.\d+\.", "a Swin with Hugging Face's names"),
    (r"(^|\.)blocks\.0\.(0|blocks\.0\.0)\.", "a Twins, CrossViT or another hierarchical transformer"),
    (r"(^|\.)(pixel_embed|blocks\.0\.attn_in)\.", "a TNT"),
    (r"(^|\.)network\.0\.", "a VOLO or another hierarchical transformer"),
    (r"(^|\.)transformers\.\d+\.blocks\.", "a PiT"),
    (r"(^|\.)embeds\.(proj|pos_embed)", "a NaFlexViT"),
    (r"(^|\.)blocks\.0\.attn\.temperature$", "an XCiT"),
    (r"(^|\.)layer1\.0\.conv1\.weight$", "a ResNet"),
    (r"(^|\.)(stages|features)\.\d+\.", "a convolutional or hierarchical network"),
)
# Parts of ViTs that change what the model computes and that VitConfig has no field for.
_UNSUPPORTED: tuple[tuple[str, str], ...] = (
    (r"^blocks\.0\.attn\.(pos_proj|gating_param)", "gated positional attention, as ConViT has it"),
    (r"^blocks_token_only\.", "class-attention blocks, as CaiT has them (blocks_token_only)"),
    (r"^blocks\.0\.attn\.proj_[lw]\.", "talking heads, as CaiT has them (attn.proj_l)"),
    (r"^(storage_tokens|rope_embed\.)", "rotary position embeddings, as DINOv3 has them (rope_embed)"),
    (
        r"^blocks\.0\.(attn|mlp)\.(inner_attn_ln|ffn_ln)\.",
        "norms inside attention or MLP, as BEiT-3 and EVA-02 have them",
    ),
    (r"^(rel_pos_bias|blocks\.0\.attn)\.relative_position", "relative position embeddings, as BEiT has them"),
    (r"^(blocks\.0\.attn\.)?(rel_pos|relative_position)", "relative position embeddings"),
    (r"(^|\.)(rope|freqs?_cis|freqs)(\.|_|$)", "rotary position embeddings (RoPE)"),
    (
        r"^blocks\.0\.mlp\.(w12|w3|w1|fc1_g|fc1_x)\.",
        "a gated MLP (SwiGLU), as DINOv2's ViT-g, EVA-02 and AIMv2 have it",
    ),
    (r"^blocks\.0\.attn\.[qkv]_bias$", "biases of q and v alone, as BEiT and EVA have them (attn.q_bias)"),
    (r"^blocks\.0\.attn\.(q|k|v|q_proj|k_proj|v_proj)\.weight$", "separate q, k and v projections, as EVA-02 has them"),
    (r"^blocks\.0\.attn\.[qk]_norm\.", "normalised queries and keys (attn.q_norm)"),
    (r"^blocks\.0\.(attn|mlp)\.norm\.", "norms inside attention or MLP, as BEiT-3 and EVA-02 have them"),
    (r"^blocks\.0\.attn\.lambda_", "differential attention (attn.lambda_q1)"),
    (r"^blocks\.0\.(in_proj|attns\.|ffns\.|mlp_in_proj|attn_out_proj)", "blocks with parallel branches"),
    (r"^attn_pool\.", "attention pooling, as SigLIP has it (attn_pool)"),
    (r"^patch_embed\.(backbone|conv|norm)", "a convolutional or normalised stem"),
)


def refuse_foreign(shapes: Shapes) -> None:
    """Refuse anything but a plain ViT with timm's names, naming the family that it belongs to.

    Raises:
        CheckpointError: It is another network.
    """
    if "patch_embed.proj.weight" in shapes and any(name.startswith("blocks.0.") for name in shapes):
        what = _unsupported(shapes)
        if what is not None:
            raise CheckpointError(f"the model has {what}, which tmdeploy's ViT lacks", remedy=_PATCH)
        return
    for pattern, what in _FOREIGN:
        if any(re.search(pattern, name) for name in shapes):
            raise CheckpointError(f"this looks like {what}, not a timm-style ViT", remedy=READABLE)
    some = ", ".join(sorted(shapes)[:3])
    raise CheckpointError(
        f"no ViT: 'patch_embed.proj.weight' and 'blocks.0.*' are not among its {len(shapes)} tensors ({some}, ...)",
        remedy=READABLE,
    )


def _unsupported(shapes: Shapes) -> str | None:
    for pattern, what in _UNSUPPORTED:
        if any(re.search(pattern, name) for name in shapes):
            return what
    if "pos_embed" not in shapes:
        relative = "rotary or relative position embeddings, as DINOv3, RoPE-ViT and BEiT have them"
        return f"{relative} (there is no pos_embed)"
    if {"blocks.0.norm1.weight"} <= shapes.keys() and "blocks.0.norm1.bias" not in shapes:
        return "RMSNorm, or LayerNorm without a bias (there is no norm1.bias)"
    into, out = shapes.get("blocks.0.mlp.fc1.weight", ()), shapes.get("blocks.0.mlp.fc2.weight", ())
    if len(into) == 2 and len(out) == 2 and into[0] == 2 * out[1]:
        return "a gated MLP (SwiGLU), as DINOv2's ViT-g has it (mlp.fc1 is twice as wide as mlp.fc2)"
    if not {"norm.weight", "fc_norm.weight"} & shapes.keys():
        return "no final norm, as RADIO and Perception Encoders do without"
    return None
