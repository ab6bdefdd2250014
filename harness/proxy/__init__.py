"""The prefill→decode proxy: each request is prefilled on P, then decoded on D from P's KV blocks.

In a program: ``await start_proxy([prefill_url], [decode_url])``. By itself: ``python -m harness.proxy --help``.
"""

from harness.proxy.server import ProxyHandle, start_proxy

__all__ = ["ProxyHandle", "start_proxy"]
