"""Redact: take out of facts and texts what is nobody else's business, and count it.

Names of users, home folders, tokens, hosts and addresses go; what a check needs stays, so that
saved facts can be judged again and say the same.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

PATTERNS = {  # what -> (pattern, what stands there instead)
    "token": (
        r"\b(?:hf_|ghp_|gho_|ghs_|github_pat_|sk-|xox[bp]-|AKIA|glpat-|civitai_)[A-Za-z0-9_-]{12,}"
        r"|(?<=[?&]token=)[^&\s\"']{4,}|(?<=[Bb]earer )[A-Za-z0-9._-]{8,}"
        r"|(?i:(?<=api_key=)|(?<=password=)|(?<=secret=))[^&\s\"']{3,}",
        "TOKEN",
    ),
    "login": (r"(?<=://)[^/@\s\"']{1,100}(?=@)", "LOGIN"),
    "address": (r"\b(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}\b(?![.\w+])", "ADDRESS"),
    "mail": (r"\b(?!LOGIN@)[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b", "MAIL"),
    "home": (
        r"(?<=/home/)[^/\s\"':]+|(?<=/Users/)(?!Shared\b)[^/\s\"':]+"
        r"|(?<=:\\Users\\)(?!Public\b)[^\\\"':\n]+|(?<=:\\\\Users\\\\)[^\\\"':\n]+",
        "USER",
    ),
}
COMPILED = {what: (re.compile(text), instead) for what, (text, instead) in PATTERNS.items()}
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY|CREDENTIAL", re.IGNORECASE)
ADDRESSES = re.compile(r"_proxy$|INDEX|_ENDPOINT|FIND_LINKS", re.IGNORECASE)
HOST = re.compile(r"(?<=://)(?:[^/@\s]*@)?([^/:\s\"',]+)")
KNOWN = re.compile(r"(?:^|\.)(?:pytorch\.org|github\.com|huggingface\.co|localhost)$|^127\.")
FREE = frozenset({"version", "driver", "build", "requires", "specifier"})  # numbers, no addresses


@dataclass(frozen=True)
class Redacted:
    data: Any
    counts: dict[str, int]  # what -> how often it was taken out


def redact(data: Any, names: tuple[str, ...] = ()) -> Redacted:
    """The same JSON without names. `names` are words of this machine: its user, its host."""
    counts: Counter[str] = Counter()
    return Redacted(clean(data, "", words(names), counts), dict(counts))


def own_names() -> tuple[str, ...]:
    """The user and the host of this machine, as the system calls them."""
    user = os.environ.get("USER") or os.environ.get("USERNAME") or ""
    host = os.environ.get("HOSTNAME") or os.environ.get("COMPUTERNAME") or ""
    if hasattr(os, "uname"):
        host = host or os.uname().nodename
    return user, host


def words(names: tuple[str, ...]) -> re.Pattern[str] | None:
    """Whole words only, and none that every machine has."""
    kept = [re.escape(n) for n in names if len(n) > 2 and n not in ("root", "user", "localhost")]
    return re.compile(rf"(?<![\w-])(?:{'|'.join(kept)})(?![\w-])") if kept else None


def clean(data: Any, key: str, names: re.Pattern[str] | None, counts: Counter[str]) -> Any:
    if isinstance(data, dict):
        return {
            clean_text(str(k), "", names, counts): clean(value, str(k), names, counts)
            for k, value in data.items()
        }
    if isinstance(data, list):
        return [clean(item, key, names, counts) for item in data]
    return clean_text(data, key, names, counts) if isinstance(data, str) else data


def clean_text(text: str, key: str, names: re.Pattern[str] | None, counts: Counter[str]) -> str:
    if SECRET.search(key) and text:
        counts["token"] += 1
        return "TOKEN"
    for what, (pattern, instead) in COMPILED.items():
        if what == "address" and key in FREE:
            continue
        text, times = pattern.subn(instead, text)
        counts[what] += times
    if ADDRESSES.search(key):
        text = HOST.sub(lambda found: host(found, counts), text)
    if names is not None:
        text, times = names.subn("NAME", text)
        counts["name"] += times
    return text


def host(found: re.Match[str], counts: Counter[str]) -> str:
    if KNOWN.search(found[1]):
        return found[0]
    counts["host"] += 1
    return "HOST"
