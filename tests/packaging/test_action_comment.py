"""The action's comment on a pull request: exchanged with a server that answers as GitHub does."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from action_steps import ROOT, run_steps

PROGRAMS = Path(sys.executable).parent
SCRIPT = ROOT / "ci" / "comment.py"
MARKER = "<!-- is-db-bootstrap plan of mine -->"
PATH = "/repos/team/app/issues"


class GitHub:
    """A server with the comments of pull request 7. `answers` are codes that come before it."""

    def __init__(self):
        self.comments, self.asked, self.answers = [], [], []
        github = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                """Say nothing."""

            def answer(self, code, document):
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def handle_request(self):
                length = int(self.headers.get("Content-Length") or 0)
                given = json.loads(self.rfile.read(length)) if length else None
                token = self.headers["Authorization"]
                github.asked.append((self.command, self.path, token))
                if github.answers and (code := github.answers.pop(0)):
                    return self.answer(code, {"message": "Resource not accessible by integration"})
                place, _, query = self.path.partition("?")
                if self.command == "GET" and place == f"{PATH}/7/comments":
                    page = int(dict(pair.split("=") for pair in query.split("&"))["page"])
                    return self.answer(200, github.comments[100 * (page - 1) : 100 * page])
                if self.command == "POST" and place == f"{PATH}/7/comments":
                    return self.answer(201, github.add(given["body"]))
                number = place.removeprefix(f"{PATH}/comments/")
                assert self.command == "PATCH", self.command
                [comment] = [each for each in github.comments if str(each["id"]) == number]
                comment["body"] = given["body"]
                return self.answer(200, comment)

            do_GET = do_POST = do_PATCH = handle_request  # noqa: N815 - the names of the library

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def add(self, body, kind="Bot"):
        comment = {"id": len(self.comments) + 1, "body": body, "user": {"type": kind}}
        self.comments.append(comment)
        return comment

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def environ(self, folder, event="pull_request"):
        (folder / "event.json").write_text(json.dumps({"pull_request": {"number": 7}}))
        return {
            "COMMENT_PAUSE": "0.01",
            "GITHUB_API_URL": self.url,
            "GITHUB_EVENT_NAME": event,
            "GITHUB_EVENT_PATH": str(folder / "event.json"),
            "GITHUB_JOB": "plan",
            "GITHUB_REPOSITORY": "team/app",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GITHUB_TOKEN": "the-token",
            "GITHUB_WORKFLOW": "database",
        }


@pytest.fixture
def github():
    made = GitHub()
    yield made
    made.close()


@pytest.fixture
def post(github, tmp_path):
    """`post("text")`: exit code and output of the script, and the job's summary."""

    def run(text="## planned\n", marker=MARKER, **environ):
        (tmp_path / "plan.md").write_text(f"{marker}\n\n{text}")
        summary = tmp_path / "summary.md"
        summary.write_text("")
        done = subprocess.run(
            [sys.executable, SCRIPT, tmp_path / "plan.md"],
            env=os.environ | github.environ(tmp_path) | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "the-token" not in done.stdout + done.stderr + summary.read_text()
        return done.returncode, done.stdout + done.stderr, summary.read_text()

    return run


def test_one_comment_is_posted_and_then_replaced_and_then_left_alone(github, post):
    github.add("Somebody's words.", "User")
    assert post() == (0, "The comment on pull request 7: posted.\n", "")
    assert post("## other\n")[1] == "The comment on pull request 7: replaced.\n"
    asked = len(github.asked)
    assert post("## other\n")[1] == "The comment on pull request 7: unchanged.\n"
    assert [method for method, *_ in github.asked[asked:]] == ["GET"]
    _, ours = github.comments
    assert ours["body"].startswith(f"{MARKER}\n<!-- job database / plan -->\n")
    assert ours["body"].endswith("## other\n")
    assert {token for *_, token in github.asked} == {"Bearer the-token"}


def test_a_comment_is_found_behind_a_hundred_others(github, post):
    for number in range(250):
        github.add(f"comment {number}")
    post()
    post("## other\n")
    assert len(github.comments) == 251
    assert github.comments[-1]["body"].endswith("## other\n")


def test_what_a_person_wrote_with_the_marker_is_left_alone(github, post):
    forged = github.add(f"{MARKER}\n<!-- job database / plan -->\n\nforged", "User")
    assert "posted" in post()[1]
    assert forged["body"].endswith("forged")
    assert len(github.comments) == 2


def test_each_job_and_each_blueprint_has_a_comment_of_its_own(github, post):
    post()
    post(GITHUB_JOB="production --> @all")
    post(marker="<!-- is-db-bootstrap plan of other -->")
    post()
    assert len(github.comments) == 3
    assert "@all" not in github.comments[1]["body"]
    assert github.comments[1]["body"].split("\n")[1].count("-->") == 1


@pytest.mark.parametrize("code", [401, 403, 404])
@pytest.mark.parametrize("before", [[], [None]], ids=["reading", "writing"])
def test_a_fork_gets_a_summary_and_the_job_goes_on(github, post, code, before):
    github.answers = [*before, code]
    exit_code, printed, summary = post()
    assert exit_code == 0
    assert printed.startswith("::notice::This job may not comment")
    assert "pull-requests: write" in printed
    assert summary.endswith("## planned\n\n")
    assert github.comments == []


def test_an_answer_that_github_could_not_give_is_asked_for_again(github, post):
    github.answers = [502, 503]
    assert "posted" in post()[1]


@pytest.mark.parametrize("answers", [[500] * 3, [422], [302]])
def test_a_comment_that_is_not_there_is_told(github, post, answers):
    github.answers = list(answers)
    code, printed, summary = post()
    assert (code, github.comments) == (1, [])
    assert printed.startswith("::error::GitHub refused the comment")
    assert summary.endswith("## planned\n\n")
    assert github.answers == []


def test_a_server_that_is_not_there_is_told(post):
    code, printed, summary = post(GITHUB_API_URL="http://127.0.0.1:1")
    assert code == 1
    assert printed.startswith("::error::GitHub did not answer")
    assert "## planned" in summary


@pytest.mark.parametrize("event", ["push", "pull_request_target", "schedule"])
def test_other_events_get_a_summary_and_ask_nobody(github, post, event):
    code, _, summary = post(GITHUB_EVENT_NAME=event)
    assert (code, github.asked) == (0, [])
    assert "## planned" in summary


# --- the action


@pytest.fixture
def act(github, tmp_path, redis_url):
    """`act(event, comment="true")`: the steps of the action, as a runner runs them."""

    def run(event="pull_request", expected=0, **inputs):
        steps = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
        folder = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
        bin_folder = folder / "is-db-bootstrap" / "bin"
        bin_folder.mkdir(parents=True)
        (bin_folder / "is-db-bootstrap").symlink_to(PROGRAMS / "is-db-bootstrap")
        (folder / "GITHUB_PATH").write_text(f"{bin_folder}\n")
        given = {"blueprint": "helpdesk", "stores_from": "env", "timeout": "30"}
        given |= {"arguments": "--only redis", "plan_arguments": "--only redis"} | inputs
        environ = {
            "RUNNER_TEMP": str(folder),
            "GITHUB_ACTION_PATH": str(ROOT),
            "REDIS_URL": redis_url,
            **github.environ(folder, event),
            **{f"INPUT_{name.upper()}": value for name, value in given.items()},
        }
        _, printed = run_steps(steps[1:], folder, environ, expected)
        return printed, Path(folder)

    return run


@pytest.mark.redis
def test_the_action_posts_the_plan_before_it_applies(github, act):
    printed, folder = act(comment="true")
    assert "The comment on pull request 7: posted." in printed
    [comment] = github.comments
    assert "<code>helpdesk</code>: 1 change planned" in comment["body"]
    assert json.loads((folder / "is-db-bootstrap.json").read_text())["outcome"] == "changed"
    act(comment="true")
    assert "<code>helpdesk</code>: nothing to change" in comment["body"]


@pytest.mark.redis
def test_the_action_comments_only_when_asked_to_and_only_on_a_pull_request(github, act):
    act()
    act("push", comment="true")
    assert github.asked == []


@pytest.mark.redis
def test_the_action_may_plan_only(github, act):
    _, folder = act(comment="true", command="plan")
    assert len(github.comments) == 1
    assert not (folder / "is-db-bootstrap.json").exists()
    printed, _ = act(command="aply", expected=1)
    assert "::error::The input command is apply or plan, not aply." in printed


def test_a_plan_that_fails_is_posted_and_ends_the_job(github, act):
    arguments = "--only redis --redis-url redis://127.0.0.1:1 --timeout 0.2"
    _, folder = act(comment="true", plan_arguments=arguments, expected=4)
    [comment] = github.comments
    assert "**redis failed** (unavailable)" in comment["body"]
    assert not (folder / "is-db-bootstrap.json").exists()


def test_a_plan_that_is_refused_posts_nothing(github, act):
    act(comment="true", plan_arguments="--only no-such-store", expected=2)
    assert github.asked == []


def test_the_plan_which_runs_code_of_the_blueprint_does_not_know_the_token():
    steps = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    named = [step["name"] for step in steps if "token" in json.dumps(step.get("env", {}))]
    assert named == ["Comment"]
