"""Reads a recording with the `mcap` reader and says what is in it, as JSON.

    python tests/recording.py FILE

Needs `mcap` and `mcap-ros2-support`; every message is decoded by the schema in the file.
"""

import json
import sys

from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

topics: dict[str, dict] = {}
with open(sys.argv[1], "rb") as file:
    reader = make_reader(file, decoder_factories=[DecoderFactory()])
    for schema, channel, message, decoded in reader.iter_decoded_messages():
        topic = topics.setdefault(
            channel.topic, {"schema": schema.name, "messages": 0, "boxes": 0, "sequences": []}
        )
        topic["messages"] += 1
        topic["sequences"].append(message.sequence)
        match schema.name.split("/")[-1]:
            case "RawImage":
                assert decoded.encoding == "nv12", decoded.encoding
                assert len(decoded.data) == decoded.step * decoded.height * 3 // 2
                assert decoded.frame_id == channel.metadata["camera"]
                topic["size"] = [decoded.width, decoded.height]
                topic["mean"] = sum(decoded.data[: decoded.step]) / decoded.step
            case "CompressedImage":
                assert decoded.format == "jpeg", decoded.format
                data = bytes(decoded.data)
                assert data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"
            case "ImageAnnotations":
                assert len(decoded.points) == len(decoded.texts)
                assert all(len(box.points) == 4 and box.type == 2 for box in decoded.points)
                topic["boxes"] += len(decoded.points)
            case "FrameHeaderV1":
                assert (decoded.version, decoded.sequence) == (1, message.sequence)
                assert decoded.wall_ns == message.log_time
                assert bytes(decoded.camera).rstrip(b"\0").decode() == channel.metadata["camera"]
            case "ResultV1":
                assert decoded.count == len(decoded.detections)
                assert decoded.result_ns > decoded.capture_ns
                for found in decoded.detections:
                    assert 0 < found.score <= 1, found.score
                    assert found.bbox[0] < found.bbox[2] and found.bbox[1] < found.bbox[3]
                    assert bytes(found.label).rstrip(b"\0").decode()
                topic["boxes"] += len(decoded.detections)
    metadata = {record.name: record.metadata for record in reader.iter_metadata()}
print(json.dumps({"topics": topics, "metadata": metadata}))
