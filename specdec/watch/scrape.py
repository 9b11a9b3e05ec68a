"""Asks a server for its /metrics; whatever stands at the address, the sentence says what."""

import http.client
import time
import urllib.error
import urllib.request

from specdec.errors import SpecdecError
from specdec.metrics.scrape import OURS, Scrape, parse

TIMEOUT = 5.0  # seconds


def metrics_url(given: str) -> str:
    """http://localhost:8000/metrics, of localhost:8000 too."""
    url = (given if "://" in given else f"http://{given}").rstrip("/")
    return url if url.endswith("/metrics") else f"{url}/metrics"


def scrape(url: str) -> Scrape:
    """url: of /metrics. SpecdecError: nothing answers there, or a server without figures of ours."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            found = parse(answer.read().decode(), time.monotonic())
    except urllib.error.HTTPError as error:
        raise SpecdecError(f"{url} answers HTTP {error.code}: give the URL of a vLLM server.") from None
    except OSError as error:
        why = getattr(error, "reason", error)
        raise SpecdecError(
            f"No server answers at {url} ({why}): start one with `specdec serve`, or give the URL of yours."
        ) from None
    except (ValueError, http.client.HTTPException):  # of the URL, of the text's encoding, or of its lines
        raise SpecdecError(f"What {url} answers is no metrics: give the URL of a vLLM server.") from None
    if not any(name.startswith(OURS) for name, _ in found.values):
        raise SpecdecError(
            f"{url} shows no figures of specdec: start that server with `specdec serve`, or with "
            "--worker-cls specdec.engines.vllm.Worker and metrics.enabled left at true."
        )
    return found
