"""The Vision Transformer, with timm's parameter names and numerics, for inference and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmdeploy.card.arch import Activation, VitConfig
from tmdeploy.errors import UsageError
from tmdeploy.models.stem import PatchEmbed, fuse_scales


class Attention(nn.Module):
    """Multi-head self-attention with one fused qkv projection; x [B, N, C] -> [B, N, C].

    Attributes:
        num_heads: Heads.
        head_dim: Width of a head.
        scale: Factor of the logits, head_dim ** -0.5.
    """

    def __init__(self, width: int, num_heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Softmax attention; a backend may fuse it."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        merged: Tensor = self.proj(out.transpose(1, 2).reshape(batch, tokens, width))
        return merged


class QuickGelu(nn.Module):
    """x sigmoid(1.702 x): the approximation of GELU that OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise."""
        return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: Mapping[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "quick_gelu": QuickGelu,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class Mlp(nn.Module):
    """Linear, activation, linear; x [B, N, C] -> [B, N, C]."""

    def __init__(self, width: int, hidden: int, act: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = _ACTIVATIONS[act]()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every token of x [B, N, C]."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """Multiplies every channel by a learnt factor `gamma` [C]."""

    def __init__(self, width: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """Scale x [..., C]."""
        return x * self.gamma


class Block(nn.Module):
    """Transformer block, attention then MLP, each with its residual; x [B, N, C] -> [B, N, C].

    Attributes:
        norm_placement: `pre`: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x))).
            `res_post`: x + norm1(attn(x)), then x + norm2(mlp(x)).
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_placement = config.norm_placement
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.attn = Attention(width, config.heads, qkv_bias=config.qkv_bias)
        self.ls1 = LayerScale(width) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = Mlp(width, config.mlp_width, config.act)
        self.ls2 = LayerScale(width) if config.layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then MLP, each with its residual."""
        attended: Tensor
        hidden: Tensor
        if self.norm_placement == "res_post":
            attended = self.norm1(self.attn(x))
            x = x + attended
            hidden = self.norm2(self.mlp(x))
            return x + hidden
        attended = self.ls1(self.attn(self.norm1(x)))
        x = x + attended
        hidden = self.ls2(self.mlp(self.norm2(x)))
        return x + hidden


class VisionTransformer(nn.Module):
    """A ViT of the ViT/DeiT family: `forward` = `embed`, `blocks`, `forward_head`.

    Attributes:
        config: Its architecture.
        embed_dim: Width C.
        num_prefix_tokens: Class, distillation and register tokens.
        global_pool: `token` or `avg`.
        blocks: The transformer blocks.

    Args:
        config: Architecture; position embeddings are for its image size.
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.embed_dim = self.num_features = width
        self.num_classes = config.num_classes
        self.num_prefix_tokens = config.num_prefix
        self.num_reg_tokens = config.registers
        self.has_class_token = config.class_token
        self.no_embed_class = not config.pos_embed_prefix
        self.global_pool = config.pool

        self.patch_embed = PatchEmbed(
            config.image_size, config.patch_size, config.in_channels, width, bias=config.patch_bias
        )
        if config.scales:
            self.ms_embed = nn.ModuleList(
                PatchEmbed(config.image_size, scale, config.in_channels, width, bias=True) for scale in config.scales
            )
            if config.fusion == "concat":
                self.ms_fuse = nn.Linear((1 + len(config.scales)) * width, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if config.class_token else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if config.distilled else None
        self.reg_token = nn.Parameter(torch.zeros(1, config.registers, width)) if config.registers else None
        positions = config.tokens if config.pos_embed_prefix else config.tokens - config.num_prefix
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, width))
        self.norm_pre = nn.LayerNorm(width, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.Identity() if config.fc_norm else nn.LayerNorm(width, eps=config.norm_eps)
        self.fc_norm = nn.LayerNorm(width, eps=config.norm_eps) if config.fc_norm else nn.Identity()
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        if config.distilled:
            self.head_dist = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise for training from scratch, as DeiT does: truncated normal 0.02, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for token in (self.cls_token, self.dist_token, self.reg_token, self.pos_embed):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)

    def embed(self, images: Tensor) -> Tensor:
        """Images [B, in_channels, H, W] to the tokens that enter block 0, [B, N, C]: prefix first, row by row after.

        Raises:
            UsageError: The images do not have the model's size.
        """
        wanted = (self.config.in_channels, *self.config.image_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != wanted:
            got = " x ".join(map(str, images.shape))
            raise UsageError(
                f"images of shape {got}; the model takes batch x {' x '.join(map(str, wanted))}",
                remedy="Resize the images, or load the checkpoint with another --image-size",
            )
        x = self._stem(images)
        prefix = [
            token.expand(x.shape[0], -1, -1)
            for token in (self.cls_token, self.dist_token, self.reg_token)
            if token is not None
        ]
        if self.no_embed_class:
            x = torch.cat([*prefix, x + self.pos_embed], dim=1)
        else:
            x = torch.cat([*prefix, x], dim=1) + self.pos_embed
        tokens: Tensor = self.norm_pre(x)
        return tokens

    def _stem(self, images: Tensor) -> Tensor:
        base: Tensor = self.patch_embed(images)
        if not self.config.scales:
            return base.flatten(2).transpose(1, 2)
        maps = [base, *(scale(images) for scale in self.ms_embed)]
        linear = self.ms_fuse if self.config.fusion == "concat" else None
        return fuse_scales(maps, linear, self.config.resample)

    def pool(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        """Pool the tokens into the input of the head.

        Args:
            x: [B, N, C].
            size: [B, N], patches that each token stands for; with mean pooling, the weights of the mean over patch
                tokens (ToMe's rule for MAE), sum_j s_j x_j / sum_j s_j. None weighs them equally.

        Returns:
            [B, C].
        """
        if self.global_pool == "token":
            return x[:, 0]
        patches = x[:, self.num_prefix_tokens :]
        if size is None:
            return patches.mean(dim=1)
        weight = size[:, self.num_prefix_tokens :, None].to(x.dtype)
        return (patches * weight).sum(dim=1) / weight.sum(dim=1)

    def forward_head(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        """Final norm, pooling and head.

        A distilled model averages its two heads, as DeiT does at inference.

        Args:
            x: [B, N, C], tokens that leave the last block.
            size: See `pool`.

        Returns:
            Logits [B, num_classes]; features [B, C] if there is no head.
        """
        x = self.norm(x)
        if self.config.distilled:
            logits: Tensor = (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2
        else:
            # one argument where there is no size: `tmdeploy.patch` puts its own `pool`, which knows the sizes, here
            pooled = self.pool(x) if size is None else self.pool(x, size)
            logits = self.head(self.fc_norm(pooled))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, in_channels, H, W], normalised, to logits [B, num_classes]."""
        return self.forward_head(self.blocks(self.embed(images)))
