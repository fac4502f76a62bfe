"""What holds for every test, whichever module is collected first."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it once, when first imported
