"""Metrics: outcomes of the cases, tables, failure rates, cost and latency of both arms.

Import from the modules: ``outcomes`` judges one case, ``tables`` makes data frames, ``compute``
the metrics, ``measures`` what a policy can put a limit on, ``rates`` the exact bounds.
"""
