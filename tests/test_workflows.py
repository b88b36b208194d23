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


def loose(workflow: str) -> list[str]:
    """The actions of others that a workflow uses by a name that may point to something else tomorrow."""
    return [
        action
        for action, comment in re.findall(r"uses: (\S+)(.*)", workflow)
        if not action.startswith("./")
        and not (re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) and re.fullmatch(r" # v\d+\.\d+\.\d+", comment))
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    text = path.read_text()
    assert len(re.findall(r"uses: [^.]", text)) >= 3
    assert loose(text) == []
    assert loose(re.sub(r"checkout@\w+ # (\S+)", r"checkout@\1", text)) == ["actions/checkout@v4.2.2"]


def test_what_is_only_proposed_gets_no_identity() -> None:
    """Of the workflows that a pull request starts, none may ask for a token, or get a variable of an environment."""
    proposed = [path for path in WORKFLOWS if "pull_request" in yaml.safe_load(path.read_text())[True]]
    assert [path.name for path in proposed] == ["ci.yml"]
    for path in proposed:
        text = path.read_text()
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
        assert not re.search(r"id-token|environment:|vars\.|pull_request_target", text)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_long_lived_secret(path: Path) -> None:
    text = path.read_text()
    assert "secrets." not in text
    assert "TOKEN" not in text
    assert yaml.safe_load(text)["permissions"]["contents"] == "read"


def misplaced(workflow: str) -> list[str]:
    """What a workflow that deploys does where or when it should not."""
    read = yaml.safe_load(workflow)
    check, job = read["jobs"]["check"], read["jobs"]["bundle"]
    chosen = "${{ github.event_name == 'release' && 'prod' || 'staging' }}"
    runs = [step.get("run", "") for step in job["steps"]]
    found = [] if job["permissions"] == {"contents": "read", "id-token": "write"} else ["permissions"]
    found += [] if read["permissions"] == {"contents": "read"} and "permissions" not in check else ["permissions"]
    found += [] if job["env"]["DATABRICKS_AUTH_TYPE"] == "github-oidc" else ["login"]
    # YAML takes the key `on` for true.
    found += [] if read[True] == {"push": {"branches": ["main"]}, "release": {"types": ["published"]}} else ["events"]
    found += [] if job["environment"] == job["env"]["TARGET"] == chosen else ["target"]
    is_checked = check == {"uses": "./.github/workflows/ci.yml"} and job["needs"] == "check"
    found += [] if is_checked else ["deploys what isn't checked"]
    is_on_main = runs[1] == 'git merge-base --is-ancestor "$GITHUB_SHA" origin/main'
    return found if is_on_main else [*found, "deploys what isn't on main"]


DEPLOY = (ROOT / ".github" / "workflows" / "deploy.yml").read_text()


def test_main_goes_to_staging_and_a_release_to_prod_once_they_are_checked() -> None:
    assert "databricks bundle validate" in DEPLOY
    assert misplaced(DEPLOY) == []


@pytest.mark.parametrize(
    ("line", "other", "problem"),
    [
        ("'prod' || 'staging' }}\n    env:", "'staging' || 'prod' }}\n    env:", "target"),
        ("TARGET: ${{ github.event_name == 'release'", "TARGET: ${{ github.event_name == 'push'", "target"),
        ("branches: [main]", "branches: [main, next]", "events"),
        ("on:\n  push:", "on:\n  pull_request:\n  push:", "events"),
        ("needs: check", "needs: []", "deploys what isn't checked"),
        ("--is-ancestor", "--all", "deploys what isn't on main"),
        ("id-token: write", "id-token: none", "permissions"),
        ("permissions:\n  contents: read\n", "permissions: write-all\n", "permissions"),
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
