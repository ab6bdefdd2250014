"""Runs ``vllm bench serve`` and prints its rates as JSON on the last line. Run by ``bench.client``, in its own process.

The arguments are those of ``vllm bench serve``. Counted is its benchmark alone, without imports and the making of
prompts: that it sends the requests, reads the streams and computes its metrics.
"""

import json
import time
from typing import Any

from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    """Measure once."""
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    options = parser.parse_args()
    spent: dict[str, float] = {}
    benchmark = serve.benchmark

    async def timed(*arguments: Any, **named: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = await benchmark(*arguments, **named)
        spent.update(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
        return result

    serve.benchmark = timed
    result = serve.main(options)
    if result["completed"] < options.num_prompts:
        raise SystemExit(f"{result['completed']} of {options.num_prompts} streams are complete.")
    print(json.dumps({name: options.num_prompts / seconds for name, seconds in spent.items()}))


if __name__ == "__main__":
    main()
