"""Turning a plain ViT into a merged one: the only torch code between methods and models."""
