"""How the embedded checkpoint was made, and how its measures are recomputed. Not shipped."""
