"""Prints every result, or every event, of an instance as a JSON line, for comparison with
another reader's, and the losses at the end: `python dump.py INSTANCE ROOT COUNT [events]`"""

import dataclasses
import json
import sys

from framebus import Client

instance, root, count, *what = sys.argv[1:]
with Client(instance, root) as client, (client.events() if what else client.results()) as results:
    print("subscribed", flush=True)
    for _ in range(int(count)):
        item = next(results)
        named = {"id": item.id} if what else {}
        print(json.dumps(dataclasses.asdict(item) | named), flush=True)
    print(json.dumps({"lost": results.lost, "bad_headers": results.bad_headers}), flush=True)
