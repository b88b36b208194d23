"""What stores do in their own ways: pages in no order, some of them empty."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow
import pytest

from penguins import dialect, registry
from penguins.tracking import Tracking

PAGES: list[list[int]] = [[2, 1], [], [5, 3], [4]]
"""Which versions each page holds; as Unity Catalog may give them, in no order, and one page empty."""


class Registry(BaseHTTPRequestHandler):
    """What Unity Catalog's answer to a search looks like to MLflow's client."""

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        assert asked.path == "/api/2.0/mlflow/model-versions/search"
        query = parse_qs(asked.query)
        assert query["filter"] == ["name='penguins'"]
        assert int(query["max_results"][0]) <= 1000, "what Unity Catalog gives at most"
        place = int(query.get("page_token", ["0"])[0])
        found = [{"name": "penguins", "version": str(number), "tags": tags_of(number)} for number in PAGES[place]]
        more = {"next_page_token": str(place + 1)} if place + 1 < len(PAGES) else {}
        answer = json.dumps({"model_versions": found, **more}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def tags_of(number: int) -> list[dict[str, str]]:
    return [{"key": "champion", "value": str(number)}] if number in {1, 4} else []


@pytest.fixture
def paged() -> Iterator[None]:
    """A registry that gives two versions a page at most, which MLflow uses until the test is over."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Tracking(f"http://127.0.0.1:{server.server_port}").activate()
        yield
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
        server.shutdown()


def test_every_page_of_the_registry_counts(paged: None) -> None:
    assert sorted(int(found.version) for found in dialect.versions("penguins")) == [1, 2, 3, 4, 5]
    assert registry.newest("penguins").number == 5, "which is on the third page"
    # Where a tag stands for an alias, the champion is the version with the highest count: on the last page.
    assert dialect._marks(mlflow.MlflowClient(), "penguins", "champion") == {1: 1, 4: 4}
    assert dialect._oldest(mlflow.MlflowClient(), "penguins") == "1"


def test_every_page_of_runs_counts_also_when_they_change_on_the_way(store: Path) -> None:
    client = mlflow.MlflowClient()
    runs = {client.create_run("0").info.run_id for _ in range(5)}
    found = dialect.every(
        lambda token: client.search_runs(["0"], "attributes.status = 'RUNNING'", max_results=2, page_token=token)
    )
    assert {run.info.run_id for run in found} == runs
    assert len(found) == 5
