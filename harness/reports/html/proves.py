"""What each check shows when it has passed, and what it cannot show, in a sentence each."""

PROVES = {
    "completion": (
        "Every request of the load was answered, or failed clearly while a fault of the run was at work.",
        "It says nothing about what the answers contain.",
    ),
    "outputs": (
        "Each output that was verified is the one that its prompt has without KV transfer, within the measured noise.",
        "It says nothing about outputs that were not verified, nor about errors smaller than the noise.",
    ),
    "token_sources": (
        "Decode received the prompts' KV by transfer, as every server's counters of token sources show.",
        "It counts tokens, and does not look at what the KV contains.",
    ),
    "nixl_bytes": (
        "NIXL moved exactly the bytes of the prompts' blocks, no fewer and no more.",
        "It does not show that the bytes were the right ones, or went to the right place.",
    ),
    "offload_bytes": (
        "The offload tier stored and restored as many bytes as its rules predict.",
        "It does not show that the restored bytes were the right ones.",
    ),
    "failed_transfers": (
        "No transfer failed and no request's blocks expired on prefill, beyond what the faults of the run explain.",
        "It relies on the engine to count its failures.",
    ),
    "settled": (
        "After each phase, no request was left over and every KV block was released.",
        "It does not show what happened while the load went on.",
    ),
    "streaming": (
        "Streamed answers arrived as they were generated, and were not held back in a buffer.",
        "It does not judge how fast they were.",
    ),
    "client_health": (
        "The harness's own client kept up with the load, so that latencies are those of the deployment.",
        "It says nothing about the deployment.",
    ),
    "salts": (
        "Servers keep prompts with different cache salts apart, which the predictions of this run rely on.",
        "It was tested with a few prompts.",
    ),
    "faults": (
        "Each fault of the run took hold, was undone, and the deployment served requests again in time.",
        "It says nothing about other moments or other faults.",
    ),
    "provoked": (
        "The situation that the workload is to bring about did occur.",
        "It does not show that it occurred for every request.",
    ),
    "processes": (
        "Every process that the harness had started was running until the run ended.",
        "It says nothing about processes that others had started.",
    ),
}
"""By the check's name: what it proves, and what it does not. A check without an entry is shown without them."""
