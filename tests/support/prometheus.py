"""A real Prometheus and a real Alertmanager that look at a running stack.

They are of Debian's packages `prometheus` and `prometheus-alertmanager`; tests that need
them are skipped where they are absent.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from deploy.observability.quicker import quicker
from quintet_local.ports import free_port

ALERTS = Path(__file__).parents[2] / "deploy" / "observability" / "alerts.yaml"
PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
PROMTOOL = shutil.which("promtool")

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or ALERTMANAGER is None,
    reason="prometheus and prometheus-alertmanager are not installed",
)
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool, of the package prometheus, is not installed"
)

T = TypeVar("T")


def fetched(url: str, accept: str = "*/*") -> str:
    """Return what is at `url`."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        text: str = response.read().decode()
    return text


def until(told: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """Return what `told` returns, as soon as that is true; fail after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            if value := told():
                return value
        except OSError:
            pass  # it does not listen yet
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class Monitoring:
    """A Prometheus that scrapes each second, with the shipped rules made quicker, and the
    Alertmanager that it tells."""

    def __init__(self, prometheus: str, alertmanager: str) -> None:
        self._prometheus = prometheus
        self._alertmanager = alertmanager

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the instant vector of an expression. Raises `HTTPError` for a wrong one."""
        found = self._asked("query", query=expression)
        result = found["result"]
        if found["resultType"] == "scalar":
            return [{"metric": {}, "value": result}]
        vector: list[dict[str, Any]] = result
        return vector

    def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """Return the exemplars that are kept of the expression's series."""
        now = time.time()
        series = self._asked("query_exemplars", query=expression, start=now - 600, end=now + 60)
        return [it for each in series for it in each["exemplars"]]

    def targets_up(self) -> set[str]:
        """Return the jobs whose latest scrape succeeded."""
        return {it["metric"]["job"] for it in self.query("up == 1")}

    def arrived(self) -> dict[str, dict[str, Any]]:
        """Return the active alerts that have come to Alertmanager, by name."""
        alerts = json.loads(fetched(f"{self._alertmanager}/api/v2/alerts?active=true"))
        return {it["labels"]["alertname"]: it for it in alerts}

    def _asked(self, what: str, **parameters: Any) -> Any:
        query = urllib.parse.urlencode(parameters)
        return json.loads(fetched(f"{self._prometheus}/api/v1/{what}?{query}"))["data"]


@contextmanager
def monitoring(folder: Path, targets: Mapping[str, str]) -> Iterator[Monitoring]:
    """Run both in `folder`; `targets` are the addresses of each job's metrics."""
    assert PROMETHEUS is not None and ALERTMANAGER is not None
    prometheus, alertmanager = (f"127.0.0.1:{free_port()}" for _ in range(2))
    (folder / "alerts.yaml").write_text(quicker(ALERTS.read_text()))
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address]}]}
            for job, address in targets.items()
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    receivers = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(receivers))
    commands = (
        [
            ALERTMANAGER,
            f"--config.file={folder / 'alertmanager.yaml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={alertmanager}",
            "--cluster.listen-address=",
        ],
        [
            PROMETHEUS,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={prometheus}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ],
    )
    running: list[subprocess.Popen[bytes]] = []
    with (folder / "log").open("wb") as log:
        try:
            running.extend(
                subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
                for command in commands
            )
            it = Monitoring(f"http://{prometheus}", f"http://{alertmanager}")
            until(lambda: it.targets_up() >= targets.keys(), "all services are scraped")
            until(lambda: it.arrived() is not None, "Alertmanager answers")
            yield it
        finally:
            for process in running:
                process.kill()
                process.wait()
