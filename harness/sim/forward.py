"""The forward pass of one step: it reads KV from memory, writes KV and chooses tokens (language.py)."""

from dataclasses import dataclass

from harness.sim.blocks import KVMemory
from harness.sim.config import SimConfig
from harness.sim.language import MASK, Distribution, Language, correct_total, extend, token_kv
from harness.sim.ledger import Ledger
from harness.sim.logit_noise import NoisyDistribution
from harness.sim.scheduler import Work
from harness.sim.sequence import Score, Sequence

Following = Distribution | NoisyDistribution
"""The distribution of the next token, without or with noise on its logits."""


@dataclass(slots=True)
class Model:
    """One server's model and its KV memory."""

    config: SimConfig
    language: Language
    memory: KVMemory
    ledger: Ledger

    def compute(self, work: Work) -> tuple[int, Score | None] | None:
        """Compute tokens of a sequence; return the next token unless known tokens are still to be computed."""
        sequence = work.sequence
        self._read_context(sequence, work.start)
        if work.end == work.start + 1 and not sequence.skips_reading:
            self._compute_one(sequence, work.start)
        else:
            self._compute_many(sequence, work.start, work.end)
        if work.end < len(sequence.tokens):
            return None
        return self._sample(sequence)

    def _read_context(self, sequence: Sequence, upto: int) -> None:
        """Read the sum of the KV before ``upto``, unless the sum that was read last is still right."""
        if sequence.total_at == upto and sequence.foreign_seen == self.memory.foreign_writes:
            return
        sequence.total = self.memory.total(sequence.blocks, upto) & MASK
        sequence.drift = self.memory.drift(sequence.blocks[: -(-upto // self.config.block_size)])
        sequence.foreign_seen = self.memory.foreign_writes
        self._audit(sequence, upto)

    def _audit(self, sequence: Sequence, upto: int) -> None:
        """Record in the ledger whether the KV was wrong; a tainted block may be harmless (language.py, rule 3)."""
        suspect = not self.memory.tainted.isdisjoint(sequence.blocks) or sequence.drift
        if not (suspect or self.config.audit_always):
            return
        if sequence.drift or sequence.total != correct_total(sequence.tokens[:upto]):
            sequence.wrong = True
            self.ledger.read_wrong(sequence.request_id)

    def _compute_one(self, sequence: Sequence, position: int) -> None:
        row = token_kv(sequence.total, sequence.tokens[position], position)
        block, offset = divmod(position, self.config.block_size)
        self._write(sequence, block, offset, [row])
        sequence.total = (sequence.total + row) & MASK
        sequence.total_at = position + 1

    def _compute_many(self, sequence: Sequence, start: int, end: int) -> None:
        if sequence.position_shift:
            self.ledger.read_wrong(sequence.request_id)
            sequence.wrong = True
        first = start + sequence.position_shift
        rows, total = extend(sequence.total, sequence.tokens[start:end], first)
        if sequence.skips_reading:
            self._score_prompt(sequence, start, rows)
        size = self.config.block_size
        position = start
        while position < end:
            block, offset = divmod(position, size)
            stop = min((block + 1) * size, end)
            self._write(sequence, block, offset, rows[position - start : stop - start])
            position = stop
        sequence.total, sequence.total_at = total, end

    def _write(self, sequence: Sequence, index: int, offset: int, rows: list[int]) -> None:
        block = sequence.blocks[index]
        self.memory.write_rows(block, offset, rows)
        # A later prefix hit on this block would read KV that was computed from wrong KV.
        if sequence.wrong:
            self.memory.tainted.add(block)

    def _score_prompt(self, sequence: Sequence, start: int, rows: list[int]) -> None:
        """Score the prompt's own tokens, which is teacher forcing."""
        length = len(sequence.prompt)
        total = sequence.total
        if start == 0:
            sequence.prompt_scores = [None]
        for position, row in enumerate(rows, start):
            total = (total + row) & MASK
            if position + 1 < length and position + 1 == len(sequence.prompt_scores):
                exact = self.language.distribution(total, sequence.drift)
                following = sequence.noise.on_logits(exact, position + 1)
                sequence.prompt_scores.append(self._prompt_score(sequence, following, position + 1))

    def _prompt_score(self, sequence: Sequence, following: Following, position: int) -> Score:
        logprob, rank = following.look_up(sequence.prompt[position])
        noise, wanted = sequence.noise, sequence.sampling.prompt_logprobs or 0
        if wanted == 1:
            best = following.best()[0]
            top: list[tuple[int, float]] = [(best, noise.logprob(following.top_logprob(), position))]
        else:
            top = noise.ranked(following.ranking(wanted), position) if wanted else []
        if rank == 1 and top:
            return Score(top[0][1], rank, tuple(top))
        own = noise.logprob(logprob, position, min(rank, 16) - 1)
        return Score(min(own, top[0][1]) if top else own, rank, tuple(top))

    def _sample(self, sequence: Sequence) -> tuple[int, Score | None]:
        exact = self.language.distribution(sequence.total, sequence.drift)
        following = sequence.noise.on_logits(exact, len(sequence.tokens))
        token, flipped = sequence.noise.choose(following)
        if token == self.language.eos and sequence.num_output < sequence.sampling.min_tokens:
            token, flipped = next(word for word, _ in following.ranking() if word != self.language.eos), False
        return token, self._score(sequence, following, token, flipped=flipped)

    def _score(self, sequence: Sequence, following: Following, token: int, *, flipped: bool) -> Score | None:
        wanted = sequence.sampling.logprobs
        if wanted is None:
            return None
        position = len(sequence.tokens)
        # At least two: a flip swaps the log-probabilities of the best token and the runner-up.
        ranked = sequence.noise.ranked(following.ranking(max(wanted, 2)), position, flipped=flipped)
        for rank, (candidate, logprob) in enumerate(ranked, 1):
            if candidate == token:
                return Score(logprob, rank, tuple(ranked[:wanted]))
        return Score(*following.look_up(token), tuple(ranked[:wanted]))
