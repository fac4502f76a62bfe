"""A doctor for ComfyUI installations.

facts    = examine(request)             look, and change nothing
findings = diagnose(facts)              pure
plan     = prescribe(findings, facts)   pure
receipts = treat(plan)                  the only verb that changes the machine
"""

__version__ = "0.1.0"
