"""The workflows of GitHub Actions: valid, safe by zizmor's rules, and running what the README tells people to run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted(Path(ROOT, ".github", "workflows").glob("*.yml"))
OURS = re.compile(r"^(?:\./|scripts/|bash |python3? scripts/)", re.MULTILINE)


def commands() -> list[str]:
    """Every line of every workflow that runs a script of this repository, without what follows it in a pipe."""
    steps = [
        step for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]
    ]
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines()]
    return sorted({re.split(r" 2>&1| \|", line)[0] for line in lines if OURS.match(line)})


def run(name: str, *arguments: object) -> None:
    command = [shutil.which(name, path=str(Path(sys.executable).parent)), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_workflows_follow_github_s_schema():
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_issue_forms_follow_github_s_schema():
    run("check-jsonschema", "--builtin-schema", "vendor.github-issue-forms", *ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))


def test_zizmor_finds_nothing():
    run("zizmor", "--offline", ROOT / ".github")


def test_there_are_workflows_and_they_run_something_of_ours():
    assert {path.stem for path in WORKFLOWS} >= {"ci", "book", "weekly", "release"}
    assert {"bash .ci/run", "./build.sh", "./test.sh --long"} <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_command_is_one_that_the_readme_tells(command):
    """Its script stands in the README or in CONTRIBUTING, exists, and can be run as it is written."""
    words = [word for word in command.split() if word not in ("bash", "python", "python3")]
    script = words[0].removeprefix("./")
    told = "".join(
        Path(ROOT, name).read_text(encoding="utf-8")
        for name in ("README.md", "CONTRIBUTING.md")
        if Path(ROOT, name).is_file()
    )
    assert script in told
    path = ROOT / script
    assert path.is_file()
    assert command.startswith(("bash ", "python")) or path.stat().st_mode & 0o111
