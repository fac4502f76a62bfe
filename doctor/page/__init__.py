"""Page: a run as one HTML file for people: both languages, light and dark, no script, no network.

Everything it says is in report.json and in the pictures beside it.
"""
