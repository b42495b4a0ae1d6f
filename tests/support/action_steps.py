"""The steps of the GitHub action, run as a runner runs them."""

import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def action_value(name, environ, outputs):
    """What `inputs.x`, `github.x` or `steps.x.outputs.y` is. A missing one is empty, as there."""
    words = name.strip().replace("-", "_").split(".")
    if words[0] == "inputs":
        default = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
        given = {key.replace("-", "_"): each.get("default") for key, each in default.items()}
        return environ.get(f"INPUT_{words[1].upper()}", given[words[1]])
    if words[0] == "github":
        return environ.get(f"GITHUB_{words[1].upper()}", "")
    return outputs.get(words[-1], "")


def is_step_run(condition, environ, outputs):
    """Whether a runner runs a step with this `if`, which is made of `a == 'b'` and `&&`."""
    parts = [part.split("==") for part in condition.split("&&")] if condition else []
    return all(
        action_value(name, environ, outputs) == value.strip().strip("'") for name, value in parts
    )


def lines_of(file):
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def run_steps(steps, folder, environ, expected=0):
    """Run the steps of a composite action as a GitHub runner does; what each has exported is seen
    by the next. The last step ends with `expected`. Returns what was exported, and all output.
    """
    files = {name: folder / name for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")}
    for file in files.values():
        file.touch()
    code, printed = 0, ""
    for step in steps:
        outputs = lines_of(files["GITHUB_OUTPUT"])
        if code or not is_step_run(step.get("if", ""), environ, outputs):
            continue
        given = {
            k: action_value(v.removeprefix("${{").removesuffix("}}"), environ, outputs)
            for k, v in step.get("env", {}).items()
        }
        paths = files["GITHUB_PATH"].read_text().splitlines()
        known = {k: v for k, v in environ.items() if k != "GITHUB_TOKEN"}  # only where it is named
        env = {
            **os.environ,
            **known,
            **lines_of(files["GITHUB_ENV"]),
            **given,
            **{k: str(v) for k, v in files.items()},
        }
        env["PATH"] = ":".join([*paths, env["PATH"]])
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        code, printed = done.returncode, printed + done.stdout + done.stderr
    assert code == expected, printed
    return lines_of(files["GITHUB_ENV"]), printed
