"""What a Prefect server is told: the work pool, the automations, the deployments, and which runs were interrupted.

The server's own REST API, since an import of Prefect takes seconds and the supervisor asks every few.
"""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

POOL = "gpu"
AUTOMATIONS = Path(__file__).with_name("automations.yaml")
JOB_TEMPLATE = Path(__file__).parent / "kubernetes" / "base-job-template.json"
NOTIFY = "ALEXNET_NOTIFY_URL"
_TIMEOUT_SECONDS = 30.0
_BUSY = (429, 502, 503)  # such as a locked SQLite database; Prefect's own client repeats these too
_UNFINISHED = ["RUNNING", "PENDING", "CANCELLING"]
_CRASHED = "Interrupted: its process is gone. What was finished is kept; start a run and it goes on from there."


class PrefectError(RuntimeError):
    """The server refused a request, or does not answer."""


class Api:
    """A Prefect server's REST API; authorized as PREFECT_API_AUTH_STRING or PREFECT_API_KEY say."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def call(self, method: str, path: str, body: object = None, seconds: float = _TIMEOUT_SECONDS) -> Any:
        """The parsed reply; None where it is empty.

        Raises:
            PrefectError: the server refuses, or does not answer in time.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | _authorization()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 - the user's own server
        for pause in (0.5, 1.0, 2.0, 4.0, None):
            try:
                with urllib.request.urlopen(request, timeout=seconds) as reply:  # noqa: S310 - as above
                    text = reply.read()
                break
            except urllib.error.HTTPError as error:
                said = error.read(300).decode(errors="replace")
                if error.code not in _BUSY or pause is None:
                    raise PrefectError(f"Prefect: {method} {path}: {error.code}: {said}") from None
                time.sleep(pause)
            except (OSError, ValueError) as error:
                raise PrefectError(
                    f"Prefect: {self.url} does not answer: {error}; start it, or correct PREFECT_API_URL"
                ) from None
        return json.loads(text) if text else None

    def is_healthy(self) -> bool:
        """Whether the server answers."""
        try:
            return bool(self.call("GET", "/health", seconds=5.0))
        except PrefectError:
            return False

    def unfinished_runs(self) -> list[dict[str, Any]]:
        """The pool's flow runs that are in progress by the server's account."""
        wanted = {"flow_runs": {"state": {"type": {"any_": _UNFINISHED}}}, "work_pools": {"name": {"any_": [POOL]}}}
        return list(self.call("POST", "/flow_runs/filter", wanted))

    def crash_runs(self, alive: Collection[str], older_than_seconds: float = 0.0) -> list[str]:
        """Sets runs in progress to Crashed, but those alive, by id, and those that changed lately. Returns their names."""
        crashed = []
        for run in self.unfinished_runs():
            since = datetime.fromisoformat(run["state"]["timestamp"])
            if run["id"] in alive or (datetime.now(UTC) - since).total_seconds() < older_than_seconds:
                continue
            state = {"state": {"type": "CRASHED", "name": "Crashed", "message": _CRASHED}, "force": True}
            tasks = {"flow_runs": {"id": {"any_": [run["id"]]}}, "task_runs": {"state": {"type": {"any_": _UNFINISHED}}}}
            for task in self.call("POST", "/task_runs/filter", tasks):
                self.call("POST", f"/task_runs/{task['id']}/set_state", state)
            self.call("POST", f"/flow_runs/{run['id']}/set_state", state)
            crashed.append(str(run["name"]))
        return crashed

    def other_workers(self, name: str) -> list[str]:
        """The names of the pool's workers that are online, but this one."""
        workers = self.call("POST", f"/work_pools/{POOL}/workers/filter", {})
        return [worker["name"] for worker in workers if worker["status"] == "ONLINE" and worker["name"] != name]


def prepare(api: Api, root: Path, image: str | None = None, wait_seconds: float = 180.0) -> list[str]:
    """Makes what a worker needs, where it is missing: work pool, its limit, automations, deployments. Returns what was done.

    What was changed in the UI stays: the pool's limit and job template, automations, schedules and whether they are active.

    Args:
        image: The pool's runs are Kubernetes Jobs of this image; without it, processes of the worker.

    Raises:
        PrefectError: the server does not answer within `wait_seconds`, or refuses.
    """
    deadline = time.monotonic() + wait_seconds
    while not api.is_healthy():
        if time.monotonic() > deadline:
            raise PrefectError(f"Prefect: {api.url} has not answered for {wait_seconds:.0f} s; is PREFECT_API_URL right?")
        time.sleep(1)
    return [*_make_pool(api, root, image), *_keep_schedules(api), *_deploy(api, root), *_make_automations(api)]


