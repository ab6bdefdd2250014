"""What the right answers are: the same requests again, without transfer."""

from collections.abc import Iterable
from dataclasses import replace

from harness.scenario import Phase, Request, Route


def reference_phase(
    requests: Iterable[Request], *, concurrency: int, salt: str = "reference", name: str = "reference"
) -> Phase:
    """A phase of one reference for each request, with everything that shapes its output unchanged.

    A reference goes to a prefill server (any), which prefills and decodes it alone. That path reads nobody's KV:

    - Without ``kv_transfer_params`` NIXL's connector offers no token, and transfers nothing.
    - A ``cache_salt`` of its own goes into the hash of the first block, and so into every block's after it: nothing
      in the prefix cache or the offload tier can match, whoever put it there. It needs no cache to be reset.

    Prefill servers rather than decode servers: a decode server's caches were filled by the transfers under test, and
    what a broken transfer left there should not be a hash's distance from the truth. That P itself computes rightly is
    taken for granted; a wrong model on P alone shows, since D decodes with its own.

    ``salt`` opens every cache_salt. It must be new for each run against a deployment that outlives the run: with
    an old one, a reference would be read from the cache that the same reference left behind.

    Not counted: the references' own traffic is nobody's question, and salted blocks still take room in the caches,
    so a phase that depends on what is cached should come before this one.
    """
    return Phase(
        name=name,
        requests=tuple(_reference(request, salt) for request in requests),
        concurrency=concurrency,
        counted=False,
    )


def _reference(request: Request, salt: str) -> Request:
    return replace(
        request,
        request_id=f"{request.request_id}-reference",
        route=Route.PREFILL,
        server=None,
        cache_salt=f"{salt}-{request.request_id}",
        reference_for=request.request_id,
    )
