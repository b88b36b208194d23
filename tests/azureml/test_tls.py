"""The servers of these tests are asked over TLS, and only by who trusts their authority."""

from __future__ import annotations

import pytest
import requests

from tests.azureml.tls import Authority, Handler, https_server

pytestmark = pytest.mark.azureml


class Echo(Handler):
    def do_POST(self) -> None:  # noqa: N802  # http.server's own name
        self.answer(200, self.body()[::-1], **{"X-Said": "backwards"})


def test_who_trusts_the_authority_gets_an_answer(trusted: Authority) -> None:
    with https_server(Echo, trusted) as url:
        answers = [requests.post(url, data=said, timeout=5) for said in (b"ice", iter([b"fl", b"oe"]))]
        assert [answer.text for answer in answers] == ["eci", "eolf"]
        assert answers[0].headers["X-Said"] == "backwards"
        assert requests.get(url, timeout=5).status_code == 501


def test_who_does_not_gets_none(authority: Authority) -> None:
    with https_server(Echo, authority) as url, pytest.raises(requests.exceptions.SSLError):
        requests.post(url, data=b"ice", timeout=5)


def test_a_server_that_was_stopped_is_gone(trusted: Authority) -> None:
    with https_server(Echo, trusted) as url:
        pass
    with pytest.raises(requests.ConnectionError):
        requests.post(url, data=b"ice", timeout=5)
