"""Are the files of an archive those of the commit: its tree, from whoever can prove it.

A commit's tree comes by git from any route, since git checks each object by its id, or from the
origin's API over TLS.
"""

import json
import threading
from contextlib import closing
from pathlib import Path

from doctor import git
from doctor.archive import Unpacked
from doctor.download import read
from doctor.errand import Errand, Named, git_until, remove
from doctor.mirrors import Route, Unreachable, api, private
from doctor.race import Way, raced
from doctor.tree import Listing, as_committed, differences, listing, tree_of

Claim = tuple[str, Listing]  # the id of a tree, and its files; "" where nobody told
SHOWN = 8  # files that an archive and its commit do not agree about, named in one line


def doubt(claimed: Claim, found: Unpacked) -> str:
    """What speaks against an archive's files being those of the commit; "" where nothing does."""
    tree, files = claimed
    if not tree:
        return "no route gave the commit to compare it with"
    there = as_committed(found.path, listing(found.path, found.modes), files)
    if tree_of(there) == tree:
        return ""
    lines = list(differences(files, there)) if files else []
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    told = "; ".join(lines[:SHOWN]) or "its files are not those of the commit"
    return f"{told}{more} (export-ignore, export-subst, LFS, or somebody changed it)"


def claim(errand: Errand, named: Named) -> Claim:
    """(tree, files) of the commit: by git from any route, else by the origin's API over TLS."""
    if errand.git and (claimed := claim_by_git(errand, named.commit)):
        return claimed
    try:
        return claim_by_api(errand, named.commit)
    except (Unreachable, ValueError, KeyError, TypeError) as error:
        errand.tell(f"the origin's API: {error}")
        return "", {}


def claim_by_git(errand: Errand, commit: str) -> Claim | None:
    def answers(route: Route, seconds: float) -> None:
        assert errand.git
        git.refs(errand.git, route, "", seconds)

    def bring(route: Route, into: Path, stop: threading.Event) -> Claim:
        seconds = errand.left(errand.patience.ask)
        return git.claim(git_until(errand, stop), route, commit, into, seconds)

    way = Way(f"the files of {commit[:12]}", answers, bring)
    with closing(raced(errand, errand.clones, way)) as found:
        for _, scratch, claimed in found:
            remove(scratch)
            return claimed
    return None


def claim_by_api(errand: Errand, commit: str) -> Claim:
    """https://docs.github.com/rest/git/commits and /rest/git/trees."""
    base = f"{api(errand.source.home)}/git"
    if not private(base):
        raise Unreachable("tls", base, "plain http proves nothing")
    told = json.loads(read(f"{base}/commits/{commit}", timeout=errand.left(errand.patience.ask)))
    tree = told["tree"]["sha"]
    if told["sha"] != commit or not git.COMMIT.fullmatch(tree):
        raise ValueError(f"answered about {told['sha']!r:.50}")
    url = f"{base}/trees/{tree}?recursive=1"
    try:
        told = json.loads(read(url, timeout=errand.left(errand.patience.ask)))
    except Unreachable:
        return tree, {}  # enough to prove; not to say which file
    files = (one for one in told["tree"] if one["type"] != "tree")
    return tree, {one["path"]: (int(one["mode"], 8), one["sha"]) for one in files}
