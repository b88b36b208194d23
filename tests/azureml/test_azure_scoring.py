"""The scoring script, for real: Azure's own inference server in an environment of its own, without Java."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from penguins import flavor, online_endpoint, serving_copy
from penguins.tracking import Tracking
from tests.conftest import LAB_BIRD, no_java_path
from tests.servers import free_port, stop, wait_for

pytestmark = [pytest.mark.azureml, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server, with the script and the copy as a deployment has them, and no Java on the PATH."""
    folder = tmp_path_factory.mktemp("container")
    Tracking.local(three_models.parent).activate()
    copy = folder / "azureml-models" / "penguin_predictor-serving" / "1" / "model"
    flavor.save_without_spark("models:/penguin_predictor/1", copy, also_needs=serving_copy.IMAGES_NEED)
    python = folder / "python"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, python], check=True)
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python, "-r", copy / "requirements.txt"]
    subprocess.run(install, check=True)
    with serving_copy.script_folder() as code:
        shutil.copytree(code, folder / "app")
    port = free_port()
    environment = {
        "PATH": f"{python / 'bin'}:{no_java_path(folder)}",
        "HOME": str(folder),
        "AZUREML_MODEL_DIR": str(copy.parent),
        "AML_APP_ROOT": str(folder / "app"),
        "AZUREML_ENTRY_SCRIPT": serving_copy.SCRIPT,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    assert shutil.which("java", path=environment["PATH"]) is None
    # The command of the image, with another port and on this machine's own address.
    command = serving_copy.DOCKERFILE.partition("CMD ")[2].replace("5001", str(port)).strip()
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", command], cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
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
        ('{"dataframe_records": [{"Island": "Biscoe"}]}', "The body can't be read: send {"),
        ("no JSON", "The body can't be read: send {"),
        ('{"input_data": {"columns": ["Island"], "index": [0], "data": [["Biscoe", 1]]}}', "columns"),
    ],
    ids=["unknown island", "null", "missing columns", "another server's shape", "no json", "too many values"],
)
def test_what_is_wrong_with_a_request_is_a_400_with_a_sentence(server: str, body: str, said: str) -> None:
    status, answer = ask(server, body)
    assert status == 400, answer
    assert said in answer["message"]