def _make_pool(api: Api, root: Path, image: str | None) -> Iterator[str]:
    pools = api.call("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    if not pools:
        if image:
            pool = {"name": POOL, "type": "kubernetes", "base_job_template": job_template(image, os.environ)}
            api.call("POST", "/work_pools/", pool)
        else:
            prefect(api, root, "work-pool", "create", POOL, "--type", "process")
        # One run at a time: of the pool, since a limit of the deployment kills a run's retries.
        api.call("PATCH", f"/work_pools/{POOL}", {"concurrency_limit": 1})
        yield f"work pool {POOL}, one run at a time"


def job_template(image: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The template of the pool's Kubernetes Jobs, with this image, and with buckets and region as the environment has them."""
    template: dict[str, Any] = json.loads(JOB_TEMPLATE.read_text(encoding="utf-8"))
    variables = template["variables"]["properties"]
    variables["image"]["default"] = image
    variables["env"]["default"] = {name: environment.get(name, value) for name, value in variables["env"]["default"].items()}
    return template


def _keep_schedules(api: Api) -> Iterator[str]:
    """Gives every schedule a slug: `prefect deploy` replaces all of a deployment's schedules where one of them has none."""
    for deployment in api.call("POST", "/deployments/filter", {}):
        for schedule in deployment["schedules"]:
            if not schedule.get("slug"):
                slug = f"ui-{schedule['id'][:8]}"
                api.call("PATCH", f"/deployments/{deployment['id']}/schedules/{schedule['id']}", {"slug": slug})
                yield f"schedule {slug} of {deployment['name']} is kept"


def _deploy(api: Api, root: Path) -> Iterator[str]:
    prefect(api, root, "--no-prompt", "deploy", "--all")
    names = [
        deployment["name"] for deployment in yaml.safe_load((root / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    ]
    yield f"deployments {', '.join(names)}"


def _make_automations(api: Api) -> Iterator[str]:
    there = {automation["name"] for automation in api.call("POST", "/automations/filter", {})}
    file = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))
    told = [
        {
            "name": way["name"],
            **file["told"],
            "actions": [action | {"block_document_id": block} for action in file["told"]["actions"]],
        }
        for way, address in notified(os.environ.get(NOTIFY, ""), file["notifications"])
        for block in (_save_block(api, way, address),)
    ]
    for automation in (*file["automations"], *told):
        if automation["name"] not in there:
            api.call("POST", "/automations/", automation)
            yield f"automation {automation['name']}"


def notified(addresses: str, ways: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """The way in which each address is told of failures, and the address.

    Raises:
        PrefectError: an address begins like none, or two of them like the same.
    """
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for address in addresses.split():
        way = next((way for way in ways if address.startswith(way["begins"])), None)
        if way is None or way["name"] in found:
            kinds = ", ".join(way["begins"] for way in ways)
            raise PrefectError(
                f"{NOTIFY}: takes one address of each kind ({kinds}), separated by spaces; see {AUTOMATIONS.name}"
            )
        found[way["name"]] = way, address
    return list(found.values())


def _save_block(api: Api, way: dict[str, Any], address: str) -> str:
    """Makes or updates the block that sends to an address. Returns its id."""
    kind = api.call("GET", f"/block_types/slug/{way['block']}")
    (schema, *_) = api.call("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}})
    data = json.loads(json.dumps(way["data"]).replace('"ADDRESS"', json.dumps(address)))
    wanted = {"name": {"any_": [way["name"]]}, "block_type_id": {"any_": [kind["id"]]}}
    found = api.call("POST", "/block_documents/filter", {"block_documents": wanted})
    if found:
        api.call("PATCH", f"/block_documents/{found[0]['id']}", {"data": data})
        return str(found[0]["id"])
    document = {"name": way["name"], "data": data, "block_type_id": kind["id"], "block_schema_id": schema["id"]}
    return str(api.call("POST", "/block_documents/", document)["id"])


def prefect(api: Api, root: Path, *arguments: str) -> str:
    """What a `prefect` command prints. Raises PrefectError if it fails."""
    reply = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=root,
        env={"ALEXNET_HOME": str(root)}
        | os.environ
        | {"PREFECT_API_URL": api.url, "COLUMNS": "200", "PREFECT_CLI_COLORS": "false"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if reply.returncode:
        output = " ".join((reply.stderr or reply.stdout).split())
        raise PrefectError(f"Prefect: `prefect {' '.join(arguments)}` failed: {output[-600:]}")
    return reply.stdout


def _authorization() -> dict[str, str]:
    if login := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    key = os.environ.get("PREFECT_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
