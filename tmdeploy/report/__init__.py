"""Results as JSON (`schemas`) and as tables (`tables`)."""
