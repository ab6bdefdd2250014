"""Both endpoints, streamed and not streamed, and every form of prompt."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Endpoint, Message, Phase

_SCRIPTS = (
    "Grüße aus Köln: naïve façade, coöperation, Ærøskøbing, Łódź",
    "東京は日本の首都です。天気はどうですか。",
    "Привет, мир! Как дела сегодня?",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "🙂🙃👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 and \u200b nothing",
    'quotes " and \\ backslashes \n lines \t tabs {"json": [1, null]}',
)
"""Multi-byte letters, right-to-left text, joined emoji, combining marks, and characters that JSON must escape."""


@workload(family="endpoints")
def both_endpoints(build: Builder) -> Iterator[Phase]:
    """The completions and the chat endpoint, streamed and not streamed, all at once.

    Hunts differences between the four paths through proxy and engine.
    """
    requests = [
        build.ask(build.words(build.block + 7), endpoint=endpoint, stream=stream)
        for endpoint in Endpoint
        for stream in (True, False)
    ]
    yield together("ask", requests)


@workload(family="endpoints")
def token_ids_and_text(build: Builder) -> Iterator[Phase]:
    """Prompts of about one block, as token ids and as text.

    Hunts prompts that prefill and decode tokenize differently: one token more or less shifts every following block.
    """
    lengths = (build.block - 1, build.block, build.block + 1)
    prompts = [prompt for length in lengths for prompt in (build.ids(length), build.words(length))]
    yield together("ask", [build.ask(prompt) for prompt in prompts])


@workload(family="endpoints")
def unicode_text(build: Builder) -> Iterator[Phase]:
    """Prompts in many scripts, as text and as chat messages.

    Hunts proxies that decode and re-encode a request's body and lose or normalize characters.
    """
    texts = [f"{build.words(3)} {script}" for script in _SCRIPTS]
    prompts = [prompt for text in texts for prompt in (text, (Message("user", text),))]
    yield together("ask", [build.ask(prompt) for prompt in prompts])


@workload(family="endpoints", needs=Needs(own_proxy=True))
def too_long(build: Builder) -> Iterator[Phase]:
    """A prompt longer than the context is refused with HTTP 400, while requests beside it are served.

    Hunts refusals that are swallowed, turned into a 500, or make other requests fail.
    """
    requests = [
        build.ask(build.block + 1),
        build.ask(build.setting.max_model_len + 1, expect_status=400),
        build.ask(2 * build.block),
    ]
    yield together("ask", requests)
