"""The scoring script, for real: Azure's own inference server in an environment of its own, without Java."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from penguins import flavor, online_endpoint, serving_copy
from penguins.tracking import Tracking
from tests.conftest import LAB_BIRD, no_java_path
from tests.servers import free_port, stop, wait_for

pytestmark = [pytest.mark.azureml, pytest.mark.slow]


@dataclass(frozen=True)
class Container:
    """An environment with the copy's packages alone, the scoring scripts, and no Java on its PATH."""

    folder: Path
    variables: dict[str, str]

    @property
    def app(self) -> Path:
        return self.folder / "app"


@dataclass
class Collection:
    """What Azure's data collector was sent: the kind, the number of the question, and the rows."""

    sent: list[tuple[str, str, str]] = field(default_factory=list)

    def of(self, text: str, count: int) -> list[tuple[str, str]]:
        """The kind and the rows of what belongs to the question with this text, in order, once there are so many."""
        deadline = time.monotonic() + 30
        while True:
            numbers = {number for _, number, rows in self.sent if text in rows}
            found = [(kind, rows) for kind, number, rows in self.sent if number in numbers]
            if len(found) >= count or time.monotonic() > deadline:
                return sorted(found)
            time.sleep(0.05)


@pytest.fixture(scope="module")
def container(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Container:
    folder = tmp_path_factory.mktemp("container")
    Tracking.local(three_models.parent).activate()
    copy = folder / "azureml-models" / "penguin_predictor-serving" / "1" / "model"
    flavor.save_without_spark("models:/penguin_predictor/1", copy, also_needs=serving_copy.IMAGES_NEED)
    python = folder / "python"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, python], check=True)
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python, "-r", copy / "requirements.txt"]
    subprocess.run(install, check=True)
    for script in (serving_copy.SCRIPT, serving_copy.BATCH_SCRIPT):
        with serving_copy.script_folder(script) as code:
            shutil.copytree(code, folder / "app", dirs_exist_ok=True)
    variables = {
        "PATH": f"{python / 'bin'}:{no_java_path(folder)}",
        "HOME": str(folder),
        "AZUREML_MODEL_DIR": str(copy.parent),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    assert shutil.which("java", path=variables["PATH"]) is None
    return Container(folder, variables)


@pytest.fixture(scope="module")
def collection() -> Iterator[tuple[Collection, int]]:
    """A data collector on this machine, and its port."""
    collection = Collection()

    class Collecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            rows = self.rfile.read(int(self.headers["Content-Length"])).decode()
            kind = self.headers["ce-type"].removeprefix("azureml.inference.")
            collection.sent.append((kind, self.headers["ce-x-request-id"], rows))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collecting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collection, server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def server(container: Container, collection: tuple[Collection, int]) -> Iterator[str]:
    """The address of Azure's server with the script, in a deployment that collects."""
    port = free_port()
    collects = {"AZUREML_MDC_ENABLED": "true", "AZUREML_MDC_PORT": str(collection[1])}
    command = ["azmlinfsrv", "--port", str(port), "--entry_script", str(container.app / serving_copy.SCRIPT)]
    command[0] = str(shutil.which(command[0], path=container.variables["PATH"]))
    log = container.folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=container.folder, env=container.variables | collects, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process, signal.SIGTERM)


def ask(server: str, body: str) -> tuple[int, Any]:
    answer = requests.post(f"{server}/score", body, headers={"Content-Type": "application/json"}, timeout=60)
    return answer.status_code, answer.json()


def payload(**changes: Any) -> str:
    return json.dumps(online_endpoint.body(LAB_BIRD.assign(**changes)))


def test_what_an_endpoint_is_sent() -> None:
    assert online_endpoint.body(LAB_BIRD) == {
        "input_data": {
            "columns": ["Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"],
            "index": [0],
            "data": [["Biscoe", 48.7, 14.1, 210.0, 4450.0]],
        }
    }


