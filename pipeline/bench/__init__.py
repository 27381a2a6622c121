"""How fast the whole station is, beside the bare runtime and beside what else could be used."""
