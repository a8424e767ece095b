"""An OpenAI-compatible endpoint on loopback that misbehaves on demand and counts what it does."""

import hashlib
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A hang costs a test its full timeout, so it is the rarest fault.
FAULTS = ("429", "429 Retry-After", "500", "cut", "invalid JSON") * 2 + ("hang",)
HANG = 6.0  # seconds; longer than the clients' timeout in tests, which load alone must not reach
KEY = "sk-loopback-secret"


def digest(body, url=""):
    """The hash under which a client must store a request to the endpoint at that URL."""
    return hashlib.sha256(json.dumps([f"openai {url}", body], sort_keys=True).encode()).hexdigest()


def verdict_of(body):
    """The endpoint's reply to a request, determined by its text: (text, finish_reason, logprobs)."""
    number = int(digest(body["messages"])[:8], 16)
    if body.get("logprobs"):
        top = [
            {"token": "m", "logprob": -0.5 - number % 7},
            {"token": "M", "logprob": -1.5},
            {"token": "x", "logprob": -9.0},
        ]
        if number % 50 == 0:
            return "M", "length", None  # an endpoint that forgets the log-probabilities
        if number % 50 == 1:
            return "x", "length", {"content": [{"token": "x", "top_logprobs": [{"token": "x", "logprob": -0.1}]}]}
        return "m", "length", {"content": [{"token": "m", "logprob": -0.5, "top_logprobs": top}]}
    if "final verdict" in body["messages"][0]["content"]:
        if len(body["messages"]) == 2 and number % 10 == 0:
            return "Let me think. Assistant A is", "length", None  # cut off before the verdict
        if number % 10 == 1:
            return "[[A>B]] or maybe [[B>A]]", "stop", None  # no verdict by the 2024 rules
        return f"My final verdict is [[{('A>>B', 'A>B', 'A=B', 'B>A', 'B>>A')[number % 5]}]]", "stop", None
    if number % 20 == 0:
        return "I would give it seven.", "stop", None
    return f"Fine. Rating: [[{1 + number % 10}]]", "stop", None


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # with the default of 5, many simultaneous clients wait a second to connect
    daemon_threads = True

    def handle_error(self, *_):
        """Clients that disconnect are part of the tests."""


class Endpoint:
    """Serves until closed.

    Attributes:
        url: its address, up to and including /v1.
        answered: digest of a request -> number of good answers.
        requests: digests in order of arrival.
        did: counts of "200" and of each fault by name.
        most_at_once: highest number of requests in progress at the same time.
    """

    def __init__(self, fault_rate=0.0, faults=FAULTS, seed=0, status=None, latency=0.0):
        self.fault_rate, self.faults, self.status, self.latency = fault_rate, faults, status, latency
        self.answered, self.did, self.requests = Counter(), Counter(), []
        self.most_at_once = self._under_way = 0
        self.authorizations = set()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self.server = Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def _next(self, key):
        with self._lock:
            self.requests.append(key)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            fault = self._random.choice(self.faults) if self._random.random() < self.fault_rate else "200"
            self.did[fault if self.status is None else str(self.status)] += 1
            return fault

    def _handler(endpoint):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.authorizations.add(self.headers.get("Authorization"))
                key = digest(body, endpoint.url)
                fault = endpoint._next(key)
                try:
                    time.sleep(endpoint.latency)
                    self._act(fault, key, body)
                except OSError:
                    self.close_connection = True
                finally:
                    with endpoint._lock:
                        endpoint._under_way -= 1

            def _send(self, status, content, headers=(), length=None):
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(length or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _act(self, fault, key, body):
                if endpoint.status is not None:
                    said = f"Incorrect API key provided: {self.headers.get('Authorization')}"
                    self._send(endpoint.status, json.dumps({"error": {"message": said}}).encode())
                elif fault == "429":
                    self._send(429, b"slow down")
                elif fault == "429 Retry-After":
                    self._send(429, b"slow down", [("Retry-After", "0")])
                elif fault == "500":
                    self._send(500, b"oops")
                elif fault == "hang":
                    time.sleep(HANG)
                    self.close_connection = True
                elif fault == "cut":
                    self._send(200, b'{"choices": [{"mess', length=500)
                    self.close_connection = True
                    self.wfile.flush()
                elif fault == "invalid JSON":
                    self._send(200, b"<html>gateway</html>")
                else:
                    self._answer(key, body)

            def _answer(self, key, body):
                text, reason, logprobs = verdict_of(body)
                choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
                if logprobs is not None:
                    choice["logprobs"] = logprobs
                usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
                document = {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": body["model"],
                    "usage": usage,
                }
                with endpoint._lock:
                    endpoint.answered[key] += 1
                self._send(200, json.dumps(document | {"choices": [choice]}).encode())

        return Handler
