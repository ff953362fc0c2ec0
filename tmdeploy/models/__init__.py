"""ViT families and checkpoint readers."""
