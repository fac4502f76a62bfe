"""Redact: take out of facts and texts what is nobody else's business, and count it.

Names of users, home folders, tokens, hosts and addresses go; what a check needs stays, so that
saved facts can be judged again and say the same.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

PATTERNS = {  # what -> (pattern, what stands there instead); what it calls kept stays
    "token": (
        r"\b(?:hf_|ghp_|gho_|ghs_|github_pat_|sk-|xox[bp]-|AKIA|glpat-|civitai_)[A-Za-z0-9_-]{12,}"
        r"|\beyJ[\w-]{10,2000}\.[\w-]{4,4000}(?:\.[\w-]{0,2000})?"  # a JSON web token
        r"|(?i:(?P<kept>\b(?:bearer|basic) |(?:token|api[_-]?key|password|passwd|secret)"
        r"[\"']?(?:=|: ?)[\"']?))(?!(?:TOKEN|bearer|basic|none|null|true|false)\b)"
        r"[^&\s\"',;]{4,4000}",
        "TOKEN",
    ),
    "login": (r"(?<=://)[^/@\s\"']{1,100}(?=@)", "LOGIN"),
    "address": (r"\b(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}\b(?![.\w+])", "ADDRESS"),
    "mail": (r"\b(?!LOGIN@)[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b", "MAIL"),
    "home": (
        r"(?i:(?<=/home/)[^/\s\"':]+|(?<=/users/)(?!shared\b)[^/\s\"':]+"
        r"|(?<=/media/)[^/\s\"':]+"
        r"|(?<=:\\users\\)(?!public\b)[^\\\"':\n]+|(?<=:\\\\users\\\\)[^\\\"':\n]+)",
        "USER",
    ),
    "host": (
        r"\b(?!HOST\b)(?:[\w-]{1,63}\.){1,5}(?:local|lan|corp|internal|intranet|localdomain)\b"
        r"|\bS-1-5-21-\d{1,10}-\d{1,10}-\d{1,10}-\d{1,10}",  # the number of a Windows account
        "HOST",
    ),
}
GENERIC = frozenset("root user users admin administrator runner ubuntu app home".split())
COMPILED = {what: (re.compile(text), instead) for what, (text, instead) in PATTERNS.items()}
SECRET = re.compile(  # whole words: tokenizers and secretstorage are packages
    r"(?i:(?:TOKEN|SECRET(?:_?KEY)?|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIAL)S?(?![a-z]))"
    r"|(?:[tT]oken|[sS]ecret|[pP]assword|[cC]redential)s?(?=[A-Z][a-z])"
)
ADDRESSES = re.compile(r"_proxy$|INDEX|_ENDPOINT|FIND_LINKS", re.IGNORECASE)
HOST = re.compile(r"(?<=://)(?:[^/@\s]*@)?([^/:\s\"',]+)")
KNOWN = re.compile(r"(?:^|\.)(?:pytorch\.org|github\.com|huggingface\.co|localhost)$|^127\.")
FREE = frozenset({"version", "driver", "build", "requires", "specifier"})  # numbers, no addresses


@dataclass(frozen=True)
class Redacted:
    data: Any
    counts: dict[str, int]  # what -> how often it was taken out


def redact(data: Any, names: tuple[str, ...] = ()) -> Redacted:
    """The same JSON without names. `names` are words of this machine: its user, its host; who has
    a home folder in it has a name as well."""
    counts: Counter[str] = Counter()
    return Redacted(clean(data, "", words((*names, *owners(data))), counts), dict(counts))


def owners(data: Any) -> set[str]:
    """Whose home folders are named anywhere."""
    if isinstance(data, dict):
        return set().union(*map(owners, data), *map(owners, data.values()))
    if isinstance(data, list):
        return set().union(*map(owners, data))
    return set(COMPILED["home"][0].findall(data)) if isinstance(data, str) else set()


def own_names() -> tuple[str, ...]:
    """The user and the host of this machine, as the system calls them."""
    user = os.environ.get("USER") or os.environ.get("USERNAME") or ""
    host = os.environ.get("HOSTNAME") or os.environ.get("COMPUTERNAME") or ""
    if hasattr(os, "uname"):
        host = host or os.uname().nodename
    return user, host


def words(names: tuple[str, ...]) -> re.Pattern[str] | None:
    """Whole words only, and none that every machine has."""
    own = {name for name in names if len(name) > 2 and name.lower() not in GENERIC}
    kept = [re.escape(name) for name in sorted(own - {"localhost", "USER"})]
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
        text, times = pattern.subn(partial(replacement, instead), text)
        counts[what] += times
    if ADDRESSES.search(key):
        text = HOST.sub(lambda found: host(found, counts), text)
    if names is not None:
        text, times = names.subn("NAME", text)
        counts["name"] += times
    return text


def replacement(instead: str, found: re.Match[str]) -> str:
    return (found.groupdict().get("kept") or "") + instead


def host(found: re.Match[str], counts: Counter[str]) -> str:
    if KNOWN.search(found[1]):
        return found[0]
    counts["host"] += 1
    return "HOST"
