import gzip
import json
import os
import random
import re
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner import tokenizer
from runner.recipe import Refused
from runner.tokenizer import END, START, chunks, encode, segments

GOLDEN = json.loads(Path("runner/data/golden.sd15.json").read_text("utf-8"))


@pytest.mark.parametrize("name", GOLDEN["prompts"])
def test_golden_prompts_are_read_as_comfyui_reads_them(name):
    ours = [[list(token) for token in chunk] for chunk in chunks(GOLDEN["prompts"][name])]
    assert ours == GOLDEN["tokens"][name]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [("a", 1.0)]),
        ("(a)", [("a", 1.1)]),
        ("((a))", [("a", 1.1 * 1.1)]),
        ("(a:1.3)", [("a", 1.3)]),
        ("((a:1.3))", [("a", 1.3)]),
        ("(a:b:0.5)", [("a:b", 0.5)]),
        ("(a:-2)", [("a", -2.0)]),
        ("(a:x)", [("a:x", 1.1)]),
        ("(:2)", [(":2", 1.1)]),
        ("x (a (b:2) c:3) y", [("x ", 1.0), ("a ", 3.0), ("b", 2.0), (" c", 3.0), (" y", 1.0)]),
        ("(a", [("(a", 1.0)]),
        ("a)", [("a)", 1.0)]),
        ("a)(b)", [("a)(b)", 1.0)]),
        ("()", []),
        ("[a]", [("[a]", 1.0)]),
        ("a BREAK b", [("a BREAK b", 1.0)]),
    ],
)
def test_weights(prompt, expected):
    assert list(segments(prompt)) == [(t, pytest.approx(w)) for t, w in expected]


def test_a_bracket_after_a_backslash_is_text():
    ids = [token for token, _ in chunks(r"\(a\)")[0]]
    assert ids[1 : 1 + len(encode("(a)"))] == encode("(a)")
    assert all(weight == 1.0 for _, weight in chunks(r"\(a\)")[0])


def test_a_short_segment_moves_whole_to_the_next_chunk():
    first, second = chunks("(" + "a " * 74 + ":1.1)(b c d:1.2)")
    assert [t for t, _ in first].count(END) == 2
    assert second[1:4] == [(t, 1.2) for t in encode("b c d")]


def test_a_long_segment_is_cut():
    first, second = chunks("a " * 80)
    assert (len(first), len(second), first[-1][0]) == (77, 77, END)
    assert [t for t, _ in second].count(encode("a")[0]) == 5


def test_a_missing_embedding_is_left_out_and_named():
    assert chunks("a embedding:foo cat") == chunks("a(cat:1.0)")
    assert tokenizer.embeddings_named("a embedding:foo, cat embedding:bar") == ["foo", "bar"]
    assert tokenizer.embeddings_named("a cat") == []
    assert chunks("embedding:") == chunks("")


def test_too_many_brackets_are_one_sentence():
    with pytest.raises(Refused, match="100 brackets"):
        chunks("(" * 5000 + "a" + ")" * 5000)
    assert chunks("(" * 50_000)[0][0] == (START, 1.0)


@given(st.text())
def test_every_prompt_is_whole_chunks(prompt):
    for chunk in chunks(prompt):
        assert len(chunk) == 77
        assert chunk[0] == (START, 1.0)
        assert (END, 1.0) in chunk


@given(st.text(alphabet="ab ():.1\\"), st.floats(0.1, 3))
def test_brackets_never_lose_text(prompt, weight):
    letters = re.sub(r"[^ab]", "", prompt)
    kept = "".join(text for text, _ in segments(prompt, weight))
    assert re.sub(r"[^ab]", "", kept) == letters or ":" in prompt


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """transformers' CLIPTokenizer over the vocabulary that is shipped here."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("clip")
    known = tokenizer.vocabulary()
    (folder / "vocab.json").write_text(json.dumps(known.ids))
    pairs = "\n".join(" ".join(pair) for pair in known.ranks)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{pairs}\n", "utf-8")
    return transformers.CLIPTokenizer.from_pretrained(str(folder))


ODD = "a1'! ,.ßÉé\u0301ΑΣς\u0130中文🙂\u00a0\u2003\n\tﬁ٣½_-'s're<|endoftext|>$%\u200d"


def test_ten_thousand_prompts_are_tokenised_as_transformers_does(theirs):
    @settings(max_examples=10_000, deadline=None, database=None)
    @example("it's THE dog's 3.5% <|endoftext|> café")
    @example("ΟΔΟΣ ὈΔΥΣΣΕΎΣ İstanbul")
    @given(
        st.one_of(
            st.text(alphabet=ODD, max_size=30),
            st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]), max_size=12),
            st.lists(st.sampled_from(WORDS)).map(" ".join),
        )
    )
    def same(text):
        assert encode(text) == theirs(text)["input_ids"][1:-1]

    same()


WORDS = "a photo of an astronaut's well-lit (masterpiece:1.2) 8k, CINEMATIC ... don't we'll".split()


PIECES = (
    *r"( ( ( ) ) ) : : \( \) \ , . [ ] | {a|b} <|endoftext|> BREAK AND 1.3 -0.5 :1.3) :0)".split(),
    *(" ", "\n", "\t", ":nan)", ":inf)", ": 1.5 )", ":1e-3)", "(:2)", "()", "cat", "dog's", "é"),
    *("中文", "a" * 40, "a photo of an astronaut riding a horse on mars, highly detailed, 8k" * 2),
    *(" embedding:one", " embedding:two,", "\nembedding:one", "embedding:two", " embedding:none"),
    *(" embedding:one.safetensors", " embedding:two.pt,, x", " embedding:../one", "xembedding:one"),
    *(" embedding:sub/three", " embedding:wide", " embedding:,one", "(embedding:two:1.2)", " "),
)


def hard_prompts(count=10_000):
    """Prompts made of what the weight parser looks at, the same on every machine."""
    dice = random.Random(4)
    return ["".join(dice.choices(PIECES, k=dice.randint(1, 14))) for _ in range(count)]


def shelf(folder):
    """A folder of embeddings: of one and of two vectors, one in a folder below, one too wide."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    (folder / "sub").mkdir(parents=True, exist_ok=True)
    save_file({"emb_params": torch.full((1, 768), 0.25)}, folder / "one.safetensors")
    vectors = torch.arange(2 * 768).reshape(2, 768) / 1024
    torch.save({"string_to_param": {"*": vectors}, "name": "two"}, folder / "two.pt")
    save_file({"emb_params": torch.full((9, 768), 0.5)}, folder / "sub" / "three.safetensors")
    save_file({"emb_params": torch.full((1, 1024), 0.75)}, folder / "wide.safetensors")
    return folder


def test_hard_prompts_are_read_as_comfyui_reads_them(tmp_path):
    """2,000 of 10,000; all of them where HARD_PROMPTS=all."""
    from runner.embeddings import Shelf

    known = Shelf((shelf(tmp_path / "shelf"),)).known("clip_l", 768)
    golden = json.loads(gzip.decompress(Path("tests/golden/prompts.json.gz").read_bytes()))
    share = 1 if os.environ.get("HARD_PROMPTS") == "all" else 5
    asked = list(zip(hard_prompts(), golden, strict=True))[::share]
    for prompt, theirs in asked:
        rows = [[plain(*token) for token in chunk] for chunk in chunks(prompt, known=known)]
        assert zlib.crc32(repr(rows).encode()) == theirs, prompt


def plain(token, weight):
    return token if isinstance(token, int) else [float(n) for n in token[:2]], weight
