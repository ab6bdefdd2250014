"""Where the prompt tokens of a phase came from so far, by server."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.history import Sampled, Scraped

SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_SAMPLE = "vllm:prompt_tokens_by_source_total"


@dataclass(slots=True)
class TokenSources:
    """Counts of each server when the phase began. They are those of the reading before it, if there was one."""

    _before: dict[str, dict[str, float]] = field(default_factory=dict)

    def scraped(self, reading: Scraped) -> None:
        """Remember a reading before a phase, as that of the phase's beginning."""
        counts = dict.fromkeys(SOURCES, 0.0)
        for sample in reading.samples:
            if sample.name == _SAMPLE and (source := sample.labels.get("source", "")) in counts:
                counts[source] += sample.value
        self._before[reading.server] = counts

    def in_order(self, names: Iterable[str]) -> list[str]:
        """The servers in the order of the readings before the phase, which is that of the deployment."""
        order = {name: number for number, name in enumerate(self._before)}
        return sorted(names, key=lambda name: order.get(name, len(order)))

    def since(self, reading: Sampled) -> dict[str, float]:
        """Prompt tokens by source since the phase began; without the sources that the server does not count."""
        now = {name: value for name in SOURCES if (value := getattr(reading, name)) is not None}
        before = self._before.setdefault(reading.server, now)
        # A server that was restarted counts from zero again.
        return {name: max(value - before.get(name, 0.0), 0.0) for name, value in now.items()}
