#!/usr/bin/env python3
"""Triton's own Python client, for `framebus bench triton --beside`.

usage: python_client.py URL MODEL HEIGHTxWIDTH

Prints {"client": …, "transports": […]} once it is ready, then for each line of its
standard input that is one of the transports asks the server once over it and prints the
milliseconds from the input tensor to the output tensors. The input is random and always
the same; over shared memory it lies in the region already, as framebus's letterbox
leaves it there. Ends with its standard input, or at the line `end`.
"""

import importlib.metadata
import json
import os
import sys
import time

import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as memory
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

# Longest wait for an answer, s.
TIMEOUT = 60


def cells(shape, height, width):
    """`shape` with its free dimensions filled in for one picture."""
    batch, channels, rows, columns = shape
    free = (1, channels, height, width)
    return [size if size > 0 else free[i] for i, size in enumerate((batch, channels, rows, columns))]


class Client:
    def __init__(self, url, name, height, width):
        self.server = triton.InferenceServerClient(url)
        self.name = name
        metadata = self.server.get_model_metadata(name)
        config = self.server.get_model_config(name).config
        self.input = metadata.inputs[0]
        self.outputs = [output.name for output in metadata.outputs]
        shape = cells(self.input.shape, height, width)
        if shape[2:] != [height, width]:
            raise SystemExit(f"error: {name} takes {shape[2]}x{shape[3]}, not {height}x{width}")
        if config.max_batch_size:
            shape[0] = 1
        kind = triton_to_np_dtype(self.input.datatype)
        self.tensor = np.random.default_rng(1).random(shape, np.float32).astype(kind)
        self.regions = []
        self.calls = {"grpc": self.grpc}

    def open_regions(self):
        """Adds shared memory, where the server takes it."""
        first = self.ask([self.filled()], [triton.InferRequestedOutput(name) for name in self.outputs])
        arrays = [first.as_numpy(name) for name in self.outputs]
        try:
            self.region("input", self.tensor.nbytes)
            for name, array in zip(self.outputs, arrays):
                self.region(name, array.nbytes)
        except (InferenceServerException, memory.SharedMemoryException) as error:
            print(f"no shared memory: {error}", file=sys.stderr)
            return
        memory.set_shared_memory_region(self.regions[0][1], [self.tensor])
        self.shapes = [(array.dtype, array.shape) for array in arrays]
        self.calls["system-shared-memory"] = self.shared

    def region(self, name, size):
        # With "framebus" in it: scripts/leftovers.sh would see one that stays.
        key = f"/framebus-bench-python-{os.getpid()}-{len(self.regions)}"
        handle = memory.create_shared_memory_region(key[1:], key, size)
        self.regions.append((key[1:], handle, size))
        self.server.register_system_shared_memory(key[1:], key, size)

    def close(self):
        for name, handle, _ in self.regions:
            try:
                self.server.unregister_system_shared_memory(name)
            except InferenceServerException:
                pass
            memory.destroy_shared_memory_region(handle)

    def filled(self):
        tensor = triton.InferInput(self.input.name, self.tensor.shape, self.input.datatype)
        tensor.set_data_from_numpy(self.tensor)
        return tensor

    def ask(self, inputs, outputs):
        return self.server.infer(self.name, inputs, outputs=outputs, client_timeout=TIMEOUT)

    def grpc(self):
        outputs = [triton.InferRequestedOutput(name) for name in self.outputs]
        answer = self.ask([self.filled()], outputs)
        return [answer.as_numpy(name) for name in self.outputs]

    def shared(self):
        tensor = triton.InferInput(self.input.name, self.tensor.shape, self.input.datatype)
        tensor.set_shared_memory(self.regions[0][0], self.regions[0][2])
        outputs = []
        for output, (name, _, size) in zip(self.outputs, self.regions[1:]):
            outputs.append(triton.InferRequestedOutput(output))
            outputs[-1].set_shared_memory(name, size)
        self.ask([tensor], outputs)
        return [
            memory.get_contents_as_numpy(handle, kind, shape)
            for (_, handle, _), (kind, shape) in zip(self.regions[1:], self.shapes)
        ]


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__.strip())
    url, name, size = sys.argv[1:]
    height, width = map(int, size.split("x"))
    client = Client(url, name, height, width)
    try:
        client.open_regions()
        version = importlib.metadata.version("tritonclient")
        # As framebus lists its own.
        transports = sorted(client.calls, reverse=True)
        print(json.dumps({"client": f"tritonclient {version} (Python)", "transports": transports}), flush=True)
        for line in sys.stdin:
            call = client.calls.get(line.strip())
            if call is None:
                break
            begin = time.perf_counter()
            call()
            print(f"{(time.perf_counter() - begin) * 1e3:.4f}", flush=True)
    finally:
        client.close()


if __name__ == "__main__":
    main()
