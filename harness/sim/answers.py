"""The JSON of vLLM's answers: whole answers, and the chunks of a streamed one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.sim.intake import Parsed
from harness.sim.sequence import Delta, Finish, Score, Sequence
from harness.sim.words import Tokenizer

Json = dict[str, Any]
CREATED = 1_700_000_000
"""Every answer carries this creation time, so that answers are reproducible."""


@dataclass(slots=True)
class Output:
    """The tokens that one sequence has generated so far."""

    index: int
    sequence: Sequence
    tokens: list[int] = field(default_factory=list)
    scores: list[Score | None] = field(default_factory=list)
    sent: int = 0
    """How many of the tokens have been streamed."""
    closed: bool = False
    """Whether the chunk with the finish reason has been streamed."""


@dataclass(slots=True)
class Job:
    """A request that a server is working on."""

    request: Parsed
    outputs: list[Output]
    tokenizer: Tokenizer
    model: str
    interval: int = 1
    details: bool = False
    """Whether ``usage`` states the cached prompt tokens (vLLM's ``--enable-prompt-tokens-details``)."""

    def take(self, delta: Delta) -> None:
        """Add the token that a step generated, if it generated one."""
        if delta.token is not None:
            output = next(output for output in self.outputs if output.sequence is delta.sequence)
            output.tokens.append(delta.token)
            output.scores.append(delta.score)

    @property
    def finished(self) -> bool:
        """Whether every sequence has ended."""
        return all(output.sequence.finish for output in self.outputs)

    @property
    def failed(self) -> bool:
        """Whether any sequence ended in an error, to which vLLM answers 500."""
        return any(output.sequence.finish is Finish.ERROR for output in self.outputs)

    def usage(self) -> Json:
        """Build ``usage``; each prompt counts once, however many sequences it has."""
        prompt = sum(map(len, self.request.prompts))
        completion = sum(len(output.tokens) for output in self.outputs)
        usage: Json = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
        cached = sum(output.sequence.found for output in self.outputs)
        # Like vLLM, leave the details out if no token was cached.
        return usage | {"prompt_tokens_details": {"cached_tokens": cached}} if self.details and cached else usage

    # --- whole answers ---

    def answer(self) -> Json:
        """Build the body of an answer that is not streamed."""
        first = self.outputs[0].sequence
        answer = self._head("chat.completion" if self.request.chat else "text_completion")
        answer |= {
            "choices": [self._choice(output) for output in self.outputs],
            "usage": self.usage(),
            "kv_transfer_params": first.returned_params,
        }
        if self.request.chat:
            answer["prompt_logprobs"] = self._prompt_logprobs(first)
            answer["prompt_token_ids"] = list(first.prompt) if self.request.return_token_ids else None
        return answer

    def _head(self, kind: str) -> Json:
        prefix = "chatcmpl" if self.request.chat else "cmpl"
        return {"id": f"{prefix}-{self.request.request_id}", "object": kind, "created": CREATED, "model": self.model}

    def _choice(self, output: Output) -> Json:
        request, sequence = self.request, output.sequence
        text = self._text(output)
        choice: Json = {
            "index": output.index,
            "logprobs": self._logprobs(output, 0),
            "finish_reason": sequence.finish,
            "stop_reason": sequence.stop_reason,
            "token_ids": output.tokens if request.return_token_ids else None,
        }
        if request.chat:
            return choice | {"message": {"role": "assistant", "content": text}}
        if request.echo and not request.return_token_ids:
            text = self.tokenizer.decode(sequence.prompt) + text
        return choice | {
            "text": text,
            "prompt_logprobs": self._prompt_logprobs(sequence),
            "prompt_token_ids": list(sequence.prompt) if request.return_token_ids else None,
        }

    def _text(self, output: Output) -> str:
        text = self.tokenizer.decode(output.tokens)
        stop = output.sequence.stop_reason
        return text[: text.index(stop)] if isinstance(stop, str) else text

    def _prompt_logprobs(self, sequence: Sequence) -> list[Json | None] | None:
        if not sequence.skips_reading:
            return None
        return [
            self._prompt_entry(token, score) if score else None
            for token, score in zip(sequence.prompt, sequence.prompt_scores, strict=True)
        ]

    def _prompt_entry(self, token: int, score: Score) -> Json:
        entries = {token: (score.logprob, score.rank)}
        for rank, (candidate, logprob) in enumerate(score.top, 1):
            entries.setdefault(candidate, (logprob, rank))
        return {
            str(candidate): {"logprob": logprob, "rank": rank, "decoded_token": self.tokenizer.spell(candidate)}
            for candidate, (logprob, rank) in entries.items()
        }

    # --- log-probabilities ---

    def _logprobs(self, output: Output, start: int) -> Json | None:
        wanted = self.request.sampling.logprobs
        if wanted is None:
            return None
        pairs = [
            (token, score) for token, score in zip(output.tokens[start:], output.scores[start:], strict=True) if score
        ]
        if self.request.chat:
            return {"content": [self._chat_entry(token, score, wanted) for token, score in pairs]}
        if self.request.echo and start == 0:
            prompt = zip(output.sequence.prompt, output.sequence.prompt_scores, strict=True)
            return self._lists([*prompt, *pairs], wanted)
        return self._lists(list(pairs), wanted)

    def _lists(self, pairs: list[tuple[int, Score | None]], wanted: int) -> Json:
        names = [self._name(token) for token, _ in pairs]
        offsets = [0]
        for name in names:
            offsets.append(offsets[-1] + len(name))
        return {
            "text_offset": offsets[:-1],
            "token_logprobs": [score.logprob if score else None for _, score in pairs],
            "tokens": names,
            "top_logprobs": [score and self._top(token, score, wanted) for token, score in pairs],
        }

    def _top(self, token: int, score: Score, wanted: int) -> dict[str, float]:
        """List the sampled token, then the ``wanted`` leading tokens; the sampled token is not repeated."""
        entries = {token: score.logprob} | {t: lp for t, lp in score.top if t != token}
        return {self._name(t): lp for t, lp in list(entries.items())[: wanted + 1]}

    def _chat_entry(self, token: int, score: Score, wanted: int) -> Json:
        top = self._top(token, score, wanted)
        named = [{"token": name, "logprob": lp, "bytes": list(name.encode())} for name, lp in top.items()]
        name = self._name(token)
        entry = {"token": name, "logprob": score.logprob, "bytes": list(name.encode())}
        return entry | {"top_logprobs": named[:wanted]}

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self.request.tokens_as_ids else self.tokenizer.spell(token)

    # --- streamed answers ---

    def chunks(self) -> Iterator[Json]:
        """Yield the chunks that can be streamed now."""
        for output in self.outputs:
            ready = len(output.tokens) - output.sent
            ended = output.sequence.finish is not None
            if output.closed or not (ended or (ready and (ready >= self.interval or not output.sent))):
                continue
            yield from self._chunk(output, ended=ended)

    def _chunk(self, output: Output, *, ended: bool) -> Iterator[Json]:
        start, output.sent, output.closed = output.sent, len(output.tokens), ended
        if self.request.chat and start == 0:
            yield self._role_chunk(output)
        text = self.tokenizer.decode(output.tokens[start:])
        if ended and isinstance(output.sequence.stop_reason, str):
            text = self._text(output)[len(self.tokenizer.decode(output.tokens[:start])) :]
        choice: Json = {
            "index": output.index,
            "logprobs": self._logprobs(output, start),
            "finish_reason": output.sequence.finish if ended else None,
            "stop_reason": output.sequence.stop_reason if ended else None,
        }
        if self.request.return_token_ids:
            choice["token_ids"] = output.tokens[start:]
        if self.request.chat:
            yield self._framed(choice | {"delta": {"content": text}})
            return
        if start == 0:
            if self.request.return_token_ids:
                choice["prompt_token_ids"] = list(output.sequence.prompt)
            elif self.request.echo:
                text = self.tokenizer.decode(output.sequence.prompt) + text
        yield self._framed(choice | {"text": text})

    def _role_chunk(self, output: Output) -> Json:
        delta = {"role": "assistant", "content": ""}
        chunk = self._framed({"index": output.index, "delta": delta, "logprobs": None, "finish_reason": None})
        if self.request.return_token_ids:
            chunk["prompt_token_ids"] = list(output.sequence.prompt)
        return chunk

    def _framed(self, *choices: Json) -> Json:
        kind = "chat.completion.chunk" if self.request.chat else "text_completion"
        return self._head(kind) | {"choices": list(choices)}

    def usage_chunk(self) -> Json:
        """Build the last chunk of a stream whose client asked for ``usage``."""
        return self._framed() | {"usage": self.usage()}
