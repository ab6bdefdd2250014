"""One simulated server without sockets: it takes request bodies and returns answers. http.py serves it over HTTP.

``handle`` runs a single request to its end; ``submit`` and ``step`` allow many requests in flight.
"""

from collections.abc import Callable, Mapping
from typing import Any

from harness.facts import Connector, Role
from harness.scenario import Endpoint
from harness.sim.answers import Job, Output
from harness.sim.config import SimConfig
from harness.sim.engine import Engine
from harness.sim.fabric import Address, Fabric
from harness.sim.intake import Parsed, Refused, parse_request
from harness.sim.ledger import Ledger
from harness.sim.metrics import Exposition
from harness.sim.sequence import Finish, Status

Json = dict[str, Any]
_DTYPE = "torch.bfloat16"


class SimServer:
    """A prefill or a decode server."""

    def __init__(  # noqa: PLR0913 - a server's own parts, and the parts that servers share
        self,
        name: str,
        role: Role,
        config: SimConfig,
        now: Callable[[], float],
        *,
        fabric: Fabric,
        ledger: Ledger,
        engine_id: str | None = None,
    ) -> None:
        self.name, self.role, self.config = name, role, config.of(role)
        self.engine = Engine(engine_id or f"{name}-engine", self.config, now, fabric, ledger)
        self.exposition = Exposition(self.engine)
        self._jobs: dict[str, tuple[Job, Callable[[], None]]] = {}
        self._serial = 0

    # --- requests ---

    def submit(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        request_id: str | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> Job:
        """Take a request, or raise Refused; ``wake`` is called after each step that gave it a token or ended it."""
        self._serial += 1
        request_id = request_id or str(body.get("request_id") or f"anonymous-{self._serial}")
        if self.engine.dead:
            raise Refused(f"EngineDead: {self.engine.dead}", 500)
        try:
            request = self._parse(endpoint, body, request_id)
        except Refused:
            self._release_prefill(body)
            raise
        sequences = request.sequences(self.config, self._serial, self.name)
        outputs = [Output(index, sequence) for index, sequence in enumerate(sequences)]
        config = self.config
        job = Job(
            request, outputs, self.engine.tokenizer, config.model, config.stream_interval, config.prompt_tokens_details
        )
        for sequence in sequences:
            self._jobs[sequence.id] = job, wake
            self.engine.add(sequence)
        return job

    def _parse(self, endpoint: Endpoint, body: Mapping[str, Any], request_id: str) -> Parsed:
        bugs = self.engine.bugs
        if _hands_over(body.get("kv_transfer_params")):
            if bugs.strike("spurious_400", request_id):
                raise Refused("A planted bug refused this request.")
            if bugs.strike("dropped_fields", request_id):
                lost = ("max_tokens", "max_completion_tokens", "stop", "ignore_eos", "min_tokens")
                body = {key: value for key, value in body.items() if key not in lost}
        return parse_request(endpoint, body, request_id, self.config, self.engine.tokenizer)

    def _release_prefill(self, body: Mapping[str, Any]) -> None:
        """Notify P, as vLLM does, that D refuses a request which P has prefilled."""
        nixl, params = self.engine.nixl, body.get("kv_transfer_params")
        if nixl and isinstance(params, Mapping) and _hands_over(params):
            nixl.fabric.release(Address.of(params), str(params.get("remote_request_id")))

    def abort(self, job: Job) -> None:
        """End a request whose client has gone."""
        if self.engine.nixl and not job.request.stream and _hands_over(job.request.params):
            self.engine.nixl.left(job.request.params or {})
        for output in job.outputs:
            self.engine.abort(output.sequence)
            self._jobs.pop(output.sequence.id, None)

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return bool(self._jobs)

    def step(self) -> int:
        """Run one step of the engine; return how many sequences got a token or ended."""
        deltas = self.engine.step()
        woken: dict[int, Callable[[], None]] = {}
        for delta in deltas:
            entry = self._jobs.get(delta.sequence.id)
            if entry is None:
                continue
            job, wake = entry
            job.take(delta)
            woken[id(job)] = wake
            if delta.sequence.status is Status.FINISHED:
                del self._jobs[delta.sequence.id]
        for wake in woken.values():
            wake()
        return len(deltas)

    def handle(self, endpoint: Endpoint, body: Mapping[str, Any], request_id: str | None = None) -> tuple[int, Json]:
        """Serve one request to its end; return status and answer, 504 if the request hangs."""
        try:
            job = self.submit(endpoint, body, request_id)
        except Refused as refused:
            return refused.status, refused.body()
        while not job.finished and self.engine.has_work:
            self.step()
        return self.reply(job)

    def settle(self) -> None:
        """Step until the engine has nothing to do."""
        while self.engine.has_work:
            self.step()

    def reply(self, job: Job) -> tuple[int, Json]:
        """Return status and whole answer of a finished job; 504 if it has not finished."""
        if not job.finished:
            return 504, Refused("The request hangs.", 504).body()
        if job.failed:
            return 500, Refused("Internal server error", 500).body()
        if _hands_over(job.request.params) and self.engine.bugs.strike("error_in_200", job.request.request_id):
            return 200, self._emptied(job)
        return 200, job.answer()

    def _emptied(self, job: Job) -> Json:
        for output in job.outputs:
            output.tokens.clear()
            output.scores.clear()
            output.sequence.finish = Finish.ERROR
        return job.answer()

    def strikes_stream(self, bug: str, job: Job) -> bool:
        """Whether a planted bug of the stream strikes this job; records it."""
        return _hands_over(job.request.params) and self.engine.bugs.strike(bug, job.request.request_id)

    # --- other endpoints ---

    def metrics(self) -> bytes:
        """Answer GET /metrics."""
        return self.exposition.render()

    def models(self) -> Json:
        """Answer GET /v1/models."""
        name = self.config.model
        card = {"id": name, "object": "model", "created": 0, "owned_by": "vllm", "root": name, "parent": None}
        return {"object": "list", "data": [card | {"max_model_len": self.config.max_model_len}]}

    def tokenize(self, body: Mapping[str, Any]) -> Json:
        """Answer POST /tokenize."""
        tokenizer = self.engine.tokenizer
        messages = body.get("messages")
        tokens = tokenizer.encode_chat(messages) if messages else tokenizer.encode(str(body.get("prompt", "")))
        return {
            "count": len(tokens),
            "max_model_len": self.config.max_model_len,
            "tokens": tokens,
            "token_strs": [tokenizer.spell(token) for token in tokens] if body.get("return_token_strs") else None,
        }

    def server_info(self) -> Json:
        """Answer GET /server_info?config_format=json with the parts that the harness reads."""
        config = self.config
        cache = {"block_size": config.block_size, "num_gpu_blocks": config.num_blocks, "cache_dtype": "auto"}
        return {
            "vllm_config": {
                "model_config": {"model": config.model, "max_model_len": config.max_model_len, "dtype": _DTYPE},
                "cache_config": cache,
                "kv_transfer_config": self._kv_transfer_config(),
                "device_config": {"device_type": "sim"},
            }
        }

    def _kv_transfer_config(self) -> Json | None:
        children = [self._connector_config(kind) for kind in self.config.connectors]
        if len(children) < 2:
            return children[0] if children else None
        extra = {"connectors": children}
        return {"kv_connector": "MultiConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}

    def _connector_config(self, kind: Connector) -> Json:
        config = self.config
        extra: Json = {"kv_lease_duration": config.lease_seconds}
        if kind is Connector.OFFLOADING:
            extra = {
                "block_size": config.block_size * config.blocks_per_chunk,
                "cpu_bytes_to_use": config.block_bytes * config.blocks_per_chunk * config.offload_chunks,
                "offload_prompt_only": config.offload_prompt_only,
            }
        return {"kv_connector": _NAMES[kind], "kv_role": "kv_both", "kv_connector_extra_config": extra}


_NAMES = {Connector.NIXL: "NixlConnector", Connector.OFFLOADING: "OffloadingConnector"}


def _hands_over(params: object) -> bool:
    """Whether ``kv_transfer_params`` tell D to pull a prompt from P."""
    return isinstance(params, Mapping) and bool(params.get("do_remote_prefill"))
