"""Files, caches, child processes and facts about the machine, for every other package."""
