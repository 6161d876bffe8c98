"""A client for the Container Runtime Interface, as the kubelet is one: a single call.

    cri.py SOCKET SERVICE/METHOD REQUEST PATH

REQUEST is the message as JSON, its fields by number: text, numbers, messages, and lists for repeated
fields. Printed is the field of the answer that PATH leads to, as in 1.3; nothing if it is not there.
Debian has no crictl, and for half a dozen messages the protocol needs no generated code.
"""

import json
import sys

import grpc


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode(fields):
    encoded = b""
    for number, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int):
                encoded += varint(int(number) << 3) + varint(value)
                continue
            content = encode(value) if isinstance(value, dict) else value.encode()
            encoded += varint(int(number) << 3 | 2) + varint(len(content)) + content
    return encoded


def read_varint(message, at):
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def decode(message):
    """The last value of each field, as protobuf has it."""
    fields, at = {}, 0
    while at < len(message):
        tag, at = read_varint(message, at)
        value, at = read_varint(message, at)
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        elif tag & 7 != 0:
            raise ValueError(f"field {tag >> 3} has the wire type {tag & 7}")
        fields[tag >> 3] = value
    return fields


def main():
    socket, method, request, path = sys.argv[1:]
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        call = channel.unary_unary(f"/runtime.v1.{method}")
        try:
            value = call(encode(json.loads(request)), timeout=60)
        except grpc.RpcError as error:
            sys.exit(f"{method}: {error.code().name}: {error.details()}")
    for number in path.split("."):
        value = decode(value).get(int(number), b"")
    print(value.decode() if isinstance(value, bytes) else value)


main()
