import pytest

from doctor.listen import of_words

CASES = {
    "": (("127.0.0.1",), 8188, "http://127.0.0.1:8188", ()),
    "--port 9000": (("127.0.0.1",), 9000, "http://127.0.0.1:9000", ()),
    "--port=9000 --port 9001": (("127.0.0.1",), 9001, "http://127.0.0.1:9001", ()),
    "--listen": (("0.0.0.0", "::"), 8188, "http://127.0.0.1:8188", ("0.0.0.0", "::")),
    "--listen --cpu": (("0.0.0.0", "::"), 8188, "http://127.0.0.1:8188", ("0.0.0.0", "::")),
    "--listen ::": (("::",), 8188, "http://[::1]:8188", ("::",)),
    "--listen 192.168.1.5": (("192.168.1.5",), 8188, "http://192.168.1.5:8188", ("192.168.1.5",)),
    "--listen localhost": (("localhost",), 8188, "http://localhost:8188", ()),
    "--listen 127.0.0.1,::1": (("127.0.0.1", "::1"), 8188, "http://127.0.0.1:8188", ()),
    "--tls-keyfile k --tls-certfile c": (("127.0.0.1",), 8188, "https://127.0.0.1:8188", ()),
    "--tls-keyfile k": (("127.0.0.1",), 8188, "http://127.0.0.1:8188", ()),
    "--port nonsense": (("127.0.0.1",), 8188, "http://127.0.0.1:8188", ()),
}


@pytest.mark.parametrize("words", CASES)
def test_where_it_answers_and_whom_it_lets_in(words):
    listening = of_words(words.split())
    assert (listening.addresses, listening.port, listening.url, listening.exposed) == CASES[words]
