"""What is written beside an engine, and what its first bytes say."""
