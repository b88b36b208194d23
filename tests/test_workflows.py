"""The workflows on GitHub: what its schema says, and what it doesn't."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def check(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        *map(str, files),
    ]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_official_schema_accepts_them() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "deploy.yml"]
    done = check(*WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_the_schema_bites(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs_on:"))
    assert check(broken).returncode != 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_full_version(path: Path) -> None:
    used = re.findall(r"uses: (\S+)", path.read_text())
    assert len(used) >= 3
    assert [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_long_lived_secret(path: Path) -> None:
    text = path.read_text()
    assert "secrets." not in text
    assert "TOKEN" not in text
    assert yaml.safe_load(text)["permissions"]["contents"] == "read"


def misplaced(workflow: str) -> list[str]:
    """What a workflow that deploys does where or when it should not."""
    read = yaml.safe_load(workflow)
    job = read["jobs"]["bundle"]
    chosen = "${{ github.event_name == 'release' && 'prod' || 'staging' }}"
    deploys = [step for step in job["steps"] if "databricks bundle deploy" in step.get("run", "")]
    found = [] if read["permissions"] == {"contents": "read", "id-token": "write"} else ["permissions"]
    found += [] if job["env"]["DATABRICKS_AUTH_TYPE"] == "github-oidc" else ["login"]
    # YAML takes the key `on` for true.
    when = {"pull_request": None, "push": {"branches": ["main"]}, "release": {"types": ["published"]}}
    found += [] if read[True] == when else ["events"]
    found += [] if job["environment"] == job["env"]["TARGET"] == chosen else ["target"]
    is_guarded = [step.get("if") for step in deploys] == ["github.event_name != 'pull_request'"]
    return found if is_guarded else [*found, "deploys what is only proposed"]


DEPLOY = (ROOT / ".github" / "workflows" / "deploy.yml").read_text()


def test_a_proposal_is_validated_main_goes_to_staging_and_a_release_to_prod() -> None:
    assert "databricks bundle validate" in DEPLOY
    assert misplaced(DEPLOY) == []


@pytest.mark.parametrize(
    ("line", "other", "problem"),
    [
        ("'prod' || 'staging' }}\n    env:", "'staging' || 'prod' }}\n    env:", "target"),
        ("TARGET: ${{ github.event_name == 'release'", "TARGET: ${{ github.event_name == 'push'", "target"),
        ("branches: [main]", "branches: [main, next]", "events"),
        (
            "      - if: github.event_name != 'pull_request'\n        run:",
            "      - run:",
            "deploys what is only proposed",
        ),
        ("id-token: write", "id-token: none", "permissions"),
        ("github-oidc", "pat", "login"),
    ],
)
def test_that_check_bites(line: str, other: str, problem: str) -> None:
    assert line in DEPLOY
    assert misplaced(DEPLOY.replace(line, other)) == [problem]


def test_both_supported_pythons_run_what_everybody_runs() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert job["steps"][-1] == {"run": ".ci/run --whole"}
