"""Post a plan as one comment on the pull request of this GitHub job: `comment.py FILE`.

The first line of the file is a hidden marker. A comment of a bot that begins with the marker and
with that of this job is replaced, so there is one comment, however often the job runs. Without the
permission `pull-requests: write`, such as in a pull request of a fork, the text becomes the job's
summary instead. The summary also gets it when GitHub does not answer, and then the step fails.
"""

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

#: Answers that say that this token may not comment here.
NOT_ALLOWED = {401, 403, 404}
#: The least code of an answer that says that the server failed.
SERVER_FAILED = 500
#: Comments that one answer lists, the most that GitHub gives.
PER_PAGE = 100
#: Times that a request is tried that GitHub could not serve, and seconds between two of them.
TRIES = 3
PAUSE_S = float(os.environ.get("COMMENT_PAUSE", "2"))
#: Seconds that one answer may take.
LIMIT_S = 30


class StayHere(HTTPRedirectHandler):
    """Follows no redirect, which would take the token to another place."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse it."""


class Api:
    """The comments of one pull request."""

    def __init__(self, environ: Mapping[str, str], number: int) -> None:
        repository = f"{environ['GITHUB_API_URL']}/repos/{environ['GITHUB_REPOSITORY']}"
        self.comments = f"{repository}/issues/{number}/comments"
        self.one = f"{repository}/issues/comments"
        self.token = environ["GITHUB_TOKEN"]
        self.opener = build_opener(StayHere)

    def ask(self, method: str, url: str, document: Mapping[str, str] | None = None) -> Any:
        """The answer to one request, as JSON."""
        data = None if document is None else json.dumps(document).encode()
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "User-Agent": "is-db-bootstrap",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        for left in reversed(range(TRIES)):
            try:
                request = Request(url, data, headers, method=method)  # noqa: S310 - the job's API
                with self.opener.open(request, timeout=LIMIT_S) as answer:
                    return json.load(answer)
            except HTTPError as error:
                if error.code < SERVER_FAILED or not left:
                    raise
            except (URLError, TimeoutError):
                if not left:
                    raise
            time.sleep(PAUSE_S)
        raise AssertionError

    def ours(self, marker: str) -> Any:
        """The comment that begins with `marker`, or None. Only what a bot has written is ours."""
        page = 1
        while True:
            found = self.ask("GET", f"{self.comments}?per_page={PER_PAGE}&page={page}")
            for comment in found:
                is_bot = (comment.get("user") or {}).get("type") == "Bot"
                body = (comment.get("body") or "").replace("\r\n", "\n")
                if is_bot and body.startswith(marker):
                    return comment
            if len(found) < PER_PAGE:
                return None
            page += 1

    def post(self, marker: str, body: str) -> str:
        """Write the comment, or replace the one that is there. Returns what was done."""
        there = self.ours(marker)
        if there is None:
            self.ask("POST", self.comments, {"body": body})
            return "posted"
        if there["body"].replace("\r\n", "\n").strip() == body.strip():
            return "unchanged"
        self.ask("PATCH", f"{self.one}/{there['id']}", {"body": body})
        return "replaced"


def job_marker(environ: Mapping[str, str]) -> str:
    """A hidden line that names the job, so that two jobs with one blueprint have a comment each."""
    job = f"{environ.get('GITHUB_WORKFLOW', '')} / {environ.get('GITHUB_JOB', '')}"
    plain = re.sub(r"[^\w .:/]+", "-", job, flags=re.ASCII)
    return f"<!-- job {plain[:200]} -->"


def pull_request(environ: Mapping[str, str]) -> int | None:
    """The number of the pull request of this job, or None."""
    if environ.get("GITHUB_EVENT_NAME") != "pull_request":
        return None
    event = json.loads(Path(environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    return int(event["pull_request"]["number"])


def summarise(environ: Mapping[str, str], body: str) -> None:
    """Add the text to the job's summary."""
    with open(environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as file:
        file.write(f"{body}\n")


def tell(kind: str, text: str) -> None:
    """Print a line that GitHub shows beside the job."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::{kind}::{escaped}")


def main(environ: Mapping[str, str], path: str) -> int:
    """Post the text in a file, or summarise it. Returns the exit code."""
    text = Path(path).read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    marker = f"{first}\n{job_marker(environ)}\n"
    body = f"{marker}{rest}"
    number = pull_request(environ)
    if number is None:
        summarise(environ, body)
        tell("notice", "This is no pull request, so the plan is in the job's summary.")
        return 0
    try:
        print(f"The comment on pull request {number}: {Api(environ, number).post(marker, body)}.")
    except HTTPError as error:
        summarise(environ, body)
        if error.code not in NOT_ALLOWED:
            tell("error", f"GitHub refused the comment: {error}. The plan is in the job's summary.")
            return 1
        tell(
            "notice",
            f"This job may not comment ({error}), so the plan is in its summary. "
            "It needs `permissions: {pull-requests: write}`, which a fork does not get.",
        )
    except (OSError, ValueError) as error:
        summarise(environ, body)
        tell("error", f"GitHub did not answer: {error}. The plan is in the job's summary.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ, sys.argv[1]))
