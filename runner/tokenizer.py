"""Tokenizer: a prompt as ComfyUI reads it: weights, words, byte pairs, chunks of 77.

Text becomes numbers by CLIP's byte-pair encoding (Radford et al. 2021; Sennrich et al. 2016) over
the vocabulary in `data/`; the weights in brackets and the chunks are ComfyUI's (sd1_clip.py).
What a name after `embedding:` means it is told: vectors that stand for tokens, or nothing.
"""

import gzip
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from runner.recipe import Refused

VOCABULARY = Path(__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
MERGES = 48_894  # of the lines in the file; the rest never was in CLIP
START, END = 49_406, 49_407
CHUNK = 77
LONG_WORD = 8  # tokens; a segment this long may be cut between two chunks
DEEPEST = 100  # nested brackets
END_OF_WORD = "</w>"
MARK = "embedding:"

Token = tuple[Any, float]  # (id, or a vector in its place; weight)
Chunk = list[Token]  # 77 of them

Known = Callable[[str], Sequence[Any] | None]  # the vectors of an embedding's name

# White space as Unicode has it: Python's own \s adds the separators 1c..1f.
SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
SPECIAL = re.compile(r"(<\|startoftext\|>|<\|endoftext\|>)")
SUFFIXES = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


@dataclass(frozen=True)
class Vocabulary:
    """What is known of words: the rank of every merge, the number of every token."""

    ranks: dict[tuple[str, str], int]
    ids: dict[str, int]


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """The vocabulary of CLIP: 256 bytes, the same ending a word, the merges, two marks."""
    merges = []
    with gzip.open(VOCABULARY, "rt", encoding="utf-8") as lines:
        next(lines)  # a version line
        for line, _ in zip(lines, range(MERGES), strict=False):
            first, second = line.split()
            merges.append((first, second))
    letters = list(alphabet().values())
    tokens = letters + [letter + END_OF_WORD for letter in letters]
    tokens += ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return Vocabulary(
        {pair: rank for rank, pair in enumerate(merges)},
        {token: number for number, token in enumerate(tokens)},
    )


@lru_cache(maxsize=1)
def alphabet() -> dict[int, str]:
    """A printable letter for every byte: itself where it has one, else from 256 upwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + place) for place, byte in enumerate(others)}


def encode(text: str) -> list[int]:
    """The token ids of a text, without marks around it; equal to CLIPTokenizer's."""
    ids: list[int] = []
    for piece in SPECIAL.split(text):
        if SPECIAL.fullmatch(piece):
            ids.append(vocabulary().ids[piece])
        else:
            for word in words(piece):
                ids.extend(byte_pairs(word))
    return ids


def words(text: str) -> Iterator[str]:
    """Runs of letters, single digits, runs of anything else; English suffixes apart."""
    text = SPACE.sub(" ", unicodedata.normalize("NFC", text))
    text = "".join(letter.lower() for letter in text)  # letter by letter: no final sigma
    at = 0
    while at < len(text):
        suffix = next((end for end in SUFFIXES if text.startswith(end, at)), None)
        stop = at + len(suffix) if suffix else run_of(text, at)
        if text[at] != " ":
            yield text[at:stop]
        at = stop


def run_of(text: str, at: int) -> int:
    """Where the run that begins here ends. A digit or a space is a run of its own."""
    here, stop = kind(text[at]), at + 1
    while here in "LO" and stop < len(text) and kind(text[stop]) == here:
        stop += 1
    return stop


@lru_cache(maxsize=65_536)
def kind(letter: str) -> str:
    """L letter, N number, S space, O anything else, by Unicode's categories."""
    if SPACE.match(letter):
        return "S"
    major = unicodedata.category(letter)[0]
    return major if major in "LN" else "O"


@lru_cache(maxsize=65_536)
def byte_pairs(word: str) -> tuple[int, ...]:
    """A word's bytes, merged pair by pair, the pair that was learned first going first."""
    known = vocabulary()
    parts = [alphabet()[byte] for byte in word.encode("utf-8", "replace")]
    parts[-1] += END_OF_WORD
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: known.ranks.get(pair, MERGES))
        if best not in known.ranks:
            break
        parts = merged(parts, best)
    return tuple(known.ids[part] for part in parts)


def merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts with every occurrence of a pair made one, from left to right."""
    out: list[str] = []
    at = 0
    while at < len(parts):
        if tuple(parts[at : at + 2]) == pair:
            out.append("".join(pair))
            at += 2
        else:
            out.append(parts[at])
            at += 1
    return out


def segments(text: str, weight: float = 1.0, depth: int = 0) -> Iterator[tuple[str, float]]:
    """A prompt's pieces and their weights: (x) times 1.1, (x:1.3) exactly 1.3."""
    if depth > DEEPEST:
        raise Refused("prompt-too-deep", f"The prompt nests more than {DEEPEST} brackets.")
    for piece in bracketed(text):
        if len(piece) < 2 or piece[0] != "(" or piece[-1] != ")":
            yield piece, weight
            continue
        inner, inner_weight = piece[1:-1], weight * 1.1
        colon = inner.rfind(":")
        given = number(inner[colon + 1 :]) if colon > 0 else None
        if given is not None:
            inner, inner_weight = inner[:colon], given
        yield from segments(inner, inner_weight, depth + 1)


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def bracketed(text: str) -> Iterator[str]:
    """Cut before each outermost "(" and after its ")". One that never closes stays text."""
    depth = start = 0
    for at, letter in enumerate(text):
        if letter == "(":
            if depth == 0:
                if at > start:
                    yield text[start:at]
                start = at
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                yield text[start : at + 1]
                start = at + 1
    if start < len(text):
        yield text[start:]


def nothing(name: str) -> None:
    """No embedding is known."""


def groups(prompt: str, known: Known = nothing) -> Iterator[Chunk]:
    """The tokens of each segment with their weight; brackets after a backslash are text."""
    for piece, weight in pieces(prompt):
        plain, vectors = piece, None
        if piece.startswith(MARK):
            plain, vectors = embedded(piece, known)
        if vectors:
            yield [(vector, weight) for vector in vectors]
        if plain:
            yield [(token, weight) for token in encode(plain)]


def pieces(prompt: str) -> Iterator[tuple[str, float]]:
    """Segments with their weights, cut before every `embedding:` that follows a space or a line."""
    hidden = prompt.replace("\\)", "\0\1").replace("\\(", "\0\2")
    for segment, weight in segments(hidden):
        text = segment.replace("\0\1", ")").replace("\0\2", "(")
        first, *rest = re.split(f"[ \n]{MARK}", text)
        for piece in [first, *(MARK + name for name in rest)]:
            yield piece, weight


def embedded(piece: str, known: Known) -> tuple[str, Sequence[Any] | None]:
    """What ComfyUI goes on with after an embedding, and its vectors, if there are any.

    A name ends at white space; without a file of that name it ends before its commas, too.
    """
    name, *rest = piece.removeprefix(MARK).strip("\n").split() or [""]
    left, bare = " ".join(rest), name.strip(",")
    vectors = known(name) if name else None
    if vectors is not None or bare == name:
        return left, vectors
    return f"{name[len(bare) :]} {left}", known(bare) if bare else None


def embeddings_named(prompt: str) -> list[str]:
    """The names after `embedding:` in a prompt, without their commas."""
    named = [piece for piece, _ in pieces(prompt) if piece.startswith(MARK)]
    return [(piece.removeprefix(MARK).split() or [""])[0].strip(",") for piece in named]


def chunks(prompt: str, pad: int = END, known: Known = nothing) -> list[Chunk]:
    """A prompt as chunks of 77 (id, weight), each with its own start and end.

    Where `known` has vectors for the name of an embedding, each stands in the place of an id.

    A segment of fewer than 8 tokens that does not fit moves whole to the next chunk.
    """
    done: list[Chunk] = [[(START, 1.0)]]
    for group in groups(prompt, known):
        long = len(group) >= LONG_WORD
        while group:
            room = CHUNK - 1 - len(done[-1])
            if len(group) <= room:
                done[-1] += group
                break
            if long:
                done[-1] += group[:room]
                group = group[room:]
            close(done[-1], pad)
            done.append([(START, 1.0)])
    close(done[-1], pad)
    return done


def close(chunk: Chunk, pad: int) -> None:
    chunk.append((END, 1.0))
    chunk.extend([(pad, 1.0)] * (CHUNK - len(chunk)))
