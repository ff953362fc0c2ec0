"""The files beside an engine, and the header of the engine itself."""
