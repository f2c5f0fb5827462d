"""Prints every result of an instance as a JSON line, for comparison with another
reader's, and the losses at the end: `python dump.py INSTANCE ROOT COUNT`"""

import dataclasses
import json
import sys

from framebus import Client

instance, root, count = sys.argv[1:]
with Client(instance, root) as client, client.results() as results:
    print("subscribed", flush=True)
    for _ in range(int(count)):
        print(json.dumps(dataclasses.asdict(next(results))), flush=True)
    print(json.dumps({"lost": results.lost, "bad_headers": results.bad_headers}), flush=True)
