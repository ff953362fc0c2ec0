"""The JSON documents of the commands."""