def test_it_is_healthy_and_answers_without_java(server: str) -> None:
    assert requests.get(f"{server}/", timeout=10).text == "Healthy"
    status, answer = ask(server, payload())
    assert status == 200
    [bird] = answer["predictions"]
    assert (bird["prediction"], bird["species"]) == (1, "Gentoo")
    assert bird["probability_Gentoo"] == pytest.approx(0.946863, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (payload(Island="Atlantis"), "Island in row 1 of 1 is 'Atlantis': it must be one of Biscoe, Dream, Torgersen."),
        (payload(BodyMass=None), "BodyMass in row 1 of 1 is nan: it must be a finite number."),
        ('{"input_data": {"columns": ["Island"], "index": [0], "data": [["Biscoe"]]}}', "CulmenLength"),
        (
            '{"dataframe_records": [{"Island": "Biscoe"}]}',
            'The body can\'t be read: send {"input_data": {"columns": ["Island", "CulmenLength", "CulmenDepth", '
            '"FlipperLength", "BodyMass"], "index": [0], "data": [[...]]}}.',
        ),
        ("no JSON", "The body can't be read: send {"),
        ('{"input_data": {"columns": ["Island"], "index": [0], "data": [["Biscoe", 1]]}}', "columns"),
    ],
    ids=["unknown island", "null", "missing columns", "another server's shape", "no json", "too many values"],
)
def test_what_is_wrong_with_a_request_is_a_400_with_a_sentence(server: str, body: str, said: str) -> None:
    status, answer = ask(server, body)
    assert status == 400, answer
    assert said in answer["message"]


def test_what_it_is_asked_and_answers_is_collected_with_the_signatures_types(
    server: str, collection: tuple[Collection, int]
) -> None:
    """Azure's monitor leaves out a column whose type isn't the reference's, so whole numbers must arrive as doubles."""
    collected = collection[0]
    # As a client may send them: a whole number, and a column more than the model needs.
    asked = online_endpoint.body(LAB_BIRD.assign(BodyMass=4451, Name="Pip"))
    assert ask(server, json.dumps(asked))[0] == 200
    assert ask(server, payload(Island="Atlantis", CulmenDepth=None, BodyMass=4452))[0] == 400
    (kind, rows), (answered, answers) = collected.of("4451.0", 2)
    assert (kind, answered) == ("model_inputs", "model_outputs")
    assert rows == (
        '[{"Island":"Biscoe","CulmenLength":48.7,"CulmenDepth":14.1,"FlipperLength":210.0,"BodyMass":4451.0}]'
    )
    [answer] = json.loads(answers)
    assert (answer["prediction"], answer["species"]) == (1, "Gentoo")
    # What can't be answered is what monitoring looks for.
    [(bad, refused)] = collected.of("4452.0", 1)
    assert (bad, json.loads(refused)) == (
        "model_inputs",
        [{"Island": "Atlantis", "CulmenLength": 48.7, "CulmenDepth": None, "FlipperLength": 210, "BodyMass": 4452}],
    )


def test_the_batch_script_needs_no_wheel_of_ours(container: Container, tmp_path: Path) -> None:
    files = {
        "birds.csv": "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass\nBiscoe,48.7,14.1,210,4450\nOz,1,2,3,\n",
        "none.csv": "BodyMass,Island,CulmenLength,CulmenDepth,FlipperLength\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "out").mkdir()
    worker = "import sys, azure_batch_scoring as script; script.init(); print(script.run(sys.argv[1:]))"
    done = subprocess.run(
        ["python", "-c", worker, *(str(tmp_path / name) for name in files)], cwd=container.app, capture_output=True,
        env=container.variables | {"AZUREML_BI_OUTPUT_PATH": str(tmp_path / "out")}, text=True, check=False,
        executable=shutil.which("python", path=container.variables["PATH"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['birds.csv: 2 rows, 1 scored', 'none.csv: 0 rows, 0 scored']\n"
    birds, none = (path.read_text().splitlines() for path in sorted((tmp_path / "out").iterdir()))
    header, good, bad, end = map(json.loads, birds)
    assert header["added"] == [
        *("prediction", "species", "probability_Adelie", "probability_Gentoo", "probability_Chinstrap", "reasons")
    ]
    assert good[:7] == ["Biscoe", "48.7", "14.1", "210", "4450", 1, "Gentoo"]
    assert good[8] == pytest.approx(0.946863, abs=1e-6)
    assert bad == [
        *("Oz", "1", "2", "3", None), *[None] * 5, ["Island is unknown to the model", "BodyMass is missing"],
    ]  # fmt: skip
    assert end == {"rows": 2}
    assert json.loads(none[-1]) == {"rows": 0}
