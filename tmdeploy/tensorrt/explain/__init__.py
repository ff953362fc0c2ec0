"""What an engine is made of, layer by layer."""
