"""python -m doctor is comfy-doctor."""

from doctor.start import main

if __name__ == "__main__":
    raise SystemExit(main())
