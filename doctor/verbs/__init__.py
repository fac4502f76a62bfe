"""One module per verb, with what it needs and no more: `check` does not load the network."""
