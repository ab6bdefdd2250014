"""One simulated server's engine: it takes requests and generates tokens step by step, without I/O.

The clock is injected. A step runs in vLLM's order: schedule; offer chunks to the offload tier; load and pull KV; run
the forward pass; store; finish requests; take note of the loads, stores and leases that have ended.
"""

from collections.abc import Callable

from harness.facts import Connector
from harness.sim.blocks import BlockPool, KVMemory
from harness.sim.config import SimConfig
from harness.sim.connectors import Connectors, KVConnector
from harness.sim.damage import PlantedBugs
from harness.sim.fabric import Fabric
from harness.sim.forward import Model
from harness.sim.language import Language
from harness.sim.ledger import Ledger
from harness.sim.offload import Offload
from harness.sim.pull import EngineDead
from harness.sim.scheduler import Scheduler
from harness.sim.sequence import Delta, Finish, Score, Sequence, Status
from harness.sim.stats import ServerStats
from harness.sim.transfer import Nixl
from harness.sim.words import EOS, FIRST_WORD, Tokenizer


class Engine:
    """A server's scheduler, KV cache, connectors and model."""

    def __init__(
        self, engine_id: str, config: SimConfig, now: Callable[[], float], fabric: Fabric, ledger: Ledger
    ) -> None:
        self.engine_id, self.config, self.now, self._fabric = engine_id, config, now, fabric
        self.bugs = PlantedBugs(config, ledger, self)
        self.language = Language(config.vocab_size, FIRST_WORD, EOS, config.eos_rate)
        self.tokenizer = Tokenizer(config.vocab_size)
        self.dead: str | None = None
        self.started = self.now()
        self.stats = ServerStats()
        self.pool = BlockPool(config.num_blocks)
        self.memory = KVMemory(config.num_blocks, config.block_size)
        self.connectors = Connectors(tuple(map(self._connector, config.connectors)))
        self.scheduler = Scheduler(config, self.pool, self.connectors, self.stats)
        self.model = Model(config, self.language, self.memory, ledger)
        self._finished: list[Sequence] = []

    def _connector(self, kind: Connector) -> KVConnector:
        if kind is Connector.NIXL:
            return Nixl(
                self.engine_id,
                self.config,
                pool=self.pool,
                memory=self.memory,
                stats=self.stats,
                fabric=self._fabric,
                faults=self.bugs,
                now=self.now,
            )
        return Offload(self.config, self.pool, self.memory, self.stats, self.bugs.on_restore, self.bugs.on_store)

    @property
    def offload(self) -> Offload | None:
        """The offload tier, if there is one."""
        return next((member for member in self.connectors.members if isinstance(member, Offload)), None)

    @property
    def nixl(self) -> Nixl | None:
        """The transfer agent, if there is one."""
        return next((member for member in self.connectors.members if isinstance(member, Nixl)), None)

    # --- requests ---

    def add(self, sequence: Sequence) -> None:
        """Queue a request; raises EngineDead if an assertion failed before."""
        if self.dead:
            raise EngineDead(self.dead)
        sequence.arrived = self.now()
        self.bugs.on_arrival(sequence)
        self.scheduler.add(sequence)

    def abort(self, sequence: Sequence) -> None:
        """End a request whose client has gone."""
        if sequence.status is not Status.FINISHED:
            self._finish(sequence, Finish.ABORT)

    @property
    def has_work(self) -> bool:
        """Whether a step would do something now; a load that never ends is not work."""
        queues = self.scheduler
        if self.dead:
            return False
        hung = all(sequence.status is Status.REMOTE and not sequence.received for sequence in queues.loading)
        return bool(
            queues.running
            or queues.waiting
            or (queues.loading and not hung)
            or self._finished
            or self.connectors.has_work
        )

    @property
    def next_deadline(self) -> float | None:
        """When the next lease ends or must be renewed, on the engine's clock."""
        return self.nixl.next_deadline if self.nixl else None

    # --- a step ---

    def step(self) -> list[Delta]:
        """Compute one batch; if an assertion fails, all requests in flight end with an error."""
        try:
            return self._step()
        except EngineDead as error:
            self.dead = str(error)
            lost = [*self.scheduler.running, *self.scheduler.loading, *self.scheduler.waiting]
            for sequence in lost:
                sequence.status, sequence.finish = Status.FINISHED, Finish.ERROR
            return [Delta(sequence, None) for sequence in lost]

    def _step(self) -> list[Delta]:
        self.stats.stepped = True
        work = self.scheduler.schedule()
        finished, self._finished = self._finished, []
        offload = self.offload
        if offload:
            scheduled = (part.sequence for part in work)
            offload.offer((one for one in scheduled if offload.label not in one.ignored_connectors), finished)
        received = self.connectors.run()
        deltas = [self._emit(part.sequence, *result) for part in work if (result := self.model.compute(part))]
        if offload:
            offload.copy_stores()
            offload.complete_stores()
        deltas += self._take_in(received)
        self._release()
        return deltas

    def _emit(self, sequence: Sequence, token: int, score: Score | None) -> Delta:
        sequence.tokens.append(token)
        self.stats.generation_tokens += 1
        if sequence.first_token_at is None:
            sequence.first_token_at = self.now()
            self.stats.time_to_first.observe(sequence.first_token_at - sequence.arrived)
        if sequence.sources is not None:
            self._count_prompt(sequence, *sequence.sources)
        if reason := self._stops(sequence, token):
            self._finish(sequence, reason)
        return Delta(sequence, token, score)

    def _count_prompt(self, sequence: Sequence, local: int, external: int) -> None:
        """Count a request's prompt tokens by source, once, with its first output token."""
        sequence.sources = None
        length = len(sequence.prompt)
        self.stats.prompt_tokens += length
        self.stats.local_cache_hit += local
        self.stats.external_kv_transfer += external
        self.stats.local_compute += length - local - external
        self.bugs.on_counted(sequence, external)

    def _stops(self, sequence: Sequence, token: int) -> Finish | None:
        sampling = sequence.sampling
        if token == EOS and not sampling.ignore_eos:
            return Finish.STOP
        if token in sampling.stop_token_ids:
            sequence.stop_reason = token
            return Finish.STOP
        if sampling.stop and sequence.num_output >= sampling.min_tokens and self._meets_stop(sequence, token):
            return Finish.STOP
        full = len(sequence.tokens) >= self.config.max_model_len
        return Finish.LENGTH if full or sequence.num_output >= sampling.max_tokens else None

    def _meets_stop(self, sequence: Sequence, token: int) -> bool:
        sequence.text += self.tokenizer.decode([token])
        for stop in sequence.sampling.stop:
            if stop in sequence.text:
                sequence.stop_reason = stop
                return True
        return False

    def _finish(self, sequence: Sequence, reason: Finish) -> None:
        waits = sequence.status is Status.REMOTE and not sequence.received
        self.scheduler.remove(sequence)
        sequence.status, sequence.finish = Status.FINISHED, reason
        if reason is not Finish.ABORT:
            self.stats.success[reason] += 1
            self.stats.latency.observe(self.now() - sequence.arrived)
            self.stats.prompt_lengths.observe(len(sequence.prompt))
            self.stats.output_lengths.observe(sequence.num_output)
        held, sequence.returned_params = self.connectors.finished(sequence)
        self._finished.append(sequence)
        # A request that still waits for its load keeps its blocks.
        if not held and not waits:
            self.scheduler.free(sequence)

    # --- ended loads and leases ---

    def _take_in(self, received: list[tuple[Sequence, bool]]) -> list[Delta]:
        deltas = []
        for sequence, failed in received:
            if sequence.status is Status.FINISHED:
                self.scheduler.free(sequence)
            elif failed and self.config.load_failure_policy == "fail" and not sequence.position_shift:
                sequence.received = True
                self._finish(sequence, Finish.ERROR)
                deltas.append(Delta(sequence, None))
            else:
                sequence.received = True
                sequence.load_failed = failed
                if failed:
                    sequence.computed = sequence.num_cached * self.config.block_size
        return deltas

    def _release(self) -> None:
        if self.nixl:
            for sequence in self.nixl.leases.released():
                self.scheduler.free(sequence)

    def reset_prefix_cache(self, *, external: bool = False) -> bool:
        """Act as POST /reset_prefix_cache; return False while blocks are held."""
        done = self.pool.reset()
        if external and self.offload:
            done = self.offload.reset() and done
        return done
