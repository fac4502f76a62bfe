"""python -m doctor is comfy-doctor."""

from doctor.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
